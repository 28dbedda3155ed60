"""``model`` and ``backbone``: tiny ViTs of timm; ``images``: a batch of three."""

from __future__ import annotations

import timm
import torch


def setup(names: dict) -> None:
    """Bind them."""
    names.update(model=_vit(), backbone=_vit(), images=torch.randn(3, 3, 48, 64))


def _vit():
    torch.manual_seed(0)
    small = dict(embed_dim=16, depth=2, num_heads=2, num_classes=5, dynamic_img_size=True)
    return timm.create_model("vit_tiny_patch16_224", **small).eval().requires_grad_(False)
