"""What a comparison found: one record per row, gains with intervals, and the conclusion."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .calibration_rows import Calibrated, Calibration
from .conclusion import conclusion
from .figure import Interval, MainFigure
from .files import replacing
from .metrics import Metric
from .record import plain_values, readings_record, row_record
from .rows import Row


@dataclass
class Measured:
    """What one run over the data gave.

    Attributes:
        row: which.
        metrics: what it is judged by, the main one first.
        reported: metrics as the framework reports them.
        seconds: of the model, per image, one entry per batch.
        flops: floating-point operations for one image, at its mean number of views.
        peak_memory: bytes, None where unknown.
        other_seconds: of other stages, such as loading data, as ``seconds``.
        mean_views: views per image that were run; None = all of the row's.
        calibration: of this run; None where it was not asked for.
    """

    row: Row
    metrics: Sequence[Metric]
    reported: dict[str, float]
    seconds: list[float]
    flops: int
    peak_memory: int | None = None
    other_seconds: dict[str, list[float]] = field(default_factory=dict)
    mean_views: float | None = None
    calibration: Calibration | None = None


@dataclass
class Score:
    """A row's main figure by one metric; gains are differences of it, intervals at 95 %.

    Gains are positive where the row is better. The relative gain, in percent of the plain model's
    value, is told of metrics whose lower values are better.
    """

    value: float = math.nan
    gain: float = 0.0
    gain_interval: Interval = None
    relative_gain: float | None = None
    gain_over_control: float = 0.0
    gain_over_control_interval: Interval = None


@dataclass
class Result:
    """A row's figures, also as attributes (``result.mIoU``; ``result.AP`` is the first of
    ``"bbox/AP"``, ``"segm/AP"``); seconds are medians.

    ``value``, ``gain``, ``gain_interval``, ``gain_over_control`` and
    ``gain_over_control_interval`` are those of the main metric; ``scores`` has every metric's.
    ``calibration`` is None where it was not asked for.
    """

    row: Row
    figures: dict[str, float]
    per_class: dict[str, dict[str, float]]
    reported: dict[str, float]
    seconds_per_image: float
    seconds_ratio: float
    other_seconds: dict[str, float]
    mean_views: float
    flops: int
    flops_ratio: float
    peak_memory: int | None
    scores: dict[str, Score]
    calibration: Calibrated | None = None

    @property
    def name(self) -> str:
        """The row's name."""
        return self.row.name

    def __getattr__(self, name: str) -> Any:
        own = self.__dict__
        for figure, value in own.get("figures", {}).items():
            if figure.rpartition("/")[2] == name:
                return value
        if own.get("scores") and name in Score.__dataclass_fields__:
            return getattr(next(iter(own["scores"].values())), name)
        raise AttributeError(f"no figure {name!r}; there are {sorted(own.get('figures', ()))}")


@dataclass
class Comparison:
    """All rows of a comparison.

    Attributes:
        results: one per row, the plain row first.
        images: how many images.
        classes: class names.
        controls: for each metric the name of the best row that costs one forward, by its value on
            all images.
        metrics: the metrics' main figures by name, the main metric's first.
        notes: what the reader must know beside the figures.
        context: config, checkpoint, settings, versions, hardware.
        calibration_controls: as ``controls``, for each figure of calibration.
    """

    results: list[Result]
    images: int
    classes: list[str]
    controls: dict[str, str]
    metrics: dict[str, MainFigure]
    notes: list[str] = field(default_factory=list)
    context: dict[str, Any] = field(default_factory=dict)
    calibration_controls: dict[str, str] = field(default_factory=dict)

    def __getitem__(self, name: str) -> Result:
        """The result of the row of that name."""
        for result in self.results:
            if result.name == name:
                return result
        raise KeyError(f"no row {name!r}; there are {[r.name for r in self.results]}")

    def of_kind(self, kind: str) -> list[Result]:
        """Results of one kind of row."""
        return [r for r in self.results if r.row.kind == kind]

    @property
    def metric(self) -> str:
        """The main metric."""
        return next(iter(self.metrics))

    @property
    def main(self) -> MainFigure:
        """The main figure of the main metric."""
        return self.metrics[self.metric]

    @property
    def control(self) -> str:
        """Name of the best row that costs one forward, by the main metric."""
        return self.controls[self.metric]

    @property
    def best_srt(self) -> Result:
        """The SRT row with the best main figure."""
        return self.best("srt", self.metric) or self.of_kind("srt")[0]

    def best(self, kind: str, metric: str) -> Result | None:
        """The row of a kind with the best value of a metric; None where all are NaN."""
        known = [r for r in self.of_kind(kind) if not math.isnan(r.scores[metric].value)]
        rank = self.metrics[metric].rank
        return max(known, key=lambda r: rank(r.scores[metric].value), default=None)

    def conclusion(self) -> str:
        """What SRT adds beyond the best control, and what is ahead of it, in a few sentences."""
        return conclusion(self)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON; NaN as None."""
        several = {"best_1x_controls": self.controls} if len(self.metrics) > 1 else {}
        if self.calibration_controls:
            several["calibration_controls"] = self.calibration_controls
        return plain_values(
            {
                **self.context,
                "images": self.images,
                "metric": self.metric,
                **readings_record(self.metrics),
                "best_1x_control": self.control,
                **several,
                "conclusion": self.conclusion(),
                "notes": self.notes,
                "rows": [row_record(r) for r in self.results],
            }
        )

    def save(self, path: str | Path) -> Path:
        """Write :meth:`to_dict` as JSON."""
        with replacing(path) as part:
            part.write_text(json.dumps(self.to_dict(), indent=2, ensure_ascii=False) + "\n")
        return Path(path)
