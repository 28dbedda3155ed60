"""DINOv2's DPT depth head."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mmseg.models.decode_heads import DPTHead
from mmseg.registry import MODELS
from torch import Tensor, nn

from .depth_head import DepthHeadMixin
from .dinov2_weights import WholeHead


@MODELS.register_module()
class DINOv2DPTDepthHead(WholeHead, DepthHeadMixin, DPTHead):
    """MMSegmentation's ``DPTHead`` with a regression of depth in place of its classifier.

    Four layers with their class tokens are reassembled at strides 3.5 to 28 (patch 14) and fused
    from coarse to fine; three convolutions and an enlargement by two give the depth, at 16 times
    the token grid. The released heads named ``dpt`` load by key (``decode_head.*``). (Ranftl et
    al.: *Vision Transformers for Dense Prediction*, ICCV 2021.)

    Args:
        embed_dims: channels of the backbone.
        post_process_channels: of the four reassembled maps; 1/8, 1/4, 1/2 and 1 times
            ``embed_dims`` where not given, as in the released heads.
        channels: of the fusion.
        hidden_channels: of the last 3 x 3 convolution.
        min_depth, max_depth: metres; the range of predictions.
        scale_up: depth is a sigmoid times ``max_depth``; otherwise a ReLU plus ``min_depth``.
        **keywords: those of ``DPTHead`` (``readout_type``, ``loss_decode``, ...).

    Inputs are four ``[map, class token]`` pairs: ``output_cls_token=True``, and
    ``final_norm=False`` for the released heads. ``forward`` gives ``(B, 1, 16 h, 16 w)`` metres.
    """

    def __init__(
        self,
        embed_dims: int,
        post_process_channels: Sequence[int] | None = None,
        channels: int = 256,
        hidden_channels: int = 32,
        min_depth: float = 0.001,
        max_depth: float = 10.0,
        scale_up: bool = False,
        readout_type: str = "project",
        norm_cfg: Any = None,
        loss_decode: Any = dict(type="SiLogLoss"),  # noqa: B006
        **keywords: Any,
    ) -> None:
        reassembled = post_process_channels or [embed_dims // 2**i for i in (3, 2, 1, 0)]
        super().__init__(
            embed_dims=embed_dims,
            post_process_channels=list(reassembled),
            readout_type=readout_type,
            in_channels=[embed_dims] * 4,
            in_index=[0, 1, 2, 3],
            input_transform="multiple_select",
            channels=channels,
            num_classes=1,
            threshold=0.5,  # of no use for depth; without it, a warning
            dropout_ratio=0.0,
            norm_cfg=norm_cfg,
            loss_decode=loss_decode,
            **{"init_cfg": None, **keywords},
        )
        del self.conv_seg
        self._set_range(min_depth, max_depth)
        self.scale_up = scale_up
        self.conv_depth = _Regression(channels, hidden_channels)

    def cls_seg(self, feat: Tensor) -> Tensor:
        """Depth from the fused features; what ``DPTHead.forward`` ends with."""
        return self._regress(self.conv_depth(feat), self.scale_up)


class _Regression(nn.Module):
    """From fused features to one channel, at twice their size."""

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        # Named as the released heads name it.
        self.head = nn.Sequential(
            nn.Conv2d(channels, channels // 2, 3, padding=1),
            nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True),
            nn.Conv2d(channels // 2, hidden, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(hidden, 1, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.head(x)
