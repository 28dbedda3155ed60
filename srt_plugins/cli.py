"""The command line: ``srt`` or ``python -m srt_plugins``.

``srt --help`` and ``srt --version`` import nothing heavy: of the commands only the one that is
named is imported.
"""

from __future__ import annotations

import argparse
import os
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from importlib import import_module

from . import __version__
from .errors import SRTError
from .parser import Parser, UsageError

# Exit codes: a mistake of the caller's, anything else, Ctrl-C.
USER_ERROR, FAILURE, INTERRUPTED = 2, 1, 130

# Name: what the overview says of it, and where its `add_parser(commands)` is, which adds a parser
# of this name that sets `run(args, argv)`. Its module should import torch and frameworks when it
# runs, not before, so that its help comes at once.
COMMANDS: dict[str, tuple[str, str]] = {
    "compare": (
        "a model with and without SRT on its own test data",
        "srt_plugins.evaluation.compare_command:add_parser",
    ),
    "show": (
        "pictures of features, uncertainty and predictions",
        "srt_plugins.visualize.show_command:add_parser",
    ),
    "demo": (
        "a local web page to try SRT on images of yours",
        "srt_plugins.demo.command:add_parser",
    ),
    "tune": (
        "the best settings within a budget of forwards, by a few images",
        "srt_plugins.evaluation.tune_command:add_parser",
    ),
    "bench": (
        "time and memory of SRT against plain forwards and a naive loop",
        "srt_plugins.bench.command:add_parser",
    ),
}

_EPILOG = """\
examples:
  srt compare mmseg config.py weights.pth
  srt show street.jpg --model timm/vit_small_patch14_dinov2.lvd142m
  srt tune mmseg config.py weights.pth
  srt bench --quick

srt COMMAND --help tells more. Exit codes: 0 done, 2 a mistake in arguments, config or checkpoint,
1 any other failure, 130 interrupted.
"""


def build_parser(words: Sequence[str] = ()) -> argparse.ArgumentParser:
    """The parser of a command line.

    Args:
        words: the command line; of the commands, the one that is its first word is complete.
    """
    parser = Parser(
        prog="srt",
        description="Stochastic Resonance Transformer ensembling at test time, for vision "
        "transformers that you already have.",
        epilog=_EPILOG,
    )
    parser.add_argument("--version", action="version", version=f"srt-plugins {__version__}")
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    named = next((word for word in words if not word.startswith("-")), None)
    for name, (text, place) in COMMANDS.items():
        if name == named:
            module, _, function = place.partition(":")
            getattr(import_module(module), function)(commands)
        else:
            commands.add_parser(name, help=text)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; errors are one line on stderr with the next step.

    Returns:
        0, 2 for a mistake in arguments, config or checkpoint, 1 for any other failure, 130 where
        it was interrupted.
    """
    given = list(sys.argv[1:] if argv is None else argv)
    # --debug may stand anywhere; subparsers would only know their own options.
    debug = "--debug" in given
    given = [word for word in given if word != "--debug"]
    try:
        with _warnings_in_a_line():
            code = _run(given)
            sys.stdout.flush()
        return code
    except BrokenPipeError:
        # Who reads has seen enough (`| head`). Python flushes once more when it exits.
        with suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILURE
    except SRTError as error:
        if debug and not isinstance(error, UsageError):
            raise
        return _failed(str(error), USER_ERROR)
    except KeyboardInterrupt:
        return _failed("interrupted", INTERRUPTED)
    except Exception as error:
        if debug:
            raise
        return _failed(f"{type(error).__name__}: {error} (--debug shows where)", FAILURE)


def _run(given: list[str]) -> int:
    for stream in (sys.stdout, sys.stderr):
        with suppress(AttributeError, ValueError):  # not of a terminal or file, as in tests
            stream.reconfigure(errors="replace")  # type: ignore[union-attr]
    parser = build_parser(given)
    if not given:
        parser.print_help(sys.stderr)
        return USER_ERROR
    try:
        args = parser.parse_args(given)
    except SystemExit as done:  # --help, --version
        return int(done.code or 0)
    code: int = args.run(args, given)
    return code


@contextmanager
def _warnings_in_a_line() -> Iterator[None]:
    """Show warnings as errors are, without the line of the source."""
    before = warnings.formatwarning
    warnings.formatwarning = lambda text, *_, **__: f"srt: warning: {_one_line(text)}\n"
    try:
        yield
    finally:
        warnings.formatwarning = before


def _failed(message: str, code: int) -> int:
    print(f"srt: error: {_one_line(message)}", file=sys.stderr)
    return code


def _one_line(text: object) -> str:
    return " ".join(str(text).split())
