"""What DINOv2's depth heads share: metric depth, its range, and a loss on valid pixels."""

from __future__ import annotations

from typing import Any

import torch
from mmseg.models.utils import resize
from torch import Tensor, nn

from ..errors import ConfigError

BIN_STRATEGIES = ("UD", "SID")
NORMALISATIONS = ("linear", "softmax", "sigmoid")


def bin_centres(count: int, low: float, high: float, strategy: str = "UD") -> Tensor:
    """Depths in metres that the classes stand for, ``(count,)`` float32, from low to high.

    Args:
        strategy: ``"UD"``, evenly spaced, or ``"SID"``, evenly spaced in the logarithm (Fu et al.:
            *Deep Ordinal Regression Network*, CVPR 2018). DINOv2's code would take powers of ten
            of the depths themselves for the latter; none of its released heads uses it.
    """
    if strategy == "UD":
        return torch.linspace(low, high, count)
    if strategy == "SID":
        ends = torch.tensor([low, high], dtype=torch.float64).log()
        return (
            torch.linspace(ends[0].item(), ends[1].item(), count, dtype=torch.float64).exp().float()
        )
    raise ConfigError(f"Expected bins_strategy to be one of {BIN_STRATEGIES}, got {strategy!r}.")


def expected_depth(logits: Tensor, centres: Tensor, normalisation: str = "linear") -> Tensor:
    """Mean depth under the distribution over bins (Bhat et al.: *AdaBins*, CVPR 2021).

    Args:
        logits: ``(B, bins, h, w)``; computed in float32.
        centres: ``(bins,)`` depths in metres.
        normalisation: from logits to probabilities: ``"linear"`` (relu, plus 0.1, divided by the
            sum), ``"softmax"`` or ``"sigmoid"`` (divided by the sum).

    Returns:
        ``(B, 1, h, w)`` metres.
    """
    logits = logits.float()
    if normalisation == "linear":
        weights = logits.relu() + 0.1
    elif normalisation == "softmax":
        weights = logits.softmax(1)
    elif normalisation == "sigmoid":
        weights = logits.sigmoid()
    else:
        raise ConfigError(
            f"Expected norm_strategy to be one of {NORMALISATIONS}, got {normalisation!r}."
        )
    # No matrix product: under autocast it would round the bins.
    weighted = (weights * centres.to(weights)[None, :, None, None]).sum(1, keepdim=True)
    return weighted / weights.sum(1, keepdim=True)


class DepthHeadMixin:
    """The parts of a ``BaseDecodeHead`` that differ for depth; comes before it in the bases.

    ``forward`` gives ``(B, 1, h, w)`` metres. Predictions are clamped to ``min_depth`` ..
    ``max_depth`` (metres) and then resized; the loss sees them unclamped, at pixels whose true
    depth lies within that range.
    """

    min_depth: float
    max_depth: float
    align_corners: bool
    loss_decode: Any

    def _set_range(self, min_depth: float, max_depth: float) -> None:
        if not 0 < min_depth < max_depth:
            raise ConfigError(
                "Expected 0 < min_depth < max_depth in metres, got "
                f"min_depth={min_depth}, max_depth={max_depth}."
            )
        self.min_depth, self.max_depth = float(min_depth), float(max_depth)

    def _regress(self, output: Tensor, scale_up: bool) -> Tensor:
        """Depth from one channel: at least ``min_depth``, or a share of ``max_depth``."""
        output = output.float()
        return output.sigmoid() * self.max_depth if scale_up else output.relu() + self.min_depth

    def _transform_inputs(self, inputs: Any) -> list:
        """The chosen ``[map, class token]`` pairs."""
        chosen = super()._transform_inputs(inputs)  # type: ignore[misc]
        for pair in chosen:
            if not isinstance(pair, (list, tuple)) or len(pair) != 2:
                raise ConfigError(
                    f"Expected [map, class token] pairs for {type(self).__name__}, got "
                    f"{type(pair).__name__}. Set output_cls_token=True on the backbone."
                )
        return chosen

    def predict_by_feat(self, depth: Tensor, batch_img_metas: list[dict]) -> Tensor:
        """Depth within the range, at the size of the image; see ``BaseDecodeHead``."""
        depth = depth.clamp(self.min_depth, self.max_depth)
        return super().predict_by_feat(depth, batch_img_metas)  # type: ignore[misc]

    def loss_by_feat(self, depth: Tensor, batch_data_samples: list) -> dict[str, Tensor]:
        """Losses over the valid pixels of ``gt_depth_map`` in a batch."""
        truth = torch.stack([sample.gt_depth_map.data for sample in batch_data_samples]).float()
        depth = resize(
            depth, size=truth.shape[2:], mode="bilinear", align_corners=self.align_corners
        )
        valid = (truth >= self.min_depth) & (truth <= self.max_depth)
        # Losses know pixels without a depth by a depth of zero; an image with none but those has
        # no loss, and no gradient that is not a number.
        some = valid.flatten(1).any(1)
        truth = torch.where(valid, truth, torch.zeros_like(truth))
        losses: dict[str, Tensor] = {}
        many = isinstance(self.loss_decode, nn.ModuleList)
        for loss in self.loss_decode if many else [self.loss_decode]:
            value = depth.sum() * 0
            if some.any():
                value = loss(depth[some], truth[some])
            name = loss.loss_name
            losses[name] = losses[name] + value if name in losses else value
        return losses
