"""What the figures are judged by."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

from .results import Measurement
from .rows import GUIDED, NAIVE, PIXEL_MEAN, TOKEN_MEAN


@dataclass(frozen=True)
class Bar:
    """A figure with the least that it must reach and what is aimed at.

    Attributes:
        where: model, size, dtype and device.
        what: the figure in words.
        value: as measured; None where it was not.
        limit: must be reached.
        aim: what is hoped for.
        at_most: True where lower is better.
        unit: ``"ratio"`` or ``"percent"`` (``value`` is then a share of one).
    """

    where: str
    what: str
    value: float | None
    limit: float
    aim: float
    at_most: bool = True
    unit: str = "ratio"

    @property
    def verdict(self) -> str:
        """``"aim"``, ``"pass"``, ``"fail"`` or ``"not measured"``."""
        if self.value is None:
            return "not measured"
        sign = 1 if self.at_most else -1
        if sign * self.value <= sign * self.aim:
            return "aim"
        return "pass" if sign * self.value <= sign * self.limit else "fail"

    def to_dict(self) -> dict[str, Any]:
        """Plain values, with the verdict."""
        return {**asdict(self), "verdict": self.verdict}


def bars(measurements: Iterable[Measurement]) -> list[Bar]:
    """The bars of every measurement."""
    return [bar for m in measurements for bar in _bars(m)]


def _bars(m: Measurement) -> Iterator[Bar]:
    counts = m.counts()
    gpu = m.device != "cpu"
    for n in counts:
        row = m.row(TOKEN_MEAN, n)
        value = row.ratio.median if row and row.ratio else None
        aim = 1.01 if gpu else 1.02
        yield Bar(m.title, f"token mean, {n} views / {n} plain views: time", value, 1.05, aim)
    for n in counts:
        what = f"pixel mean, {n} views, aggregation alone: naive time / ours"
        yield Bar(m.title, what, _speedup(m, n), 3, 25, at_most=False)
    if counts and not gpu:
        found = m.aggregation(PIXEL_MEAN, counts[-1])
        what = f"pixel mean, {counts[-1]} views: aggregation / backbone time"
        yield Bar(m.title, what, m.share(found) if found else None, 0.2, 0.05)
    for n in counts:
        row = m.row(TOKEN_MEAN, n)
        if row and row.extra is not None:
            what = f"token mean, {n} views: peak memory beyond one forward of {row.chunk}"
            yield Bar(m.title, what, m.extra_share(row), 0.10, 0.03, unit="percent")
    guided = m.row(GUIDED, 1)
    cost = guided.ratio.median - 1 if guided and guided.ratio else None
    yield Bar(
        m.title, "guided smoothing: time over one plain forward", cost, 0.10, 0.02, unit="percent"
    )


def _speedup(m: Measurement, views: int) -> float | None:
    naive, ours = m.aggregation(NAIVE, views), m.aggregation(PIXEL_MEAN, views)
    if naive is None or ours is None or naive.seconds is None or ours.seconds is None:
        return None
    return naive.seconds.median / ours.seconds.median
