"""``srt compare``: a model with and without SRT, by framework."""

from __future__ import annotations

import argparse
from typing import Any

from . import detectron2_command, mmseg_command, transformers_command

_EPILOG = """\
examples:
  srt compare mmseg config.py weights.pth
  srt compare detectron2 config.yaml weights.pth --limit 50
  srt compare transformers my_segformer my_data --row 'views=phases:3,smooth=3'

srt compare FRAMEWORK --help tells more.
"""


def add_parser(commands: Any) -> None:
    """Add ``compare`` to the commands."""
    compare: argparse.ArgumentParser = commands.add_parser(
        "compare",
        help="a model with and without SRT on its own test data",
        description="Run a model with and without SRT, and with what SRT must beat, on labelled "
        "images.",
        epilog=_EPILOG,
    )
    frameworks = compare.add_subparsers(dest="framework", metavar="FRAMEWORK", required=True)
    for one in (mmseg_command, detectron2_command, transformers_command):
        one.add_parser(frameworks)
