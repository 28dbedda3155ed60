"""``python -m srt_plugins``."""

import sys

from .cli import main

sys.exit(main())
