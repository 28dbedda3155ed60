"""Which of many candidates to take by a few labelled images.

mIoU of a few images is noisy: a class with a hundred pixels counts as much as the sky. Three things
make the choice steadier (docs/tuning.md has the distances with and without each): classes count by
the square root of how many pixels are labelled with them, the score of a strength is averaged with
those of neighbouring strengths, and several views are kept unless one is clearly better.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..core.guided import Guided
from ..settings import Settings
from .bootstrap import MIN_IMAGES, RESAMPLES, draw
from .metrics import Metric
from .scores import class_iou

# How far the average over neighbouring strengths reaches, in steps of the grid.
_REACH = 0.7
# One view replaces several where it is better in at least this share of resamples.
_CLEARLY = 0.975


@dataclass(frozen=True)
class Candidate:
    """What was tried, and how it did.

    Attributes:
        settings: of SRT.
        views: forwards per image.
        metric: of the run over the labelled images.
    """

    settings: Settings
    views: int
    metric: Metric


@dataclass(frozen=True)
class Choice:
    """What was chosen.

    Attributes:
        best: index of the chosen candidate.
        free: index of the best candidate of one view; None where there is none.
        scores: what candidates were ranked by, higher is better, ``(candidates,)``.
    """

    best: int
    free: int | None
    scores: np.ndarray


def choose(candidates: Sequence[Candidate], seed: int = 0, resamples: int = RESAMPLES) -> Choice:
    """The candidate to take.

    Args:
        candidates: at least one, all run on the same images.
        seed: of the bootstrap.
        resamples: of the images, by which one view is told to be better than several.
    """
    images = candidates[0].metric.images
    once = np.ones((1, images), dtype=int)
    raw = np.array([steady_scores(c.metric, once)[0] for c in candidates])
    scores = neighbour_weights([c.settings for c in candidates]) @ raw
    ranked = np.where(np.isnan(scores), -np.inf, scores)
    several, single = (
        [i for i, c in enumerate(candidates) if (c.views > 1) == many] for many in (True, False)
    )
    best, free = (max(group, key=ranked.__getitem__, default=None) for group in (several, single))
    if best is None or free is None:
        found = best if free is None else free
        assert found is not None
        return Choice(found, free, scores)
    if images >= MIN_IMAGES and ranked[free] > ranked[best]:
        drawn = draw(images, resamples, seed)
        single_scores, several_scores = (
            steady_scores(candidates[i].metric, drawn) for i in (free, best)
        )
        if np.mean(single_scores > several_scores) >= _CLEARLY:
            best = free
    return Choice(best, free, scores)


def steady_scores(metric: Metric, counts: np.ndarray) -> np.ndarray:
    """What candidates are ranked by in resamples, ``(resamples,)``, higher is better.

    For segmentation the mean IoU in percent, where classes count by the square root of their
    labelled pixels; for other metrics the main figure.

    Args:
        metric: of one run.
        counts: how often each resample has each image, ``(resamples, images)``.
    """
    areas = getattr(metric, "areas", None)
    if areas is not None:
        totals = np.tensordot(counts, areas, 1)
        weights = np.sqrt(totals[:, 3])
        ious = np.nan_to_num(class_iou(totals))
        whole = weights.sum(1)
        part = (ious * weights).sum(1)
        return np.divide(part, whole, out=np.full(len(counts), math.nan), where=whole > 0)
    values = metric.resampled(counts)
    if values is None:
        values = np.full(len(counts), metric.figures()[metric.main.name])
    return np.asarray(metric.main.gain(values, 0.0))


def neighbour_weights(settings: Sequence[Settings]) -> np.ndarray:
    """How much each candidate counts in the score of each, ``(candidates, candidates)``, rows that
    sum to one: candidates that differ in the strength of guided smoothing alone share their scores.
    """
    places = _places(settings)
    weights = np.eye(len(settings))
    for i, (rest, y, x) in places.items():
        for j, (other, v, u) in places.items():
            if rest == other:
                weights[i, j] = math.exp(-((abs(y - v) + abs(x - u)) ** 2) / (2 * _REACH**2))
    weights /= weights.sum(1, keepdims=True)
    return weights


def _places(settings: Sequence[Settings]) -> dict[int, tuple[str, int, int]]:
    """Of each candidate with guided smoothing: its other settings, and its place in the grid."""
    guided = {
        i: (repr(s.but(smooth=None)), Guided.parse(s.smooth))
        for i, s in enumerate(settings)
        if isinstance(s.smooth, str)
    }
    spaces = sorted({how.space for _, how in guided.values()})
    colours = sorted({how.colour for _, how in guided.values()})
    return {
        i: (rest, spaces.index(how.space), colours.index(how.colour))
        for i, (rest, how) in guided.items()
    }
