"""What the ensemble costs beyond its forwards: time and memory against plain and naive code."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

# Imported when they are asked for: the command line reads its arguments without torch.
if TYPE_CHECKING:
    from .measuring import measure
    from .plan import Plan
    from .results import Benchmark, Measurement

__all__ = ["Benchmark", "Measurement", "Plan", "measure"]
_PLACES = {"Benchmark": "results", "Measurement": "results", "Plan": "plan", "measure": "measuring"}


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = globals()[name] = getattr(import_module(f".{_PLACES[name]}", __name__), name)
    return found
