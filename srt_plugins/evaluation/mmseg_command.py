"""``srt compare mmseg``: the comparison on the command line."""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from .command import add_arguments, files_of, run_comparison
from .keywords import PADDINGS, parse_overrides

_EPILOG = """\
rows, each one run of MMSegmentation's own test loop on the same images:
  plain                the model as it is
  1x smoothing         no views, the token grid smoothed; costs nothing, so SRT must beat it
  1x replicate padding partial patches completed with real pixels instead of a constant, where the
                       data have any; free as well. --complete replicate does so in every row
  SRT                  with the settings asked for
  output ensemble      the paper's OE: the whole model on every view, logits (or depth) averaged
  flip TTA             logits (or depth) of the image and its mirror image averaged
  larger input         the input enlarged until it costs as many operations as SRT

what is measured follows from the config:
  segmentation         test_evaluator IoUMetric: mIoU in percent
  depth                DepthEstimator with test_evaluator DepthMetric: RMSE in m, where a gain is a
                       reduction, and RMSE_log, AbsRel, SqRel, a1, a2, a3, by the range and crop of
                       DepthMetric

examples:
  srt compare mmseg config.py weights.pth
  srt compare mmseg config.py weights.pth --level 3 --skip oe larger --limit 50
  srt compare mmseg config.py weights.pth --row 'views=phases:3,smooth=3' --row level=3
  srt compare mmseg config.py weights.pth --complete replicate --out work_dirs/replicate
  srt compare mmseg depth_nyu.py weights.pth --level 3
"""


def add_parser(frameworks: Any) -> None:
    """Add ``mmseg`` to the frameworks of ``compare``."""
    parser: argparse.ArgumentParser = frameworks.add_parser(
        "mmseg",
        help="a model of MMSegmentation",
        description="Run a model with and without SRT, and with what SRT must beat, on the test "
        "data of its config; print a table and write compare.json, compare.md and compare.png.",
        epilog=_EPILOG,
    )
    rows, run = add_arguments(
        parser,
        config="config file with test_dataloader and test_evaluator; its code runs",
        checkpoint="weights",
    )
    rows.add_argument(
        "--complete",
        choices=PADDINGS,
        help="how the preprocessor completes partial patches, in every row (default: as the "
        "config says)",
    )
    run.add_argument(
        "--cfg-options", nargs="+", default=[], metavar="KEY=VALUE", help="overrides of the config"
    )
    parser.set_defaults(run=run_command)


def run_command(args: argparse.Namespace, argv: list[str]) -> int:
    """Compare, write the files, print."""
    from .mmseg_compare import compare_mmseg

    own = {"complete": args.complete, "cfg_options": parse_overrides(args.cfg_options)}
    return run_comparison(args, argv, compare_mmseg, files_of(args), own, quiet())


@contextmanager
def quiet() -> Iterator[None]:
    """Without the frameworks' deprecation warnings and notices; ours and torch's stay."""
    with suppress(ImportError):
        from mmengine.logging import MMLogger

        MMLogger.get_instance("srt", log_level="ERROR")  # the current one while configs are read
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"mm(cv|engine|seg)\b")
        yield
