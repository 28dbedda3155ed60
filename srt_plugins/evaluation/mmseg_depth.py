"""Checks of MMSegmentation's depth models and data, before any time is spent on them."""

from __future__ import annotations

from typing import Any

from mmseg.evaluation import DepthMetric
from mmseg.models.segmentors import DepthEstimator
from torch import Tensor, nn

from ..errors import ConfigError
from .depth import EIGEN_SIZE

# Images that are looked at.
_FIRST = 5


def check_depth(metric: DepthMetric, model: nn.Module, dataset: Any) -> list[str]:
    """Notes on how a depth model will be judged.

    Args:
        metric: of the test evaluator.
        model: of the config.
        dataset: packed test images.

    Raises:
        ConfigError: no depth model, a test mode that cannot be measured, or no depth to judge by.
    """
    if not isinstance(model, DepthEstimator):
        raise ConfigError(
            f"Expected a DepthEstimator with {type(metric).__name__}, got {type(model).__name__}; "
            "use IoUMetric for segmentation."
        )
    if not 0 <= metric.min_depth_eval < metric.max_depth_eval:
        raise ConfigError(
            "Expected 0 <= min_depth_eval < max_depth_eval in test_evaluator, got "
            f"min_depth_eval={metric.min_depth_eval}, max_depth_eval={metric.max_depth_eval}."
        )
    _check_mode(model)
    truths = [_truth(dataset[i]["data_samples"]) for i in range(min(_FIRST, len(dataset)))]
    judged = [truth[metric._get_eval_mask(truth)] for truth in truths]
    deepest = max((float(depths.max()) for depths in judged if depths.numel()), default=None)
    if deepest is None:
        known = [float(bound) for t in truths for bound in (t.min(), t.max())]
        raise ConfigError(
            f"Expected true depth between min_depth_eval={metric.min_depth_eval} and "
            f"max_depth_eval={metric.max_depth_eval} m, got none in the first {len(truths)} "
            f"images, whose depths are {min(known):.4g} to {max(known):.4g}; check "
            "depth_rescale_factor of LoadDepthAnnotation (metres per unit) and the range."
        )
    return _notes(metric, model, tuple(truths[0].shape), deepest)


def _check_mode(model: DepthEstimator) -> None:
    # MMSegmentation 1.2: after the windows it runs the whole image, with the size of a window.
    own = type(model).inference is DepthEstimator.inference
    if own and model.test_cfg.get("mode", "whole") == "slide":
        raise ConfigError(
            "Expected test_cfg.mode of a DepthEstimator to be 'whole' or 'slide_flip', got "
            "'slide': MMSegmentation computes the windows and then returns a whole-image result "
            "of a window's size; use --cfg-options model.test_cfg.mode=whole."
        )


def _truth(sample: Any) -> Tensor:
    if "gt_depth_map" not in sample:
        raise ConfigError(
            "Expected the test pipeline to load true depth, got samples without gt_depth_map; add "
            "dict(type='LoadDepthAnnotation', ...) to it (LoadScene(depth=True) for scenes)."
        )
    truth: Tensor = sample.gt_depth_map.data.squeeze()
    size = tuple(sample.metainfo.get("ori_shape", truth.shape))[:2]
    if tuple(truth.shape) != size:
        raise ConfigError(
            f"Expected gt_depth_map of the original size {size}, to which predictions are resized, "
            f"got {tuple(truth.shape)}; load depth after resizing the image."
        )
    return truth


def _notes(
    metric: DepthMetric, model: DepthEstimator, size: tuple[int, ...], deepest: float
) -> list[str]:
    found = []
    if metric.crop_type == "nyu_crop" and size != EIGEN_SIZE:
        found.append(
            f"depth: nyu_crop is made for {EIGEN_SIZE[0]} x {EIGEN_SIZE[1]} images; of {size[0]} x "
            f"{size[1]}, rows 45 to 470 and columns 41 to 600 are judged, as far as they go."
        )
    most = getattr(model.decode_head, "max_depth", None)
    if isinstance(most, (int, float)) and most < deepest:
        found.append(
            f"depth: the head predicts {most:g} m at most, and depth up to {deepest:.4g} m is "
            "judged; check max_depth of decode_head and max_depth_eval."
        )
    return found
