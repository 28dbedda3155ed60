"""Builds the model of ``cfg``, a LazyConfig: its backbone must be wrapped."""

from __future__ import annotations

from srt_plugins.wrapper import wrapped
from tests.detectron2.tiny import built


def setup(names: dict) -> None:
    """Build it."""
    assert wrapped(built(names["cfg"].model)), "the config wraps nothing"
