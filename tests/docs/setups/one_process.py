"""``cfg``: the tiny segmentor; a world of one process."""

from __future__ import annotations

from pathlib import Path

import mmseg  # noqa: F401  (where it is missing, that is said)
from mmengine.config import Config

from tests.docs import world


def setup(names: dict) -> None:
    """Bind and set them."""
    world.of_one_process()
    names["cfg"] = Config.fromfile(Path(__file__).parents[1] / "bases" / "tiny.py")
    names["cfg"].work_dir = "work"
