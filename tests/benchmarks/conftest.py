"""The tiny model and data of tests/evaluation."""

from __future__ import annotations

from tests.evaluation.conftest import tiny

__all__ = ["tiny"]
