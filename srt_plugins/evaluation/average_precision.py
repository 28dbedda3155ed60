"""Average precision of resampled images, from the matches that COCO's evaluation made per image.

COCO's AP (Lin et al., 2014; pycocotools) ranks the detections of all images, so it cannot come from
per-image values. Which detection matches which object does not depend on other images, however: a
resample that has an image n times ranks each of its detections n times. Counting them n times
instead gives the same curve, because detections of one rank are all right or all wrong, and
interpolated precision is decided at the last of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Callable

import numpy as np

# Elements of (resamples, detections) that are handled at a time.
_BLOCK = 1 << 22


@dataclass
class ClassMatches:
    """Detections and objects of one class, D detections by falling score.

    Attributes:
        image: index of each detection's image, ``(D,)``.
        right: whether it matches an object, per IoU threshold, ``(T, D)`` bool.
        counted: False where it counts neither as right nor as wrong, ``(T, D)`` bool.
        objects: number of objects that must be found in each image, ``(N,)``.
    """

    image: np.ndarray
    right: np.ndarray
    counted: np.ndarray
    objects: np.ndarray


@dataclass
class Matches:
    """Matches of N images.

    Attributes:
        classes: of each class, in the order of COCO's category ids.
        recalls: recall levels at which precision is read, rising, ``(R,)``.
        images: N.
    """

    classes: list[ClassMatches]
    recalls: np.ndarray
    images: int


def coco_matches(coco_eval: Any, area: str = "all") -> Matches:
    """What a ``COCOeval`` found in each image.

    Args:
        coco_eval: after ``evaluate()``. Detectron2's faster variant does not tell its matches, so
            images are matched again by pycocotools.
        area: label of the range of object sizes: ``"all" | "small" | "medium" | "large"``.
    """
    params = coco_eval.params
    area_index = params.areaRngLbl.index(area)
    most = params.maxDets[-1]
    found = _evaluator(coco_eval, area_index, most)
    classes = []
    for k in range(len(params.catIds) if params.useCats else 1):
        images = [found(k, i) for i in range(len(params.imgIds))]
        classes.append(_class_matches(images, len(params.iouThrs), most))
    return Matches(classes, np.asarray(params.recThrs, dtype=np.float64), len(params.imgIds))


def _evaluator(coco_eval: Any, area: int, most: int) -> Callable[[int, int], Any]:
    """Gives ``evaluateImg``'s result for a class and an image, by index."""
    params = coco_eval.params
    ids = params.catIds if params.useCats else [-1]
    if coco_eval.evalImgs:
        images, areas = len(params.imgIds), len(params.areaRng)
        return lambda k, i: coco_eval.evalImgs[(k * areas + area) * images + i]
    return lambda k, i: coco_eval.evaluateImg(params.imgIds[i], ids[k], params.areaRng[area], most)


def _class_matches(images: list[Any], thresholds: int, most: int) -> ClassMatches:
    objects = np.zeros(len(images))
    scores, image = [np.zeros(0)], [np.zeros(0, dtype=np.intp)]
    right, counted = ([np.zeros((thresholds, 0), dtype=bool)] for _ in range(2))
    for i, one in enumerate(images):
        if one is None:
            continue
        objects[i] = np.count_nonzero(np.asarray(one["gtIgnore"]) == 0)
        scores.append(np.asarray(one["dtScores"][:most], dtype=np.float64))
        image.append(np.full(len(scores[-1]), i, dtype=np.intp))
        ignored = np.asarray(one["dtIgnore"])[:, :most].astype(bool)
        right.append((np.asarray(one["dtMatches"])[:, :most] > 0) & ~ignored)
        counted.append(~ignored)
    order = np.argsort(-np.concatenate(scores), kind="mergesort")  # as pycocotools: stable
    return ClassMatches(
        np.concatenate(image)[order],
        np.concatenate(right, 1)[:, order],
        np.concatenate(counted, 1)[:, order],
        objects,
    )


def average_precisions(matches: Matches, counts: np.ndarray) -> np.ndarray:
    """AP in percent per resample, IoU threshold and class, ``(resamples, T, C)``.

    NaN for a class without objects in a resample, which COCO leaves out of means.

    Args:
        matches: from :func:`coco_matches`.
        counts: how often each resample has each image, ``(resamples, N)``.
    """
    return np.stack([_class_ap(m, matches.recalls, counts) for m in matches.classes], axis=2)


def mean_ap(precisions: np.ndarray) -> np.ndarray:
    """The mean over thresholds and classes of ``(resamples, T, C)``; NaN where nothing is there."""
    there = ~np.isnan(precisions)
    count = there.sum((1, 2))
    total = np.where(there, precisions, 0).sum((1, 2))
    return np.divide(total, count, out=np.full(len(precisions), np.nan), where=count > 0)


def _class_ap(m: ClassMatches, recalls: np.ndarray, counts: np.ndarray) -> np.ndarray:
    made = np.full((len(counts), len(m.right)), np.nan)
    step = max(1, _BLOCK // max(1, len(m.image)))
    for start in range(0, len(counts), step):
        block = counts[start : start + step]
        objects = block @ m.objects
        there = objects > 0
        weights = block[there][:, m.image].astype(np.float64)
        for t, (right, counted) in enumerate(zip(m.right, m.counted)):
            ap = _interpolated_ap(weights, right, counted, objects[there], recalls)
            made[start : start + step, t][there] = ap
    return 100 * made


def _interpolated_ap(
    weights: np.ndarray,
    right: np.ndarray,
    counted: np.ndarray,
    objects: np.ndarray,
    recalls: np.ndarray,
) -> np.ndarray:
    """AP as a fraction, ``(resamples,)``, of weighted detections ``(resamples, D)``.

    Only ranks of right detections matter: recall grows there alone, and precision is highest there.
    """
    ranks = np.flatnonzero(right)
    if not len(ranks):
        return np.zeros(len(weights))
    hits = np.cumsum(weights[:, ranks], axis=1)
    ranked = np.cumsum(weights if counted.all() else weights * counted, axis=1)[:, ranks]
    precision = hits / (ranked + np.spacing(1))
    # The highest precision at this recall or a higher one.
    envelope = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
    # How many recall levels are reached at each rank for the first time.
    reached = np.searchsorted(recalls, hits / objects[:, None], side="right")
    new = np.diff(reached, axis=1, prepend=0)
    return (new * envelope).sum(1) / len(recalls)
