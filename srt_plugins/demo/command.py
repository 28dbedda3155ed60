"""``srt demo``: a local web page."""

from __future__ import annotations

import argparse
import importlib.util
import sys
import threading
from typing import Any

from ..errors import ConfigError, MissingDependencyError
from ..visualize.model_options import WORDS, add_model_options, loading

_EPILOG = f"""\
--model may be given several times; each is loaded when it is chosen, one is in memory at a time:
{WORDS}
examples:
  srt demo --model timm/vit_small_patch14_dinov2.lvd142m
  srt demo --model mmseg config.py weights.pth --model my_depth_anything
  srt demo --model mmseg examples/demo/vit_scenes.py examples/demo/vit_scenes.pth --port 8000

The page is for this machine alone. From elsewhere, take a tunnel of your own:
  ssh -L 7860:127.0.0.1:7860 HOST
"""


def add_parser(commands: Any) -> None:
    """Add ``demo`` to the commands."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "demo",
        help="a local web page to try SRT on images of yours",
        description="A web page on this machine: features and predictions of a model with and "
        "without SRT, on images of yours. Nothing leaves the machine.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_model_options(parser, several=True)
    parser.add_argument(
        "--size",
        type=int,
        default=1024,
        metavar="PX",
        help="longest side of images; larger ones are made smaller (default: 1024)",
    )
    parser.add_argument(
        "--port", type=int, metavar="N", help="default: the first free one from 7860 on"
    )
    parser.add_argument("--no-browser", action="store_true", help="do not open the browser")
    parser.set_defaults(run=run_command)


def run_command(args: argparse.Namespace, argv: list[str]) -> int:
    """Serve the page until Ctrl-C."""
    _check(args)
    from .actions import Actions
    from .models import Models
    from .page import build
    from .serve import served

    models = Models(args.model, **loading(args))
    with served(lambda: build(Actions(models, args.size)), args.port, not args.no_browser) as url:
        print(f"SRT demo at {url} (Ctrl-C ends it)", flush=True)
        try:
            threading.Event().wait()
        except KeyboardInterrupt:
            print("", file=sys.stderr)
    return 0


def _check(args: argparse.Namespace) -> None:
    missing = [name for name in ("gradio", "PIL", "matplotlib") if not _there(name)]
    if missing:
        raise MissingDependencyError(
            f"srt demo needs {', '.join(missing)}, which is not installed: "
            "pip install 'srt-plugins[demo]' (Python 3.10 or later)."
        )
    if args.size < 16:
        raise ConfigError(f"Expected --size to be at least 16, got {args.size}.")
    if args.port is not None and not 1 <= args.port <= 65535:
        raise ConfigError(f"Expected --port between 1 and 65535, got {args.port}.")
    kinds = [words[0] for words in args.model]
    timm = sum(kind.startswith("timm/") for kind in kinds)
    if args.checkpoint is not None and timm != 1:
        raise ConfigError(
            f"Expected one timm model with --checkpoint, which is its weights, got {timm} of them."
        )
    configs = len({kind for kind in kinds if kind in ("mmseg", "detectron2")})
    if args.options and (configs != 1 or len(kinds) != 1):
        raise ConfigError(
            f"Expected one model with a config with --options, got {len(kinds)} models."
        )
    if args.target is not None and kinds.count("detectron2") != 1:
        raise ConfigError("Expected one detectron2 model with --target, got another kind.")


def _there(name: str) -> bool:
    return importlib.util.find_spec(name) is not None
