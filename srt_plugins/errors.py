"""Errors raised by srt_plugins. Each message names the argument, what was expected, what was
given, and the next step.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class SRTError(Exception):
    """Base class of every error that this package raises on purpose."""


class ConfigError(SRTError, ValueError):
    """An argument or a combination of arguments that cannot work."""


class AdapterError(SRTError, RuntimeError):
    """The backbone, or what it returned, is not understood."""


class CaptureError(SRTError, RuntimeError):
    """An intermediate layer could not be read or replaced."""


class CheckpointError(SRTError, RuntimeError):
    """A checkpoint that leaves a wrapped backbone with random weights."""


class MediaError(SRTError, ValueError):
    """An image or a video that cannot be read."""


class MissingDependencyError(SRTError, ImportError):
    """An optional package that this call needs is not installed."""


def nearest(name: str, choices: Iterable[str], limit: int = 5) -> str:
    """The choices closest to ``name`` as a readable list, for error messages."""
    known = list(choices)
    close = difflib.get_close_matches(name, known, n=limit, cutoff=0.4) or known[:limit]
    more = f" … ({len(known)} in all)" if len(known) > len(close) else ""
    return ", ".join(repr(c) for c in close) + more
