"""What a comparison found: one record per row, gains with intervals, and the conclusion."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Optional

import numpy as np

from .bootstrap import RESAMPLES, draw, interval, resampled_miou
from .files import replacing
from .rows import Row, keywords
from .scores import class_iou, scores

Interval = Optional[tuple[float, float]]
# Below this many images an interval says nothing.
MIN_IMAGES = 2


@dataclass
class Measured:
    """What one run over the data gave.

    Attributes:
        row: which.
        areas: pixel counts per image, ``(N, 4, C)``.
        reported: metrics as MMSegmentation reports them (rounded).
        seconds: per image, one entry per batch.
        flops: floating-point operations for one image.
        peak_memory: bytes, None where unknown.
    """

    row: Row
    areas: np.ndarray
    reported: dict[str, float]
    seconds: list[float]
    flops: int
    peak_memory: int | None = None


@dataclass
class Result:
    """A row's figures; gains are in points of mIoU, intervals at 95 %, seconds medians."""

    row: Row
    mIoU: float
    mAcc: float
    aAcc: float
    iou: list[float]
    reported: dict[str, float]
    seconds_per_image: float
    seconds_ratio: float
    flops: int
    flops_ratio: float
    peak_memory: int | None
    gain: float = 0.0
    gain_interval: Interval = None
    gain_over_control: float = 0.0
    gain_over_control_interval: Interval = None

    @property
    def name(self) -> str:
        """The row's name."""
        return self.row.name


@dataclass
class Comparison:
    """All rows of a comparison.

    Attributes:
        results: one per row, the plain row first.
        images: how many images.
        classes: class names.
        control: name of the best row that costs one forward, by mIoU on all images.
        notes: what the reader must know beside the figures.
        context: config, checkpoint, settings, versions, hardware.
    """

    results: list[Result]
    images: int
    classes: list[str]
    control: str
    notes: list[str] = field(default_factory=list)
    context: dict[str, Any] = field(default_factory=dict)

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
    def best_srt(self) -> Result:
        """The SRT row with the highest mIoU."""
        return max(self.of_kind("srt"), key=lambda r: r.mIoU)

    def conclusion(self) -> str:
        """What SRT adds beyond the best control, and what is ahead of it, in a few sentences."""
        rivals = [r for r in self.of_kind("other") if r.mIoU > self.best_srt.mIoU]
        if not rivals:
            return self._beyond_control()
        ahead = ", ".join(f"{r.name} ({r.gain:+.2f} over plain)" for r in rivals)
        return f"{self._beyond_control()} Ahead of SRT here: {ahead}."

    def _beyond_control(self) -> str:
        control, srt = self[self.control], self.best_srt
        if control.row.kind == "plain":
            start = "No 1x control beats the plain model."
        else:
            name = control.name.removeprefix("1x ")
            start = f"Best 1x control: {name}: {control.gain:+.2f}."
        bounds = srt.gain_over_control_interval
        gain = f"{srt.gain_over_control:+.2f}"
        if bounds is None:
            return f"{start} {srt.name}: {gain} beyond it; too few images for an interval."
        gain += f" {shown_interval(bounds)}"
        if bounds[0] <= 0 <= bounds[1]:
            return (
                f"{start} {srt.name}: {gain} beyond it, which cannot be distinguished from 0 on "
                f"these {self.images} images."
            )
        verb = "adds" if srt.gain_over_control > 0 else "is worse:"
        return f"{start} {srt.name} {verb} {gain} beyond it."

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON; NaN as None."""
        rows = [_row_dict(r, self.classes) for r in self.results]
        return _plain(
            {
                **self.context,
                "images": self.images,
                "best_1x_control": self.control,
                "conclusion": self.conclusion(),
                "notes": self.notes,
                "rows": rows,
            }
        )

    def save(self, path: str | Path) -> Path:
        """Write :meth:`to_dict` as JSON."""
        with replacing(path) as part:
            part.write_text(json.dumps(self.to_dict(), indent=2, ensure_ascii=False) + "\n")
        return Path(path)


def shown_interval(bounds: Interval) -> str:
    """An interval as ``[+0.20, +0.81]``."""
    return "" if bounds is None else f"[{bounds[0]:+.2f}, {bounds[1]:+.2f}]"


def compare(
    measured: list[Measured],
    classes: list[str],
    *,
    seed: int = 0,
    resamples: int = RESAMPLES,
    nan_to_num: float | None = None,
) -> Comparison:
    """Figures of all rows; the first is the plain one.

    The control that gains are held against is chosen by its mIoU on all images, and stays the same
    in every resample. The plain model is among the candidates, so that a gain is never flattered by
    controls that do harm.
    """
    plain = measured[0]
    images = len(plain.areas)
    results = [_result(m, plain, nan_to_num) for m in measured]
    best = max(
        (i for i, m in enumerate(measured) if m.row.kind in ("plain", "control")),
        key=lambda i: results[i].mIoU,
    )
    for result in results:
        result.gain = result.mIoU - results[0].mIoU
        result.gain_over_control = result.mIoU - results[best].mIoU
    if images >= MIN_IMAGES:
        counts = draw(images, resamples, seed)
        drawn = [resampled_miou(m.areas, counts, nan_to_num) for m in measured]
        for result, own in zip(results, drawn):
            result.gain_interval = interval(own, drawn[0])
            result.gain_over_control_interval = interval(own, drawn[best])
    return Comparison(results, images, classes, results[best].name)


def _result(m: Measured, plain: Measured, nan_to_num: float | None) -> Result:
    totals = m.areas.sum(0)
    summary = scores(totals, nan_to_num)
    # The median: a busy machine and first-time compilation show up in single images.
    seconds, plain_seconds = float(np.median(m.seconds)), float(np.median(plain.seconds))
    return Result(
        row=m.row,
        mIoU=summary["mIoU"],
        mAcc=summary["mAcc"],
        aAcc=summary["aAcc"],
        iou=class_iou(totals, nan_to_num).tolist(),
        reported=m.reported,
        seconds_per_image=seconds,
        seconds_ratio=seconds / plain_seconds,
        flops=m.flops,
        flops_ratio=m.flops / plain.flops if plain.flops else math.nan,
        peak_memory=m.peak_memory,
    )


def _row_dict(result: Result, classes: list[str]) -> dict[str, Any]:
    row = result.row
    figures = {k: v for k, v in vars(result).items() if k not in ("row", "iou")}
    settings = None if row.settings is None else keywords(row.settings)
    return {
        "name": row.name,
        "kind": row.kind,
        "views": row.views,
        "settings": settings,
        "complete": row.complete,
        **figures,
        "IoU": dict(zip(classes, result.iou)),
    }


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    if isinstance(value, np.generic):
        return _plain(value.item())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if value is None or isinstance(value, (str, int, float, bool)):
        return value
    return str(value)
