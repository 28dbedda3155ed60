"""A head for linear probes of frozen features."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from detectron2.config import CfgNode, configurable
from detectron2.layers import ShapeSpec
from detectron2.modeling import SEM_SEG_HEADS_REGISTRY
from torch import Tensor, nn
from torch.nn import functional as F

from ..errors import ConfigError


@SEM_SEG_HEADS_REGISTRY.register()
class LinearSemSegHead(nn.Module):
    """One 1x1 convolution from a backbone's feature maps to class logits.

    Maps of several strides are resized (bilinear) to the finest one and concatenated.
    """

    @configurable
    def __init__(
        self,
        input_shape: Mapping[str, ShapeSpec],
        *,
        num_classes: int,
        ignore_value: int = 255,
        loss_weight: float = 1.0,
    ) -> None:
        """From a config: ``MODEL.SEM_SEG_HEAD.{IN_FEATURES, NUM_CLASSES, IGNORE_VALUE,
        LOSS_WEIGHT}``.

        Args:
            input_shape: channels and stride (pixels) of each feature map to read.
            num_classes: number of classes.
            ignore_value: label of the pixels that are left out of the loss.
            loss_weight: factor of the loss.

        Raises:
            ConfigError: no feature map, or a name that the backbone does not give.
        """
        super().__init__()
        if not input_shape:
            raise ConfigError("Expected input_shape to hold at least one feature map, got none.")
        ordered = sorted(input_shape.items(), key=lambda item: item[1].stride)
        self.in_features = [name for name, _ in ordered]
        self.stride = int(ordered[0][1].stride)
        self.ignore_value = ignore_value
        self.loss_weight = loss_weight
        channels = sum(shape.channels for _, shape in ordered)
        self.predictor = nn.Conv2d(channels, num_classes, kernel_size=1)
        # Frozen features can be large, so a probe starts from small weights.
        nn.init.normal_(self.predictor.weight, std=0.01)

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: Mapping[str, ShapeSpec]) -> dict[str, Any]:
        """The arguments of ``__init__`` from a config and ``backbone.output_shape()``."""
        head = cfg.MODEL.SEM_SEG_HEAD
        unknown = [name for name in head.IN_FEATURES if name not in input_shape]
        if unknown:
            raise ConfigError(
                f"Expected cfg.MODEL.SEM_SEG_HEAD.IN_FEATURES to be among the backbone's feature "
                f"maps {list(input_shape)}, got {unknown[0]!r}."
            )
        return {
            "input_shape": {name: input_shape[name] for name in head.IN_FEATURES},
            "num_classes": head.NUM_CLASSES,
            "ignore_value": head.IGNORE_VALUE,
            "loss_weight": head.LOSS_WEIGHT,
        }

    def forward(
        self, features: Mapping[str, Tensor], targets: Tensor | None = None
    ) -> tuple[Tensor | None, dict[str, Tensor]]:
        """Logits or losses, as ``SemSegFPNHead`` returns them.

        Args:
            features: maps ``(N, C_i, h_i, w_i)`` by name.
            targets: labels ``(N, H, W)`` of the padded images, int64; training only.

        Returns:
            In training ``(None, {"loss_sem_seg": loss})``, else ``(logits, {})`` with logits
            ``(N, num_classes, stride * h, stride * w)`` of the finest map.
        """
        logits = self.layers(features)
        if self.training:
            return None, self.losses(logits, targets)
        return self._upsampled(logits), {}

    def layers(self, features: Mapping[str, Tensor]) -> Tensor:
        """Logits ``(N, num_classes, h, w)`` at the stride of the finest map."""
        maps = [features[name] for name in self.in_features]
        size = maps[0].shape[-2:]
        resized = [
            F.interpolate(m, size=size, mode="bilinear", align_corners=False)
            if m.shape[-2:] != size
            else m
            for m in maps
        ]
        return self.predictor(torch.cat(resized, dim=1))

    def losses(self, logits: Tensor, targets: Tensor | None) -> dict[str, Tensor]:
        """Cross entropy at full resolution, mean over the pixels that are not ignored."""
        if targets is None:
            raise ConfigError(
                "Expected targets in training mode, got none; the dataset mapper must give "
                "'sem_seg' (dicts with 'sem_seg_file_name')."
            )
        height, width = targets.shape[-2:]
        # A backbone that completes partial patches covers a little more than the image.
        logits = self._upsampled(logits.float())[..., :height, :width]
        if logits.shape[-2:] != targets.shape[-2:]:
            raise ConfigError(
                f"Expected maps of stride {self.stride} to cover the {height}x{width} padded "
                f"images, got logits of {logits.shape[-2]}x{logits.shape[-1]}; give the backbone a "
                f"size_divisibility of {self.stride}."
            )
        loss = F.cross_entropy(logits, targets, ignore_index=self.ignore_value)
        return {"loss_sem_seg": loss * self.loss_weight}

    def _upsampled(self, logits: Tensor) -> Tensor:
        return F.interpolate(
            logits, scale_factor=float(self.stride), mode="bilinear", align_corners=False
        )
