"""``srt compare detectron2``: the comparison on the command line."""

from __future__ import annotations

import argparse
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from .command import add_arguments, files_of, run_comparison
from .keywords import PADDINGS

_EPILOG = """\
rows, each one run of Detectron2's own test loop on the same images:
  plain                the model as it is
  1x smoothing         no views, the token grid smoothed; costs nothing, so SRT must beat it
  1x replicate padding partial patches completed with real pixels instead of a constant, where the
                       data have any; free as well. --complete replicate does so in every row
  SRT                  with the settings asked for
  output ensemble      the paper's OE: the whole model on every view, logits averaged (semantic
                       segmentation only)
  flip TTA             the image and its mirror image: logits averaged, or Detectron2's own
                       test-time augmentation of detectors
  larger input         the input enlarged until it costs as many operations as SRT

examples:
  srt compare detectron2 config.yaml weights.pth
  srt compare detectron2 vitdet.py weights.pth --target net --level 3 --limit 50
  srt compare detectron2 config.yaml weights.pkl --dataset scenes_val_200_320x480
  srt compare detectron2 config.yaml weights.pth --opts INPUT.MIN_SIZE_TEST 320
  srt compare detectron2 vitdet.py weights.pth --opts dataloader.test.num_workers=2
"""


def add_parser(frameworks: Any) -> None:
    """Add ``detectron2`` to the frameworks of ``compare``."""
    parser: argparse.ArgumentParser = frameworks.add_parser(
        "detectron2",
        help="a model of Detectron2",
        description="Run a model with and without SRT, and with what SRT must beat, on the test "
        "data of its config; print tables and write compare.json, compare.md and compare.png.",
        epilog=_EPILOG,
    )
    rows, run = add_arguments(
        parser,
        config="yacs config (.yaml), or LazyConfig (.py), whose code runs, with model, "
        "dataloader.test and dataloader.evaluator",
        checkpoint="weights",
    )
    rows.add_argument(
        "--target",
        metavar="PART",
        help="part of the backbone to ensemble instead of the whole: net (ViTDet), bottom_up (FPN)",
    )
    rows.add_argument(
        "--complete",
        choices=PADDINGS,
        help="how partial patches are completed, in every row (default: as the model does)",
    )
    run.add_argument(
        "--dataset",
        metavar="NAME",
        help="a registered dataset, or scenes_<split>_<length>_<H>x<W> (default: as the config "
        "says)",
    )
    run.add_argument(
        "--opts",
        nargs="+",
        default=[],
        metavar="OPT",
        help="overrides of the config in its own syntax: KEY VALUE ... or key=value ...",
    )
    parser.set_defaults(run=run_command)


def run_command(args: argparse.Namespace, argv: list[str]) -> int:
    """Compare, write the files, print."""
    from .detectron2_compare import compare_detectron2

    own = {
        "dataset": args.dataset,
        "target": args.target,
        "complete": args.complete,
        "cfg_options": args.opts,
    }
    return run_comparison(args, argv, compare_detectron2, files_of(args), own, quiet())


@contextmanager
def quiet() -> Iterator[None]:
    """Without Detectron2's logs and deprecation warnings."""
    loggers = [logging.getLogger(name) for name in ("detectron2", "fvcore", "iopath")]
    before = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module=r"(detectron2|fvcore|pycocotools)\b")
            warnings.filterwarnings("ignore", message=r"torch\.meshgrid")
            warnings.filterwarnings("ignore", category=FutureWarning, module="timm")
            yield
    finally:
        for logger, level in zip(loggers, before):
            logger.setLevel(level)
