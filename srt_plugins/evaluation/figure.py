"""The figure that a metric's gains are in, and how it reads."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Optional

Interval = Optional[tuple[float, float]]


@dataclass(frozen=True)
class MainFigure:
    """The figure that a metric's gains are in. Gains are positive where a row is better, always.

    Attributes:
        name: key of the metric's figures.
        label: the name for people.
        unit: for titles, such as ``"percent"`` or ``"m"``; ``""`` for none.
        digits: after the point.
        lower_is_better: it is an error, and a gain is a reduction of it.
        beside: names of further figures that the metric's own table lists.
        note: what a reader must know of the metric's figures; empty for nothing.
    """

    name: str
    label: str
    unit: str = "percent"
    digits: int = 2
    lower_is_better: bool = False
    beside: tuple[str, ...] = ()
    note: str = ""

    @property
    def titled(self) -> str:
        """Label and unit, such as ``"mIoU in percent"``."""
        return f"{self.label} in {self.unit}" if self.unit else self.label

    def gain(self, value: Any, baseline: Any) -> Any:
        """By how much a value, or an array of them, is better than a baseline."""
        return baseline - value if self.lower_is_better else value - baseline

    def rank(self, value: float) -> tuple[bool, float]:
        """Key by which the best value is the highest and NaN the lowest."""
        return not math.isnan(value), self.gain(value, 0.0)

    def shown(self, value: float) -> str:
        """A value as text, ``-`` for NaN."""
        return "-" if math.isnan(value) else f"{value:.{self.digits}f}"

    def shown_gain(self, gain: float) -> str:
        """A gain as text, ``-`` for NaN."""
        return "-" if math.isnan(gain) else f"{gain:+.{self.digits}f}"

    def shown_interval(self, bounds: Interval) -> str:
        """An interval as ``[+0.20, +0.81]``; empty for none."""
        if bounds is None:
            return ""
        return f"[{', '.join(f'{bound:+.{self.digits}f}' for bound in bounds)}]"
