"""DINOv2's linear segmentation head."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mmseg.models.decode_heads.decode_head import BaseDecodeHead
from mmseg.registry import MODELS
from torch import Tensor, nn

from .dinov2_weights import WholeHead


@MODELS.register_module()
class DINOv2LinearHead(WholeHead, BaseDecodeHead):
    """Batch norm and a 1 x 1 convolution on the concatenated maps of one layer or several.

    The released heads named ``linear`` read the last layer, those named ``ms`` the last four;
    their ``decode_head.bn.*`` and ``decode_head.conv_seg.*`` load by key. DINOv2 synchronises the
    batch norm among processes in training; MMEngine's ``sync_bn="torch"`` does that here.

    Args:
        in_channels: channels of each map that is used.
        in_index: which of the backbone's outputs; None = the first, one for each of
            ``in_channels``.
        **keywords: those of ``BaseDecodeHead`` (``num_classes``, ``loss_decode``, ...).

    Inputs are maps of one size, normed (``final_norm=True``) for the released heads. ``forward``
    gives ``(B, num_classes, h, w)`` logits.
    """

    def __init__(
        self, in_channels: Sequence[int], in_index: Sequence[int] | None = None, **keywords: Any
    ) -> None:
        super().__init__(
            in_channels=list(in_channels),
            in_index=list(in_index or range(len(in_channels))),
            channels=sum(in_channels),
            input_transform="resize_concat",
            **{"dropout_ratio": 0.0, **keywords},
        )
        self.bn = nn.BatchNorm2d(self.channels)

    def forward(self, inputs: Sequence[Tensor]) -> Tensor:
        """Logits of every token; see the class docstring."""
        return self.cls_seg(self.bn(self._transform_inputs(inputs)))
