"""Errors of predicted depth maps, per image, as the paper's Table 2 has them.

Over the judged pixels of an image, with d predicted and g true depth in metres (Eigen et al.,
2014):

======== ===========================================================
RMSE     ``sqrt(mean((d - g)^2))``
RMSE_log ``sqrt(mean((ln d - ln g)^2))``
AbsRel   ``mean(|d - g| / g)``
SqRel    ``mean((d - g)^2 / g)``
a1 a2 a3 share of pixels with ``max(d / g, g / d) < 1.25, 1.25^2, 1.25^3``
======== ===========================================================

The figures of a data set are means over its images, every image with the same weight, as in BTS,
the Monocular-Depth-Estimation-Toolbox and MMSegmentation's ``DepthMetric``. All in float64.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..errors import ConfigError, nearest

FIGURES = ("RMSE", "RMSE_log", "AbsRel", "SqRel", "a1", "a2", "a3")
ALIGNMENTS = ("none", "median", "scale_shift")
# Rows and columns of NYU's 480 x 640 images that are judged.
EIGEN_SIZE = (480, 640)
EIGEN_CROP = (slice(45, 471), slice(41, 601))
_ACCURATE = 1.25


@dataclass(frozen=True)
class DepthProtocol:
    """Which pixels are judged, and what is done to the prediction before.

    The defaults with ``crop="eigen"`` are the usual protocol on NYU: BTS and the Toolbox judge what
    is strictly between ``min_depth`` and ``max_depth`` and clamp predictions to them.

    Attributes:
        min_depth: metres; a pixel is judged where ``min_depth < truth < max_depth``.
        max_depth: metres.
        crop: ``"eigen"`` for rows 45 to 470 and columns 41 to 600 of a 480 x 640 image, None for
            the whole image.
        align: ``"none"``, ``"median"`` (scaled so that the medians agree) or ``"scale_shift"``
            (least squares of ``scale * prediction + shift``), fitted to the truth of each image
            over its judged pixels. Anything but ``"none"`` uses the truth: for models of relative
            depth only.
        disparity: the prediction is inverse depth (1/m, or relative). It is aligned to
            ``1 / truth`` and then inverted; what is not positive is infinitely far.
        clamp: clamp predicted depth to ``[min_depth, max_depth]``, after aligning. NaN stays NaN.
    """

    min_depth: float = 1e-3
    max_depth: float = 10.0
    crop: str | None = None
    align: str = "none"
    disparity: bool = False
    clamp: bool = True

    def __post_init__(self) -> None:
        if not 0 <= self.min_depth < self.max_depth:
            raise ConfigError(
                "Expected 0 <= min_depth < max_depth in metres, got "
                f"min_depth={self.min_depth!r}, max_depth={self.max_depth!r}."
            )
        if self.crop not in (None, "eigen"):
            raise ConfigError(f"Expected crop to be None or 'eigen', got {self.crop!r}.")
        if self.align not in ALIGNMENTS:
            raise ConfigError(
                f"Expected align to be one of {', '.join(ALIGNMENTS)}, got {self.align!r}; did you "
                f"mean {nearest(str(self.align), ALIGNMENTS, 1)}?"
            )


NYU = DepthProtocol(crop="eigen")


def judged_pixels(truth: np.ndarray, protocol: DepthProtocol = NYU) -> np.ndarray:
    """Which pixels of ``truth`` ``(H, W)`` in metres are judged, ``(H, W)`` bool.

    Raises:
        ConfigError: not a map, or the crop is not made for its size.
    """
    if np.ndim(truth) != 2:
        raise ConfigError(f"Expected a depth map (H, W), got shape {np.shape(truth)}.")
    valid: np.ndarray = (truth > protocol.min_depth) & (truth < protocol.max_depth)
    if protocol.crop is None:
        return valid
    if np.shape(truth) != EIGEN_SIZE:
        raise ConfigError(
            f"Expected a depth map of {EIGEN_SIZE} with crop='eigen', got {np.shape(truth)}; "
            "resize the prediction to the truth, never the truth, or use crop=None."
        )
    inside = np.zeros(EIGEN_SIZE, dtype=bool)
    inside[EIGEN_CROP] = True
    return valid & inside


def image_errors(
    prediction: np.ndarray, truth: np.ndarray, protocol: DepthProtocol = NYU
) -> np.ndarray:
    """The errors :data:`FIGURES` of one image, ``(7,)`` float64; NaN where no pixel is judged.

    Args:
        prediction: depth in metres, or as the protocol says, ``(H, W)``.
        truth: depth in metres, ``(H, W)``; pixels without depth are 0 (or anything not judged).
        protocol: which pixels are judged, and how.

    Raises:
        ConfigError: sizes that differ, or that the crop is not made for.
    """
    if np.shape(prediction) != np.shape(truth):
        raise ConfigError(
            f"Expected a prediction of the size of the truth, {np.shape(truth)}, got "
            f"{np.shape(prediction)}; resize the prediction (bilinear)."
        )
    judged = judged_pixels(truth, protocol)
    true = np.asarray(truth, dtype=np.float64)[judged]
    return pixel_errors(
        judged_depth(np.asarray(prediction, dtype=np.float64)[judged], true, protocol), true
    )


def judged_depth(
    predicted: np.ndarray, true: np.ndarray, protocol: DepthProtocol = NYU
) -> np.ndarray:
    """Predicted depth of the judged pixels of an image, ``(P,)`` in metres, fitted to the truth and
    clamped as the protocol says.
    """
    depth = aligned(predicted, true, protocol.align, protocol.disparity)
    return np.clip(depth, protocol.min_depth, protocol.max_depth) if protocol.clamp else depth


def pixel_errors(predicted: np.ndarray, true: np.ndarray) -> np.ndarray:
    """The errors :data:`FIGURES` over some pixels, ``(7,)`` float64; NaN where there are none.

    A predicted depth that is not positive counts as not accurate, and has no logarithm: RMSE_log is
    then infinite or NaN.

    Args:
        predicted: depth in metres, ``(P,)``.
        true: depth in metres, positive, ``(P,)``.
    """
    d, g = np.asarray(predicted, dtype=np.float64), np.asarray(true, dtype=np.float64)
    if not d.size:
        return np.full(len(FIGURES), np.nan)
    with np.errstate(divide="ignore", invalid="ignore"):
        squared, logs = (d - g) ** 2, (np.log(d) - np.log(g)) ** 2
        ratio = np.where(d > 0, np.maximum(d / g, g / d), np.inf)
    roots = np.sqrt([squared.mean(), logs.mean()])
    relative = [(np.abs(d - g) / g).mean(), (squared / g).mean()]
    return np.array([*roots, *relative, *((ratio < _ACCURATE**k).mean() for k in (1, 2, 3))])


def aligned(
    predicted: np.ndarray, true: np.ndarray, align: str = "none", disparity: bool = False
) -> np.ndarray:
    """Predicted depth ``(P,)`` in metres, fitted to the truth of the same pixels.

    Args:
        predicted: depth or, with ``disparity``, inverse depth, of the judged pixels, ``(P,)``.
        true: depth in metres, ``(P,)``.
        align: one of :data:`ALIGNMENTS`.
        disparity: as in :class:`DepthProtocol`.
    """
    if not predicted.size:
        return predicted
    target = 1 / true if disparity else true
    if align == "median":
        middle = np.median(predicted)
        # A scale that is not positive would turn near into far: no depth can be told.
        predicted = predicted * (np.median(target) / middle if middle > 0 else np.nan)
    elif align == "scale_shift":
        centred = predicted - predicted.mean()
        spread = (centred**2).sum()
        scale = (centred * (target - target.mean())).sum() / spread if spread > 0 else 0.0
        predicted = target.mean() + scale * centred
    if not disparity:
        return predicted
    with np.errstate(divide="ignore"):
        depth = np.where(predicted > 0, 1 / predicted, np.inf)
    return np.where(np.isnan(predicted), np.nan, depth)


def mean_errors(errors: np.ndarray) -> dict[str, float]:
    """Means over images of errors ``(N, 7)`` by name; NaN without images.

    Args:
        errors: of images that have judged pixels; leave others out.
    """
    means = errors.mean(0) if len(errors) else np.full(len(FIGURES), np.nan)
    return dict(zip(FIGURES, means.tolist()))
