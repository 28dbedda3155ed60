"""Small real modules for tests that need no framework."""

from __future__ import annotations

import torch
from torch import nn


class PatchBackbone(nn.Module):
    """Patches to tokens with a position term; completes partial patches, or drops them."""

    def __init__(self, patch=8, channels=4, partial="ceil"):
        super().__init__()
        torch.manual_seed(0)
        self.patch = patch
        self.partial = partial
        self.embed = nn.Conv2d(3, channels, patch, patch)
        self.position = nn.Parameter(torch.randn(channels, 64, 64))
        self.register_buffer("steps", torch.zeros((), dtype=torch.long))

    def forward(self, images):
        h, w = images.shape[-2:]
        if self.partial == "ceil":
            images = nn.functional.pad(images, (0, -w % self.patch, 0, -h % self.patch))
        tokens = torch.tanh(self.embed(images))
        return tokens + self.position[:, : tokens.shape[2], : tokens.shape[3]].to(tokens)


class PairBackbone(PatchBackbone):
    """A coarse and a fine grid, and an image-level token, in a dict."""

    def forward(self, images):
        tokens = super().forward(images)
        fine = nn.functional.avg_pool2d(images, self.patch // 2)
        return {"coarse": tokens, "deep": [fine, tokens.mean((2, 3))]}


class Model(nn.Module):
    """A backbone and a head, as frameworks put them together."""

    def __init__(self, backbone=None):
        super().__init__()
        self.backbone = backbone or PatchBackbone()
        self.head = nn.Conv2d(4, 2, 1)

    def forward(self, images):
        return self.head(self.backbone(images))
