"""Measuring what SRT adds: the same model and data with SRT, without, and with its rivals; and
choosing its settings.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

# Imported when they are asked for: the command line reads its arguments without torch.
if TYPE_CHECKING:
    from .detectron2_compare import compare_detectron2
    from .detectron2_tune import tune_detectron2
    from .mmseg_compare import compare_mmseg
    from .mmseg_tune import tune_mmseg
    from .results import Comparison, Result
    from .rows import DEFAULT_ROWS
    from .transformers_compare import compare_transformers
    from .transformers_tune import tune_transformers
    from .tune import Plan, Tuning

__all__ = [
    "DEFAULT_ROWS",
    "Comparison",
    "Plan",
    "Result",
    "Tuning",
    "compare_detectron2",
    "compare_mmseg",
    "compare_transformers",
    "tune_detectron2",
    "tune_mmseg",
    "tune_transformers",
]
_PLACES = {
    "DEFAULT_ROWS": "rows",
    "Comparison": "results",
    "Plan": "tune",
    "Result": "results",
    "Tuning": "tune",
    "compare_detectron2": "detectron2_compare",
    "compare_mmseg": "mmseg_compare",
    "compare_transformers": "transformers_compare",
    "tune_detectron2": "detectron2_tune",
    "tune_mmseg": "mmseg_tune",
    "tune_transformers": "transformers_tune",
}


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = globals()[name] = getattr(import_module(f".{_PLACES[name]}", __name__), name)
    return found
