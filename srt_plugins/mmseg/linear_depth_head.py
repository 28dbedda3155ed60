"""DINOv2's linear depth head: one 1 x 1 convolution from tokens to bins of depth."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from mmseg.models.decode_heads.decode_head import BaseDecodeHead
from mmseg.models.utils import resize
from mmseg.registry import MODELS
from torch import Tensor, nn

from .depth_head import DepthHeadMixin, bin_centres, expected_depth
from .dinov2_weights import WholeHead


@MODELS.register_module()
class DINOv2LinearDepthHead(WholeHead, DepthHeadMixin, BaseDecodeHead):
    """Depth as a mean over bins, from one layer or several, each with its class token.

    The class token is put beside every patch token, the maps are enlarged by ``upsample`` and a
    1 x 1 convolution scores the bins. The released heads named ``linear`` read one layer, those
    named ``linear4`` four; their ``decode_head.conv_depth.*`` load by key.

    Args:
        in_channels: channels of each map that is used.
        in_index: which of the backbone's outputs; None = the first, one for each of
            ``in_channels``.
        min_depth, max_depth: metres; the range of the bins and of predictions.
        n_bins, bins_strategy, norm_strategy: see :func:`.depth_head.bin_centres` and
            :func:`.depth_head.expected_depth`.
        classify: score bins; otherwise one channel is the depth itself.
        scale_up: without bins, a sigmoid times ``max_depth``; otherwise a ReLU plus ``min_depth``.
        upsample: enlargement of the token grid before the convolution.
        **keywords: those of ``BaseDecodeHead`` (``loss_decode``, ``align_corners``, ...).

    Inputs are ``[map, class token]`` pairs: ``output_cls_token=True``, and ``final_norm=False``
    for the released heads. ``forward`` gives ``(B, 1, 4 h, 4 w)`` metres, float32.
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        in_index: Sequence[int] | None = None,
        min_depth: float = 0.001,
        max_depth: float = 10.0,
        n_bins: int = 256,
        bins_strategy: str = "UD",
        norm_strategy: str = "linear",
        classify: bool = True,
        scale_up: bool = False,
        upsample: int = 4,
        loss_decode: Any = dict(type="SiLogLoss"),  # noqa: B006
        **keywords: Any,
    ) -> None:
        channels = 2 * sum(in_channels)
        super().__init__(
            in_channels=list(in_channels),
            channels=channels,
            in_index=list(in_index or range(len(in_channels))),
            input_transform="multiple_select",
            num_classes=1,
            threshold=0.5,  # of no use for depth; without it, a warning
            dropout_ratio=0.0,
            loss_decode=loss_decode,
            **{"init_cfg": None, **keywords},
        )
        del self.conv_seg
        self._set_range(min_depth, max_depth)
        self.classify, self.scale_up = classify, scale_up
        self.norm_strategy, self.upsample = norm_strategy, upsample
        centres = bin_centres(n_bins, min_depth, max_depth, bins_strategy)
        expected_depth(torch.zeros(1, n_bins, 1, 1), centres, norm_strategy)  # its checks
        self.register_buffer("bins", centres, persistent=False)
        self.conv_depth = nn.Conv2d(channels, n_bins if classify else 1, 1)

    def forward(self, inputs: Sequence[Sequence[Tensor]]) -> Tensor:
        """Depth from ``[map, class token]`` pairs; see the class docstring."""
        maps = [
            torch.cat([grid, token[:, :, None, None].expand_as(grid)], 1)
            for grid, token in self._transform_inputs(inputs)
        ]
        # DINOv2 enlarges first. A 1 x 1 convolution and a bilinear enlargement commute, and this
        # way round costs a fraction.
        logits = self.conv_depth(torch.cat(maps, 1))
        size = [n * self.upsample for n in logits.shape[2:]]
        logits = resize(logits, size=size, mode="bilinear", align_corners=self.align_corners)
        if self.classify:
            return expected_depth(logits, self.bins, self.norm_strategy)
        return self._regress(logits, self.scale_up)
