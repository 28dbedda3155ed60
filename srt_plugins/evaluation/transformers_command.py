"""``srt compare transformers``: the comparison on the command line."""

from __future__ import annotations

import argparse
from typing import Any

from .command import add_arguments, run_comparison
from .keywords import ALIGNMENTS, DTYPES

_EPILOG = """\
rows, each the model on the same images, prepared and post-processed by its image processor:
  plain                the model as it is
  1x smoothing         no views, the token grid smoothed; costs nothing, so SRT must beat it
  SRT                  with the settings asked for
  output ensemble      the paper's OE: the whole model on every view, logits, depth or semantic
                       scores averaged
  flip TTA             those of the image and its mirror image averaged
  larger input         the input enlarged until it costs as many operations as SRT

what is measured follows from the model, at the size of the original images:
  segmentation         mIoU in percent, by the classes of the config's id2label
  depth                RMSE in m, where a gain is a reduction, and RMSE_log, AbsRel, SqRel, a1, a2,
                       a3

data:
  a folder with images/*.jpg or *.png and, by the same stem, one of
    depth/*.png        16-bit, units of which there are --depth-scale per metre, 0 = unknown
    depth/*.npy        floats in metres
    labels/*.png       8-bit class ids (or annotations/*.png)
  scenes, scenes:val, scenes:test
                       procedural scenes of this package, with depth and 10 classes; --limit says
                       how many (default: 100)

examples:
  srt compare transformers my_segformer my_data
  srt compare transformers my_zoedepth nyu --crop eigen --level 3
  srt compare transformers my_depth_anything nyu --crop eigen --align scale_shift --disparity
  srt compare transformers my_upernet ade20k_val --reduce-labels --row 'views=phases:3,smooth=3'
  srt compare transformers my_segformer scenes:test --limit 200 --skip larger
"""


def add_parser(frameworks: Any) -> None:
    """Add ``transformers`` to the frameworks of ``compare``."""
    parser: argparse.ArgumentParser = frameworks.add_parser(
        "transformers",
        help="a model of transformers for semantic segmentation or depth",
        description="Run a model with and without SRT, and with what SRT must beat, on labelled "
        "images; print a table and write compare.json, compare.md and compare.png.",
        epilog=_EPILOG,
    )
    _, run = add_arguments(
        parser,
        model="folder that save_pretrained wrote, or a name that transformers finds",
        dataset="folder with images/ and depth/ or labels/, or scenes, scenes:val, scenes:test",
    )
    run.add_argument(
        "--dtype", choices=DTYPES, help="of the model (default: as the weights are saved)"
    )
    depth = parser.add_argument_group("depth")
    depth.add_argument(
        "--min-depth", type=float, metavar="M", help="judge above this depth (default: 0.001)"
    )
    depth.add_argument(
        "--max-depth",
        type=float,
        metavar="M",
        help="judge below this depth (default: 80; with --crop eigen 10)",
    )
    depth.add_argument(
        "--crop", choices=("eigen",), help="judge the usual crop of NYU's 480 x 640 images"
    )
    depth.add_argument(
        "--align",
        choices=ALIGNMENTS,
        help="fit predictions to the truth of each image: for models of relative depth",
    )
    depth.add_argument("--disparity", action="store_true", help="the model predicts inverse depth")
    depth.add_argument(
        "--depth-scale",
        type=float,
        metavar="N",
        help="units of depth PNGs per metre (default: 1000)",
    )
    labels = parser.add_argument_group("labels")
    labels.add_argument(
        "--ignore-index", type=int, metavar="I", help="label that is not judged (default: 255)"
    )
    labels.add_argument(
        "--reduce-labels",
        action=argparse.BooleanOptionalAction,
        help="label 0 is unlabelled and the others are one lower (default: as the image "
        "processor's do_reduce_labels says)",
    )
    parser.set_defaults(run=run_command)


def run_command(args: argparse.Namespace, argv: list[str]) -> int:
    """Compare, write the files, print."""
    from .transformers_compare import compare_transformers
    from .transformers_data import OF_TASK
    from .transformers_load import quiet

    own = {name: getattr(args, name) for name in (*OF_TASK["depth"], *OF_TASK["semantic"], "dtype")}
    return run_comparison(
        args, argv, compare_transformers, (args.model, args.dataset), own, quiet()
    )
