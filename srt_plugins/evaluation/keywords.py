"""SRT keywords from the command line."""

from __future__ import annotations

import argparse
import ast
import re
from typing import Any

from ..errors import ConfigError

# As .rows, core.translate, .transformers_load and .depth have them (a test holds them to that):
# the parser of a command imports none of those.
SKIPPABLE = ("controls", "oe", "flip", "larger")
PADDINGS = ("replicate", "reflect", "zeros")
DTYPES = ("float32", "bfloat16", "float16")
ALIGNMENTS = ("none", "median", "scale_shift")

# A comma ends an item only where another `name=` follows, so that lists may hold commas.
_ITEMS = re.compile(r",\s*(?=[A-Za-z_]\w*\s*=)")

# name, what its value looks like, help
_OPTIONS = (
    (
        "level",
        "L",
        "largest translation in pixels; alone, the paper's (2L+1)^2 views, 3 in its tables",
    ),
    ("views", "V", "phases, phases:M, grid, a number of views, or a list such as '[(0,0),(8,8)]'"),
    ("flip", "BOOL", "True: every second view mirrored left to right"),
    ("statistic", "S", "mean or median over views"),
    ("layer", "I", "ensemble after this block (index or module path) and run the rest once"),
    ("outputs", "O", "which backbone outputs are ensembled, such as '[-1]'"),
    ("stride", "PX", "pixels per output cell, a divisor of the patch"),
    (
        "smooth",
        "K",
        "smoothing of the token grid: odd length (3 = [1 2 1]/4), taps '[1,2,1]', or along the "
        "image: guided, guided:SPACE:COLOUR",
    ),
    ("padding", "P", "how pixels outside the image are made: replicate, reflect or zeros"),
    ("view-batch", "N", "views per forward, or auto"),
    (
        "tolerance",
        "E",
        "no more views of an image below this relative standard error (0.4)",
    ),
    ("max-views", "N", "at most the first N of the views"),
)


def literal(text: str) -> Any:
    """A Python literal, or else the text itself; nothing is evaluated."""
    try:
        return ast.literal_eval(text.strip())
    except (ValueError, SyntaxError):
        return text.strip()


def parse_row(text: str) -> dict[str, Any]:
    """``"views=phases:3,smooth=3"`` as checked keywords.

    Raises:
        ConfigError: not of that form, an unknown keyword or a bad value.
    """
    found: dict[str, Any] = {}
    for item in _ITEMS.split(text.strip()):
        name, equals, value = item.partition("=")
        if not equals or not name.strip() or not value.strip():
            raise ConfigError(
                f"Expected --row to be name=value pairs such as 'views=phases:3,smooth=3', got "
                f"{text!r}."
            )
        found[name.strip().replace("-", "_")] = literal(value)
    _check(found)
    return found


def parse_overrides(pairs: list[str]) -> dict[str, Any]:
    """``["model.type=Some", "a.b=true"]`` as values by dotted key.

    Raises:
        ConfigError: not of that form.
    """
    found = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals or not key:
            raise ConfigError(f"Expected --cfg-options to be KEY=VALUE, got {pair!r}.")
        found[key] = {"true": True, "false": False, "none": None}.get(value.lower(), literal(value))
    return found


def add_srt_options(
    parser: argparse.ArgumentParser,
    about: str = "settings of the SRT row; without any: 4 views, and 4 views with smoothing "
    "[1 2 1]/4",
    rows: bool = True,
) -> None:
    """The SRT keywords as options.

    Args:
        parser: gets them.
        about: what they are settings of.
        rows: also ``--row``, for more of them.
    """
    group = parser.add_argument_group("SRT", about)
    for name, value, text in _OPTIONS:
        group.add_argument(f"--{name}", metavar=value, help=text)
    if not rows:
        return
    group.add_argument(
        "--row",
        action="append",
        default=[],
        metavar="'K=V,K=V'",
        help="one more SRT row with these keywords, such as 'views=phases:3,smooth=3'; repeatable",
    )


def given_keywords(args: argparse.Namespace) -> dict[str, Any]:
    """The SRT keywords that were given as options, checked."""
    names = [name.replace("-", "_") for name, _, _ in _OPTIONS]
    given = {n: literal(getattr(args, n)) for n in names if getattr(args, n) is not None}
    _check(given)
    return given


def _check(keywords: dict[str, Any]) -> None:
    from ..settings import Settings  # torch, which help does not need

    Settings.of(**keywords)
