"""What tiny random models of transformers share."""

from __future__ import annotations

import torch
import transformers
from torch import nn

transformers.logging.set_verbosity_error()

VIT = dict(
    hidden_size=16,
    num_hidden_layers=4,
    num_attention_heads=2,
    intermediate_size=32,
    image_size=48,
    patch_size=8,
)
SWIN = dict(embed_dim=8, depths=[1, 2, 1, 1], num_heads=[1, 2, 2, 4], window_size=3)
STAGES = dict(hidden_sizes=[8, 16, 16, 32], depths=[1, 2, 1, 1])


def config(name, **keywords):
    """A configuration by the name of its class; the attention is one that can return its maps."""
    cls = getattr(transformers, f"{name}Config")
    return cls(**{"attn_implementation": "eager", **keywords})


def dinov2(num_hidden_layers=4, **keywords):
    own = dict(mlp_ratio=2, image_size=56, patch_size=14, num_hidden_layers=num_hidden_layers)
    every = list(range(1, num_hidden_layers + 1))
    return config("Dinov2", **{**VIT, **own, "out_indices": every, **keywords})


def lively(model):
    """The model in eval mode with weights that all count: as built, they are next to zero."""
    generator = torch.Generator().manual_seed(0)

    def random(tensor, std):
        return torch.randn(tensor.shape, generator=generator) * std

    with torch.no_grad():
        for name, p in model.named_parameters():
            if p.ndim > 1 and "position" not in name and "pos_embed" not in name:
                p.copy_(random(p, (p.numel() / len(p)) ** -0.5 if len(p) else 1))
            else:
                p.add_(random(p, 0.2))
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                nn.init.uniform_(module.running_var, 0.5, 1.5)
    return model.eval()


def images(size, batch=1, seed=1):
    return torch.randn(batch, 3, *size, generator=torch.Generator().manual_seed(seed))
