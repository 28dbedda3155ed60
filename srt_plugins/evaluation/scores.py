"""Segmentation scores from per-image pixel counts, as MMSegmentation computes them.

Pixel counts are one float64 array ``(N, 4, C)``: for each image and class the intersection, the
union, the predicted and the labelled pixels.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from ..errors import ConfigError


def stack_areas(results: Iterable[Any]) -> np.ndarray:
    """Per-image results of ``IoUMetric`` as ``(N, 4, C)`` float64.

    Raises:
        ConfigError: the metric kept something else than four counts per class and image.
    """
    images = [np.stack([np.asarray(part, dtype=np.float64) for part in r]) for r in results]
    if not images or any(image.ndim != 2 or len(image) != 4 for image in images):
        raise ConfigError(
            "Expected the test evaluator to keep intersection, union, predicted and labelled "
            "pixels of every image, as IoUMetric does; use test_evaluator=dict(type='IoUMetric', "
            "iou_metrics=['mIoU'])."
        )
    return np.stack(images)


def pixel_counts(
    prediction: np.ndarray, truth: np.ndarray, classes: int, ignore_index: int = 255
) -> np.ndarray:
    """Intersection, union, predicted and labelled pixels of each class, ``(4, C)`` float64.

    Args:
        prediction: class ids, ``(H, W)``.
        truth: class ids, ``(H, W)``; pixels of ``ignore_index`` do not count.
        classes: how many.
        ignore_index: of pixels without a label.

    Raises:
        ConfigError: maps of different sizes.
    """
    if prediction.shape != truth.shape:
        raise ConfigError(
            f"Expected a prediction of the size of the labels, {truth.shape}, got "
            f"{prediction.shape}."
        )
    there = truth != ignore_index
    predicted, labelled = prediction[there], truth[there]
    common, predicted, labelled = (
        np.bincount(ids, minlength=classes)
        for ids in (predicted[predicted == labelled], predicted, labelled)
    )
    counts = [common, predicted + labelled - common, predicted, labelled]
    return np.stack(counts).astype(np.float64)


def class_iou(totals: np.ndarray, nan_to_num: float | None = None) -> np.ndarray:
    """IoU of each class in percent, ``(..., C)``; NaN for a class that is nowhere.

    Args:
        totals: pixel counts summed over images, ``(..., 4, C)``.
        nan_to_num: what replaces NaN (a fraction), as ``IoUMetric(nan_to_num=...)``.
    """
    return _percent(totals[..., 0, :], totals[..., 1, :], nan_to_num)


def mean_iou(
    totals: np.ndarray, nan_to_num: float | None = None, labelled_only: bool = False
) -> np.ndarray:
    """The mIoU in percent, ``(...)``: the mean over the classes that are there.

    With ``labelled_only``, a class that was predicted but is not among the labels does not count.
    """
    ious = class_iou(totals, nan_to_num)
    return _nanmean(np.where(totals[..., 3, :] > 0, ious, np.nan) if labelled_only else ious)


def scores(totals: np.ndarray, nan_to_num: float | None = None) -> dict[str, float]:
    """mIoU, mAcc and aAcc in percent, unrounded, of one ``(4, C)`` array of counts."""
    accuracy = _percent(totals[0], totals[3], nan_to_num)
    return {
        "mIoU": float(mean_iou(totals, nan_to_num)),
        "mAcc": float(_nanmean(accuracy)),
        "aAcc": float(100 * totals[0].sum() / totals[3].sum()) if totals[3].sum() else float("nan"),
    }


def _percent(part: np.ndarray, whole: np.ndarray, nan_to_num: float | None) -> np.ndarray:
    share = np.full(np.broadcast(part, whole).shape, np.nan)
    np.divide(part, whole, out=share, where=whole > 0)
    return 100 * (share if nan_to_num is None else np.nan_to_num(share, nan=nan_to_num))


def _nanmean(values: np.ndarray) -> np.ndarray:
    there = ~np.isnan(values)
    count = there.sum(-1)
    total = np.where(there, values, 0).sum(-1)
    mean = np.full(total.shape, np.nan)
    np.divide(total, count, out=mean, where=count > 0)
    return mean
