"""Paired bootstrap over images: how far a gain in mIoU depends on which images were tested.

mIoU is not a mean over images, so its interval cannot come from per-image values: every resample
draws N images with replacement, sums their pixel counts and computes the mIoU anew. All rows of a
comparison see the same draws, so that what is hard or easy for all of them cancels.
"""

from __future__ import annotations

import numpy as np

from .scores import mean_iou

RESAMPLES = 2000
# Below this many images an interval says nothing.
MIN_IMAGES = 2
# Draws that are handled at a time, in elements of (draws, 4, C).
_BLOCK = 1 << 22


def draw(images: int, resamples: int = RESAMPLES, seed: int = 0) -> np.ndarray:
    """How often each resample has each image: ``(resamples, images)``, rows sum to images."""
    chances = np.full(images, 1 / images)
    return np.random.default_rng(seed).multinomial(images, chances, size=resamples)


def resampled_miou(
    areas: np.ndarray,
    counts: np.ndarray,
    nan_to_num: float | None = None,
    labelled_only: bool = False,
) -> np.ndarray:
    """The mIoU in percent of every resample, ``(resamples,)``.

    Args:
        areas: pixel counts per image, ``(N, 4, C)``.
        counts: from :func:`draw`.
        nan_to_num: as ``IoUMetric(nan_to_num=...)``.
        labelled_only: leave classes that no pixel is labelled with out of the mean.
    """
    flat = areas.reshape(len(areas), -1)
    step = max(1, _BLOCK // flat.shape[1])
    blocks = [
        mean_iou(
            (counts[i : i + step] @ flat).reshape(-1, *areas.shape[1:]), nan_to_num, labelled_only
        )
        for i in range(0, len(counts), step)
    ]
    return np.concatenate(blocks)


def interval(
    row: np.ndarray, baseline: np.ndarray | float = 0.0, confidence: float = 0.95
) -> tuple[float, float] | None:
    """Percentile interval of the gain ``row - baseline`` over the same resamples.

    None where it cannot be told (a resample without any labelled pixel).
    """
    gains = row - baseline
    if np.isnan(gains).any():
        return None
    tail = 50 * (1 - confidence)
    low, high = np.percentile(gains, [tail, 100 - tail])
    return float(low), float(high)
