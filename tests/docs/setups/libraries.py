"""``segformer``, ``vit`` and ``dinov2``: tiny models of transformers, timm and torch.hub."""

from __future__ import annotations

import timm
import torch

from tests.hub.models import DinoVisionTransformer
from tests.transformers import models


def setup(names: dict) -> None:
    """Bind them."""
    vit = timm.create_model("vit_tiny_patch16_224", embed_dim=16, depth=12, num_heads=2)
    names.update(
        segformer=models.segformer(),
        vit=vit.eval().requires_grad_(False),
        dinov2=DinoVisionTransformer().eval().requires_grad_(False),
        images=torch.randn(1, 3, 224, 224),
    )
