"""Builds the model of ``cfg``: its backbone must be wrapped, and a predictor of it must run."""

from __future__ import annotations

from detectron2.engine import DefaultPredictor

from srt_plugins.wrapper import wrapped
from tests.detectron2.tiny import pictures


def setup(names: dict) -> None:
    """Build and run it."""
    predictor = DefaultPredictor(names["cfg"])
    assert wrapped(predictor.model), "the config wraps nothing"
    assert "instances" in predictor(pictures(1)[0]["image"].permute(1, 2, 0).numpy())
