"""Calibration of the rows of a comparison: figures over all images, gains with intervals."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from .bootstrap import MIN_IMAGES, RESAMPLES, draw, interval
from .calibration import BOTH, DISPERSION, FREE, SOURCES, ImageCalibration, calibration_error
from .figure import Interval, MainFigure

ECE = "ECE"
FIGURES = {
    ECE: MainFigure(ECE, ECE, lower_is_better=True),
    **{
        f"AUSE_{source}": MainFigure(f"AUSE_{source}", "AUSE", "", 3, lower_is_better=True)
        for source in SOURCES
    },
    **{
        f"correlation_{source}": MainFigure(f"correlation_{source}", "correlation", "", 3)
        for source in SOURCES
    },
}
# What dispersion adds to what is free in the same row.
ADDED = {
    f"{figure}_{source}_over_{free}": (f"{figure}_{source}", f"{figure}_{free}")
    for figure in ("AUSE", "correlation")
    for source in (DISPERSION, BOTH)
    for free in FREE
}


class Calibration:
    """The calibration of one run over the data.

    ECE is that of all pixels together; AUSE and the rank correlation are means over the images in
    which they are defined (some pixel is wrong).

    Args:
        images: in their order.
    """

    def __init__(self, images: Sequence[ImageCalibration]) -> None:
        self.images = len(images)
        tables = [one.table for one in images]
        known = [table for table in tables if table is not None]
        self._tables = np.stack(known) if known and len(known) == len(tables) else None
        names = dict.fromkeys(name for one in images for name in one.figures)
        self._values = {
            name: np.array([one.figures.get(name, math.nan) for one in images]) for name in names
        }

    def figures(self) -> dict[str, float]:
        """All figures that there are, by name of :data:`FIGURES`."""
        once = np.ones((1, self.images), dtype=int)
        drawn = {name: self.resampled(name, once) for name in FIGURES}
        return {name: float(v[0]) for name, v in drawn.items() if v is not None}

    @property
    def overconfidence(self) -> float | None:
        """Mean largest probability less the accuracy, in percent; None without probabilities."""
        if self._tables is None:
            return None
        pixels, sure, right = self._tables.sum((0, 2))
        return float(100 * (sure - right) / pixels) if pixels else math.nan

    def resampled(self, name: str, counts: np.ndarray) -> np.ndarray | None:
        """A figure of every resample, ``(resamples,)``; None for one that there is not.

        Args:
            name: of :data:`FIGURES`.
            counts: how often each resample has each image, ``(resamples, images)``.
        """
        if name == ECE:
            if self._tables is None:
                return None
            flat = self._tables.reshape(self.images, -1)
            return calibration_error((counts @ flat).reshape(-1, *self._tables.shape[1:]))
        values = self._values.get(name)
        if values is None:
            return None
        there = ~np.isnan(values)
        drawn = counts[:, there]
        number = drawn.sum(1)
        mean = np.full(len(counts), np.nan)
        return np.divide(drawn @ values[there], number, out=mean, where=number > 0)


@dataclass
class Gained:
    """A figure of a row and what is gained, positive where it is better; intervals at 95 %."""

    value: float
    gain: float = math.nan
    gain_interval: Interval = None
    gain_over_control: float = math.nan
    gain_over_control_interval: Interval = None


@dataclass
class Calibrated:
    """A row's calibration.

    Attributes:
        figures: by name of :data:`FIGURES`.
        overconfidence: mean largest probability less the accuracy, in percent; None without.
        added: gains of dispersion over what is free in the same row, by name of :data:`ADDED`,
            with their intervals.
    """

    figures: dict[str, Gained] = field(default_factory=dict)
    overconfidence: float | None = None
    added: dict[str, tuple[float, Interval]] = field(default_factory=dict)

    def record(self) -> dict[str, Any]:
        """As it stands in JSON."""
        shown: dict[str, Any] = {name: vars(one) for name, one in self.figures.items()}
        if self.overconfidence is not None:
            shown["overconfidence"] = self.overconfidence
        for name, (gain, bounds) in self.added.items():
            shown[name] = {"gain": gain, "gain_interval": bounds}
        return shown


def calibrated(
    rows: Sequence[Calibration | None],
    free: Sequence[int],
    *,
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> tuple[list[Calibrated | None], dict[str, int]]:
    """The figures of all rows with gains over the first, and over the best free row by each figure.

    Args:
        rows: of the same images; None for a row without.
        free: indices of the rows that cost one forward.
        seed: of the bootstrap.
        resamples: how many.

    Returns:
        One per row, and which row is the best free one by each figure that free rows have.
    """
    found: list[Calibrated | None] = [None if row is None else Calibrated() for row in rows]
    figures = [{} if row is None else row.figures() for row in rows]
    images = max((row.images for row in rows if row is not None), default=0)
    counts = draw(images, resamples, seed) if images >= MIN_IMAGES else None
    controls: dict[str, int] = {}
    for name, main in FIGURES.items():
        drawn = [
            None if row is None or counts is None else row.resampled(name, counts) for row in rows
        ]
        rivals = [i for i in free if not math.isnan(figures[i].get(name, math.nan))]
        best = max(rivals, key=lambda i: main.rank(figures[i][name]), default=None)
        if best is not None:
            controls[name] = best
        for i, one in enumerate(found):
            if one is None or name not in figures[i]:
                continue
            value = figures[i][name]
            gain, bounds = _over(main, figures, drawn, name, i, 0)
            own = Gained(value, gain, bounds)
            if best is not None:
                over = _over(main, figures, drawn, name, i, best)
                own.gain_over_control, own.gain_over_control_interval = over
            one.figures[name] = own
    for i, row in enumerate(rows):
        one = found[i]
        if row is not None and one is not None:
            one.overconfidence = row.overconfidence
            one.added = _added(row, figures[i], counts)
    return found, controls


def _over(
    main: MainFigure,
    figures: Sequence[Mapping[str, float]],
    drawn: Sequence[np.ndarray | None],
    name: str,
    row: int,
    baseline: int,
) -> tuple[float, Interval]:
    gain = main.gain(figures[row][name], figures[baseline].get(name, math.nan))
    own, other = drawn[row], drawn[baseline]
    bounds = None if own is None or other is None else interval(main.gain(own, other))
    return float(gain), bounds


def _added(
    row: Calibration, figures: Mapping[str, float], counts: np.ndarray | None
) -> dict[str, tuple[float, Interval]]:
    made: dict[str, tuple[float, Interval]] = {}
    for name, (with_it, without) in ADDED.items():
        if with_it not in figures or without not in figures:
            continue
        main, bounds = FIGURES[with_it], None
        if counts is not None:
            drawn = [row.resampled(one, counts) for one in (with_it, without)]
            bounds = interval(main.gain(*drawn))
        made[name] = (float(main.gain(figures[with_it], figures[without])), bounds)
    return made
