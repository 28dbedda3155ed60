"""What a row is judged by: figures with per-image statistics that can be resampled."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from .average_precision import Matches, average_precisions, mean_ap
from .bootstrap import resampled_miou
from .depth import FIGURES, mean_errors
from .figure import MainFigure
from .scores import class_iou, scores


class Metric(Protocol):
    """One metric of one run over the data."""

    @property
    def main(self) -> MainFigure:
        """The figure that gains are in, one of :meth:`figures`, and how it reads."""
        ...

    @property
    def images(self) -> int:
        """How many images a resample draws."""
        ...

    def figures(self) -> dict[str, float]:
        """All figures over all images, by name; NaN for what cannot be told."""
        ...

    def per_class(self) -> dict[str, dict[str, float]]:
        """Figures of each class, by figure and class name."""
        ...

    def resampled(self, counts: np.ndarray) -> np.ndarray | None:
        """The main figure of every resample, ``(resamples,)``; None where it has no statistics.

        Args:
            counts: how often each resample has each image, ``(resamples, images)``.
        """
        ...


@dataclass
class MeanIoU:
    """mIoU, mAcc and aAcc in percent as MMSegmentation computes them.

    Attributes:
        areas: pixel counts per image, ``(N, 4, C)``; see :mod:`.scores`.
        classes: names of the C classes.
        nan_to_num: as ``IoUMetric(nan_to_num=...)``.
    """

    areas: np.ndarray
    classes: Sequence[str]
    nan_to_num: float | None = None
    main = MainFigure("mIoU", "mIoU")

    @property
    def images(self) -> int:
        """How many images a resample draws."""
        return len(self.areas)

    def figures(self) -> dict[str, float]:
        """mIoU, mAcc and aAcc."""
        return scores(self.areas.sum(0), self.nan_to_num)

    def per_class(self) -> dict[str, dict[str, float]]:
        """IoU of each class."""
        values = class_iou(self.areas.sum(0), self.nan_to_num).tolist()
        return {"IoU": dict(zip(self.classes, values))}

    def resampled(self, counts: np.ndarray) -> np.ndarray:
        """The mIoU of every resample."""
        return resampled_miou(self.areas, counts, self.nan_to_num)


@dataclass
class AveragePrecision:
    """COCO's AP in percent: figures of the evaluator, resamples of its matches."""

    main: MainFigure
    values: dict[str, float]
    classes: dict[str, dict[str, float]]
    matches: Matches

    @property
    def images(self) -> int:
        """How many images a resample draws."""
        return self.matches.images

    def figures(self) -> dict[str, float]:
        """AP, AP50, AP75, APs, APm, APl."""
        return self.values

    def per_class(self) -> dict[str, dict[str, float]]:
        """AP of each class."""
        return self.classes

    def resampled(self, counts: np.ndarray) -> np.ndarray | None:
        """The AP of every resample; None where an evaluator's own AP is not of these matches."""
        once = np.ones((1, self.images), dtype=int)
        own = float(mean_ap(average_precisions(self.matches, once))[0])
        if not math.isclose(own, self.values[self.main.name], abs_tol=1e-4):
            return None
        return mean_ap(average_precisions(self.matches, counts))


@dataclass
class LabelledIoU:
    """Detectron2's mIoU in percent: the mean over classes that are among the labels.

    Attributes:
        areas: pixel counts per image, ``(N, 4, C)``; see :mod:`.scores`.
    """

    main: MainFigure
    values: dict[str, float]
    classes: dict[str, dict[str, float]]
    areas: np.ndarray

    @property
    def images(self) -> int:
        """How many images a resample draws."""
        return len(self.areas)

    def figures(self) -> dict[str, float]:
        """mIoU, fwIoU, mACC, pACC."""
        return self.values

    def per_class(self) -> dict[str, dict[str, float]]:
        """IoU and accuracy of each class."""
        return self.classes

    def resampled(self, counts: np.ndarray) -> np.ndarray:
        """The mIoU of every resample."""
        return resampled_miou(self.areas, counts, labelled_only=True)


@dataclass
class DepthErrors:
    """The paper's seven depth errors: means over the images that have judged pixels.

    Attributes:
        errors: of each image, ``(N, 7)``; see :mod:`.depth`.
        pixels: how many pixels of each image are judged, ``(N,)``.
    """

    errors: np.ndarray
    pixels: np.ndarray
    main = MainFigure(
        FIGURES[0],
        FIGURES[0],
        unit="m",
        digits=4,
        lower_is_better=True,
        beside=FIGURES[1:],
        note="RMSE and SqRel in m, RMSE_log, AbsRel: lower is better; a1, a2, a3 (share of pixels "
        "within a factor of 1.25, 1.25^2, 1.25^3): higher is better. Means over images.",
    )

    @property
    def images(self) -> int:
        """How many images a resample draws."""
        return len(self.errors)

    def figures(self) -> dict[str, float]:
        """RMSE, RMSE_log, AbsRel, SqRel, a1, a2, a3."""
        return mean_errors(self.errors[self.pixels > 0])

    def per_class(self) -> dict[str, dict[str, float]]:
        """There are no classes."""
        return {}

    def resampled(self, counts: np.ndarray) -> np.ndarray:
        """The RMSE of every resample; NaN for one without judged pixels."""
        there = self.pixels > 0
        drawn = counts[:, there]
        total, number = drawn @ self.errors[there, 0], drawn.sum(1)
        return np.divide(total, number, out=np.full(len(counts), np.nan), where=number > 0)


@dataclass
class Reported:
    """Figures of an evaluator that keeps no per-image statistics: no intervals."""

    main: MainFigure
    images: int
    values: dict[str, float]
    classes: dict[str, dict[str, float]] = field(default_factory=dict)

    def figures(self) -> dict[str, float]:
        """The figures as reported."""
        return dict(self.values)

    def per_class(self) -> dict[str, dict[str, float]]:
        """Figures of each class as reported."""
        return self.classes

    def resampled(self, counts: np.ndarray) -> None:
        """Nothing to resample."""
        return None
