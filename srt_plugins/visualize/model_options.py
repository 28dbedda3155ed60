"""The options by which ``srt show`` and ``srt demo`` name models to be looked at."""

from __future__ import annotations

import argparse
from typing import Any

from ..evaluation.keywords import DTYPES

WORDS = """\
  timm/NAME                      --checkpoint FILE for weights of your own
  mmseg CONFIG CHECKPOINT        a config may be a Python file, which runs when it is read
  detectron2 CONFIG CHECKPOINT
  FOLDER                         of transformers, as save_pretrained wrote it
"""


def add_model_options(parser: argparse.ArgumentParser, several: bool = False) -> None:
    """Options that name a model, or ``several``, and say how it is loaded."""
    group = parser.add_argument_group("model")
    more: dict[str, Any] = {"action": "append"} if several else {}
    text = "a model, see below; repeatable" if several else "the model, see below"
    group.add_argument("--model", nargs="+", required=True, metavar="WORD", help=text, **more)
    group.add_argument("--checkpoint", metavar="FILE", help="weights of a timm model")
    group.add_argument("--target", metavar="PART", help="part of the backbone (Detectron2)")
    group.add_argument(
        "--options", nargs="+", default=[], metavar="O", help="overrides in the config's own syntax"
    )
    group.add_argument("--device", help="cpu, cuda, ... (default: a GPU if there is one)")
    group.add_argument("--dtype", choices=DTYPES, help="of a transformers model")
    group.add_argument(
        "--trust-checkpoint",
        action="store_true",
        help="load a checkpoint that holds more than plain tensors; this can run code from it",
    )


def loading(args: argparse.Namespace) -> dict[str, Any]:
    """How a model is loaded, as :func:`.load.load_subject` takes it."""
    names = ("device", "checkpoint", "options", "target", "dtype")
    return {**{name: getattr(args, name) for name in names}, "trust": args.trust_checkpoint}
