"""The command line: ``srt`` or ``python -m srt_plugins``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from . import __version__
from .bench.command import add_parser as add_bench
from .errors import SRTError
from .evaluation.detectron2_command import add_parser as add_compare_detectron2
from .evaluation.mmseg_command import add_parser as add_compare_mmseg
from .evaluation.transformers_command import add_parser as add_compare_transformers
from .evaluation.tune_command import add_parser as add_tune

# Exit codes: a mistake of the caller's (also argparse's own code), anything else, Ctrl-C.
USER_ERROR, FAILURE, INTERRUPTED = 2, 1, 130


def build_parser() -> argparse.ArgumentParser:
    """The parser with all subcommands; each sets ``run(args, argv)``."""
    parser = argparse.ArgumentParser(
        prog="srt",
        description="Stochastic Resonance Transformer ensembling at test time.",
        epilog="example: srt compare mmseg config.py weights.pth; more: srt compare mmseg --help",
    )
    parser.add_argument("--version", action="version", version=f"srt-plugins {__version__}")
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    compare = commands.add_parser(
        "compare", help="a model with and without SRT on its own test data"
    )
    frameworks = compare.add_subparsers(dest="framework", metavar="FRAMEWORK", required=True)
    add_compare_mmseg(frameworks)
    add_compare_detectron2(frameworks)
    add_compare_transformers(frameworks)
    add_tune(commands)
    add_bench(commands)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; errors are one line on stderr with the next step.

    Returns:
        0, 2 for a mistake in arguments, config or checkpoint, 1 for any other failure.
    """
    given = list(sys.argv[1:] if argv is None else argv)
    # --debug may stand anywhere; subparsers would only know their own options.
    debug = "--debug" in given
    given = [word for word in given if word != "--debug"]
    args = build_parser().parse_args(given)
    try:
        code: int = args.run(args, given)
        return code
    except SRTError as error:
        if debug:
            raise
        return _failed(str(error), USER_ERROR)
    except KeyboardInterrupt:
        return _failed("interrupted", INTERRUPTED)
    except Exception as error:
        if debug:
            raise
        return _failed(f"{type(error).__name__}: {error} (--debug shows where)", FAILURE)


def _failed(message: str, code: int) -> int:
    print(f"srt: error: {' '.join(message.split())}", file=sys.stderr)
    return code
