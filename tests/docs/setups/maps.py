"""``backbone``: a tiny ViT of timm that returns a list of maps; ``images``: a batch of one."""

from __future__ import annotations

import timm
import torch


def setup(names: dict) -> None:
    """Bind them."""
    small = dict(embed_dim=16, depth=3, num_heads=2, img_size=(48, 64), features_only=True)
    names["backbone"] = timm.create_model("vit_tiny_patch16_224", **small).eval()
    names["images"] = torch.randn(1, 3, 48, 64)
