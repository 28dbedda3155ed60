"""How well uncertainty tells where a prediction is wrong.

Pure functions on the judged pixels of one image, and what is kept of an image: a histogram for the
calibration error, and a few figures. No pixel outlives its image.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

BINS = 15
STEPS = 100
# What pixels are ranked by. Free: 1 - the largest softmax probability, or predicted depth, since
# what is far is mostly told less well. Then what views disagree by, and the mean of both ranks.
CONFIDENCE, DEPTH, DISPERSION, BOTH = "confidence", "depth", "dispersion", "both"
FREE = (CONFIDENCE, DEPTH)
SOURCES = (*FREE, DISPERSION, BOTH)
# Pixels whose probabilities are computed at a time.
_BAND = 1 << 22


def doubt(logits: Tensor) -> Tensor:
    """1 - the largest softmax probability of each pixel, ``(H, W)`` float64.

    Computed without the subtraction, so that sure pixels stay apart.

    Args:
        logits: ``(C, H, W)``.
    """
    rows = max(1, _BAND // max(1, logits.shape[0] * logits.shape[2]))
    bands = []
    for band in logits.split(rows, dim=1):
        wide = band.double()
        top, best = wide.max(0, keepdim=True)
        shares = (wide - top).exp().scatter(0, best, 0.0).sum(0)
        bands.append(shares / (1 + shares))
    return torch.cat(bands)


def reliability(confidence: np.ndarray, right: np.ndarray, bins: int = BINS) -> np.ndarray:
    """Pixels, their summed confidence and how many are right, by confidence, ``(3, bins)``.

    Bins have equal width and are open below, ``(i / bins, (i + 1) / bins]`` (Guo et al.: *On
    Calibration of Modern Neural Networks*, ICML 2017).

    Args:
        confidence: in 0 .. 1, ``(P,)``.
        right: whether each pixel is right, ``(P,)``.
        bins: how many.
    """
    which = np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)
    weights = (None, confidence, np.asarray(right, dtype=np.float64))
    return np.stack([np.bincount(which, w, minlength=bins).astype(np.float64) for w in weights])


def calibration_error(tables: np.ndarray) -> np.ndarray:
    """ECE in percent of tables from :func:`reliability`, ``(..., 3, bins)`` to ``(...)``; NaN for
    tables without pixels.
    """
    pixels = tables[..., 0, :].sum(-1)
    gaps = np.abs(tables[..., 1, :] - tables[..., 2, :]).sum(-1)
    error = np.full(np.shape(pixels), np.nan)
    np.divide(100 * gaps, pixels, out=error, where=pixels > 0)
    return error


@dataclass(frozen=True)
class Ranking:
    """Values by rank: ``which`` of the distinct values each pixel has, from the lowest, and how
    many pixels have each.
    """

    which: np.ndarray
    counts: np.ndarray

    @classmethod
    def of(cls, values: np.ndarray) -> Ranking:
        """The ranking of values ``(P,)``."""
        _, which, counts = np.unique(values, return_inverse=True, return_counts=True)
        return cls(which.reshape(-1), counts)

    def ranks(self) -> np.ndarray:
        """Ranks from 1, the mean rank for equal values, ``(P,)``."""
        last = np.cumsum(self.counts)
        return (last - (self.counts - 1) / 2)[self.which]


def spearman(first: Ranking, second: Ranking) -> float:
    """Spearman's rank correlation, with mean ranks of ties; NaN where one is constant."""
    a, b = first.ranks(), second.ranks()
    a, b = a - a.mean() if a.size else a, b - b.mean() if b.size else b
    spread = math.sqrt(float(a @ a) * float(b @ b))
    return float(a @ b) / spread if spread > 0 else math.nan


def sparsification(
    uncertainty: Ranking, error: np.ndarray, root: bool = False, steps: int = STEPS
) -> np.ndarray:
    """Mean error of the pixels that are left when the most uncertain ones are taken away.

    Among equally uncertain pixels the order is left open: each counts with their mean error.

    Args:
        uncertainty: of ``P`` pixels, at least one.
        error: of each pixel, ``(P,)``, >= 0; squared errors with ``root``.
        root: take the square root of the means, as for RMSE.
        steps: of ``1 / steps`` of the pixels.

    Returns:
        ``(steps,)``: with ``k * P // steps`` pixels taken away, k = 0, 1, ...
    """
    sums = np.bincount(uncertainty.which, error, minlength=len(uncertainty.counts))
    sorted_errors = np.repeat(sums / uncertainty.counts, uncertainty.counts)
    kept = len(error) - np.arange(steps) * len(error) // steps
    means = np.cumsum(sorted_errors)[kept - 1] / kept
    return np.sqrt(means) if root else means


def ause(uncertainty: Ranking, error: np.ndarray, root: bool = False, steps: int = STEPS) -> float:
    """Area under the sparsification error curve (Ilg et al., ECCV 2018): how much error is left
    beyond what is left when the pixels are taken away by their true error.

    Both curves are divided by the error of all pixels. 0 is the best order there is; a random one
    has the area between a constant 1 and the best curve.

    Args:
        uncertainty: of the pixels.
        error: of each pixel, ``(P,)``; see :func:`sparsification`.
        root: as for RMSE.
        steps: of the curves.

    Returns:
        By the trapezoidal rule; NaN without pixels or without errors.
    """
    if not error.size or not error.any():
        return math.nan
    best = sparsification(Ranking.of(error), error, root, steps)
    found = sparsification(uncertainty, error, root, steps)
    # The curves meet at both ends.
    return float((found - best)[1:].sum() / steps / found[0])


@dataclass
class ImageCalibration:
    """What is kept of an image.

    Attributes:
        pixels: how many were judged.
        table: from :func:`reliability`; None without probabilities.
        figures: by name, such as ``"AUSE_confidence"``; NaN for what cannot be told.
    """

    pixels: int
    table: np.ndarray | None
    figures: dict[str, float]


def image_calibration(
    error: np.ndarray, uncertainties: Mapping[str, np.ndarray | None], root: bool = False
) -> ImageCalibration:
    """The calibration of one image.

    Args:
        error: of each judged pixel, ``(P,)``: 0 or 1, or with ``root`` its squared error.
        uncertainties: ``(P,)`` by name, of :data:`CONFIDENCE` (which must be 1 - a probability) or
            :data:`DEPTH`, and :data:`DISPERSION`; None for none.
        root: figures are those of the RMSE.
    """
    error = np.asarray(error, dtype=np.float64)
    given = {name: value for name, value in uncertainties.items() if value is not None}
    sure = given.get(CONFIDENCE)
    table = None if sure is None else reliability(1 - sure, 1 - error)
    rankings = {name: Ranking.of(value) for name, value in given.items()}
    if len(rankings) == 2:
        rankings[BOTH] = Ranking.of(np.sum([one.ranks() for one in rankings.values()], axis=0))
    of_error = Ranking.of(error)
    figures = {}
    for name, ranking in rankings.items():
        figures[f"AUSE_{name}"] = ause(ranking, error, root)
        figures[f"correlation_{name}"] = spearman(ranking, of_error)
    return ImageCalibration(error.size, table, figures)
