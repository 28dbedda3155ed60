"""``srt show``: pictures of features, uncertainty and predictions."""

from __future__ import annotations

import argparse
from typing import Any

from ..evaluation.keywords import add_srt_options, given_keywords, literal
from .model_options import WORDS, add_model_options

_EPILOG = f"""\
panels (--panels NAME...; default: all that the model has):
  image, tokens        the image; the backbone's features as it gives them, one colour per patch
  one                  the same smoothing without views: free, so what it shows is not SRT's gain
  srt                  the same features ensembled over views, at every pixel, in the same colours
  dispersion           how much the views disagree
  similarity           cosine of all features to the one at --point, without and with SRT
  before, after        predictions without and with SRT: classes, depth or instances
  changed              where they differ

Colours are the first three principal components of plain tokens, fitted once on all images (--fit)
and the same in every picture and frame; --save-basis and --basis carry them from run to run.

--model is one of
{WORDS}
examples:
  srt show street.jpg --model timm/vit_small_patch14_dinov2.lvd142m --level 3
  srt show images/ --model mmseg config.py weights.pth --views 4 --smooth guided
  srt show street.jpg --model detectron2 config.yaml weights.pth --panels image before after
  srt show street.jpg --model my_depth_anything --point 120 200 --layer 8
  srt show drive.mp4 --model timm/vit_small_patch16_dinov3 --every 5 --panels image tokens srt
  srt show scenes:val --limit 3 --model mmseg examples/demo/vit_scenes.py \\
      examples/demo/vit_scenes.pth
"""


def add_parser(commands: Any) -> None:
    """Add ``show`` to the commands."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "show",
        help="pictures of features, uncertainty and predictions",
        description="See what SRT makes of a model's features and predictions on images of yours: "
        "a PNG per image, a contact sheet for several, an mp4 for a video.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "images",
        nargs="+",
        metavar="IMAGE",
        help="image, video or folder of them; scenes[:SPLIT] for procedural scenes",
    )
    add_model_options(parser)
    add_srt_options(parser, "settings; without any: 16 views, --views phases:4", rows=False)
    look = parser.add_argument_group("what to show")
    look.add_argument("--panels", nargs="+", metavar="NAME", help="see below (default: all)")
    look.add_argument(
        "--point",
        nargs=2,
        type=int,
        metavar=("Y", "X"),
        help="compare features with those of this pixel of the file",
    )
    look.add_argument("--output", metavar="O", help="which of several feature maps: index or name")
    look.add_argument(
        "--no-background",
        action="store_true",
        help="colours for what the first component tells from the background",
    )
    look.add_argument(
        "--fit",
        type=int,
        default=8,
        metavar="N",
        help="images or frames, evenly spread, that colours are fitted on (default: 8)",
    )
    look.add_argument("--basis", metavar="FILE", help="colours that --save-basis wrote")
    look.add_argument("--save-basis", metavar="FILE.npz", help="write the colours")
    files = parser.add_argument_group("files")
    files.add_argument(
        "--out", metavar="DIR", default="work_dirs/show", help="default: %(default)s"
    )
    files.add_argument(
        "--separate",
        action="store_true",
        help="one file per panel of an image, in the size of the image",
    )
    files.add_argument("--jpg", action="store_true", help="JPEG instead of PNG")
    files.add_argument(
        "--columns", type=int, default=4, metavar="N", help="panels side by side (default: 4)"
    )
    files.add_argument(
        "--width", type=int, default=480, metavar="PX", help="of a panel (default: 480)"
    )
    files.add_argument(
        "--size",
        type=int,
        default=2048,
        metavar="PX",
        help="longest side of images; larger ones are made smaller (default: 2048)",
    )
    files.add_argument("--limit", type=int, metavar="N", help="first N images or frames only")
    files.add_argument(
        "--every", type=int, default=1, metavar="N", help="every Nth frame of a video (default: 1)"
    )
    files.add_argument("--json", action="store_true", help="print JSON instead of file names")
    parser.set_defaults(run=run_command)


def run_command(args: argparse.Namespace, argv: list[str]) -> int:
    """Make the pictures, print their names."""
    from .show_files import show

    keywords = given_keywords(args)
    keywords.pop("layer", None)
    layer = None if args.layer is None else literal(args.layer)
    return show(args, keywords, layer)
