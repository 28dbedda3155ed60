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
# One view replaces several where it is better in at least this share of resamples; another way of
# views replaces phases where it is in this one.
_CLEARLY = 0.975
_LIKELY = 0.9


@dataclass(frozen=True)
class Candidate:
    """What was tried, and how it did.

    Attributes:
        settings: of SRT.
        views: forwards per image.
        metric: of the run over the images that choose.
        variant: another way of views, with the smoothing and stride that were best before.
    """

    settings: Settings
    views: int
    metric: Metric
    variant: bool = False


@dataclass(frozen=True)
class Choice:
    """What was chosen.

    Attributes:
        best: index of the chosen candidate.
        free: index of the best candidate of one view; None where there is none.
        scores: what candidates were ranked by, higher is better, ``(candidates,)``.
        kept: the default was kept, because nothing was clearly better.
    """

    best: int
    free: int | None
    scores: np.ndarray
    kept: bool = False


def choose(
    candidates: Sequence[Candidate],
    seed: int = 0,
    resamples: int = RESAMPLES,
    default: int | None = None,
    shared: bool = True,
) -> Choice:
    """The candidate to take.

    Args:
        candidates: at least one that is no variant, all run on the same images.
        seed: of the bootstrap.
        resamples: of the images, by which one candidate is told to be better than another.
        default: index of a candidate that only one which is clearly better replaces.
        shared: neighbouring strengths share their scores.
    """
    images = candidates[0].metric.images
    once = np.ones((1, images), dtype=int)
    raw = np.array([steady_scores(c.metric, once)[0] for c in candidates])
    grid = [c.settings if shared and not c.variant else None for c in candidates]
    scores = neighbour_weights(grid) @ raw
    drawn = draw(images, resamples, seed) if images >= MIN_IMAGES else None

    def better(one: int, other: int) -> float:
        """In which share of resamples one candidate is."""
        if drawn is None:
            return 0.0
        own, others = (steady_scores(candidates[i].metric, drawn) for i in (one, other))
        return float(np.mean(own > others))

    def highest(group: list[int]) -> int | None:
        values = np.where(np.isnan(scores), -np.inf, scores)
        return max(group, key=values.__getitem__, default=None)

    first = [i for i, c in enumerate(candidates) if not c.variant]
    several, single = (
        [i for i in first if (candidates[i].views > 1) == many] for many in (True, False)
    )
    best, free = highest(several), highest(single)
    found = free if best is None else best
    assert found is not None
    if best is not None:
        others = [i for i, c in enumerate(candidates) if c.variant]
        for i in others:  # figures of one candidate alone are luckier than averages
            scores[i] = scores[best] + raw[i] - raw[best]
        likely = [i for i in others if raw[i] > raw[best] and better(i, best) >= _LIKELY]
        found = max(likely, key=raw.__getitem__, default=best)
    if best is not None and free is not None and scores[free] > scores[found]:
        found = free if better(free, found) >= _CLEARLY else found
    if default not in (None, found) and better(found, default) < _CLEARLY:
        return Choice(default, free, scores, kept=True)
    return Choice(found, free, scores)


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


def neighbour_weights(settings: Sequence[Settings | None]) -> np.ndarray:
    """How much each candidate counts in the score of each, ``(candidates, candidates)``, rows that
    sum to one: candidates that differ in the strength of guided smoothing alone share their scores.
    Those given as None share with none.
    """
    places = _places(settings)
    weights = np.eye(len(settings))
    for i, (rest, y, x) in places.items():
        for j, (other, v, u) in places.items():
            if rest == other:
                weights[i, j] = math.exp(-((abs(y - v) + abs(x - u)) ** 2) / (2 * _REACH**2))
    weights /= weights.sum(1, keepdims=True)
    return weights


def _places(settings: Sequence[Settings | None]) -> dict[int, tuple[str, int, int]]:
    """Of each candidate with guided smoothing: its other settings, and its place in the grid."""
    guided = {
        i: (repr(s.but(smooth=None)), Guided.parse(s.smooth))
        for i, s in enumerate(settings)
        if s is not None and isinstance(s.smooth, str)
    }
    spaces = sorted({how.space for _, how in guided.values()})
    colours = sorted({how.colour for _, how in guided.values()})
    return {
        i: (rest, spaces.index(how.space), colours.index(how.colour))
        for i, (rest, how) in guided.items()
    }
