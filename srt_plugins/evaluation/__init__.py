"""Measuring what SRT adds: the same model and data with SRT, without, and with its rivals."""

from __future__ import annotations

from .detectron2_compare import compare_detectron2
from .mmseg_compare import compare_mmseg
from .results import Comparison, Result
from .rows import DEFAULT_ROWS
from .transformers_compare import compare_transformers

__all__ = [
    "DEFAULT_ROWS",
    "Comparison",
    "Result",
    "compare_detectron2",
    "compare_mmseg",
    "compare_transformers",
]
