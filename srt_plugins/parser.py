"""A command-line parser whose mistakes are errors of ours: one line, with the nearest name."""

from __future__ import annotations

import argparse
import difflib
from collections.abc import Sequence
from typing import Any, NoReturn

from .errors import ConfigError


class UsageError(ConfigError):
    """A command line that cannot be read."""


class _Help(argparse.RawDescriptionHelpFormatter):
    """Shows lines as they are written, and breaks a text that is one line."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        if "\n" in text:
            return super()._fill_text(text, width, indent)
        return argparse.HelpFormatter._fill_text(self, text, width, indent)


class Parser(argparse.ArgumentParser):
    """Raises :class:`UsageError` where argparse prints its usage and exits.

    Parsers of subcommands are of this class too, and show their help as it is written.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        kwargs.setdefault("formatter_class", _Help)
        super().__init__(*args, **kwargs)

    def error(self, message: str) -> NoReturn:
        """Raise what argparse found wrong."""
        stop = "" if message.endswith("?") else "."
        raise UsageError(f"{message}{stop} {self.prog} --help shows what there is.")

    def parse_known_args(  # type: ignore[override]
        self, args: Sequence[str] | None = None, namespace: argparse.Namespace | None = None
    ) -> tuple[argparse.Namespace, list[str]]:
        """As argparse's; of options that it does not know it says which are nearest.

        That is said here, where the parser of the subcommand still knows its own.
        """
        found, unknown = super().parse_known_args(args, namespace)
        if unknown:
            options = [word for word in unknown if word.startswith("--")]
            if not options:
                self.error(f"unexpected arguments: {' '.join(unknown)}")
            name = options[0].partition("=")[0]
            self.error(f"unknown option {name}{_meant(name, self._option_string_actions)}")
        return found, unknown

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        # Private, but the only place that knows value and choices alike; argparse's own message
        # comes where it is not called.
        if action.choices is None or value in action.choices:
            return
        what = action.metavar if isinstance(action.metavar, str) else action.dest
        name = "/".join(action.option_strings) or what
        known = [str(one) for one in action.choices]
        self.error(
            f"expected {name} to be one of {', '.join(known)}, got {value!r}"
            f"{_meant(str(value), known)}"
        )


def _meant(name: str, known: Any) -> str:
    close = difflib.get_close_matches(name, known, n=2, cutoff=0.5)
    return f"; did you mean {' or '.join(map(repr, close))}?" if close else ""
