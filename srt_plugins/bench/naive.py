"""What one would write first: every view upsampled to pixels, rolled back and summed up there."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

Translation = tuple[int, int]


def mean_of(features: Iterable[tuple[Tensor, Translation]], stride: int) -> Tensor:
    """Pixel mean ``(B, C, H, W)`` in float32 over views.

    Args:
        features: ``(B, C, h, w)`` of each view, with its translation in pixels.
        stride: pixels per token.
    """
    total, count = None, 0
    for tokens, (dy, dx) in features:
        pixels = F.interpolate(tokens, scale_factor=stride, mode="nearest")
        pixels = torch.roll(pixels, (-dy, -dx), (-2, -1))
        if total is None:
            total = torch.zeros_like(pixels, dtype=torch.float32)
        total += pixels
        count += 1
    assert total is not None
    total /= count
    return total


def run(
    backbone: Callable[[Tensor], list[Tensor]],
    images: Tensor,
    translations: Iterable[Translation],
    stride: int,
) -> Tensor:
    """The same with the forwards, one view at a time."""
    views = ((torch.roll(images, (dy, dx), (-2, -1)), (dy, dx)) for dy, dx in translations)
    return mean_of(((backbone(view)[0], shift) for view, shift in views), stride)
