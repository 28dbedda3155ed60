"""Calibration of MMSegmentation's data samples."""

from __future__ import annotations

from typing import Any

import torch
from mmseg.models.decode_heads.decode_head import BaseDecodeHead
from torch import Tensor, nn

from ..errors import ConfigError
from .calibration import doubt
from .calibration_run import Collected
from .mmseg_metrics import DepthCollector


def check_head(model: nn.Module) -> None:
    """Raise :class:`ConfigError` unless the logits of a model are those of a softmax or sigmoid."""
    head: Any = getattr(model, "decode_head", None)
    head = head[-1] if isinstance(head, nn.ModuleList) else head
    if not isinstance(head, BaseDecodeHead):
        raise ConfigError(
            f"Expected a decode head with a logit per class and pixel for calibration, got "
            f"{type(head).__name__}, whose scores are no logits; leave calibration out."
        )


def add_sample(collected: Collected, collector: Any, sample: Any) -> None:
    """Judge a data sample by the pixels that its metric counts."""
    dispersion = sample.srt_dispersion.data[0] if "srt_dispersion" in sample else None
    if isinstance(collector, DepthCollector):
        predicted = sample.pred_depth_map.data.squeeze()
        truth = sample.gt_depth_map.data.squeeze().to(predicted)
        judged = collector.source._get_eval_mask(truth)
        error = (predicted - truth).double().square()
        collected.add(error, judged, None, dispersion, root=True, depth=predicted)
        return
    predicted = sample.pred_sem_seg.data.squeeze()
    truth = sample.gt_sem_seg.data.squeeze().to(predicted)
    judged = truth != collector.source.ignore_index
    collected.add(predicted != truth, judged, _doubt(sample, predicted), dispersion)


def _doubt(sample: Any, predicted: Tensor) -> Tensor:
    logits = sample.seg_logits.data
    if len(logits) > 1:
        return doubt(logits)
    # MMSegmentation has put a single channel through the sigmoid already.
    one = logits[0].double()
    return torch.where(predicted.bool(), 1 - one, one)
