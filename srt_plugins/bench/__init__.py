"""What the ensemble costs beyond its forwards: time and memory against plain and naive code."""

from __future__ import annotations

from .measure import measure
from .plan import Plan
from .results import Benchmark, Measurement

__all__ = ["Benchmark", "Measurement", "Plan", "measure"]
