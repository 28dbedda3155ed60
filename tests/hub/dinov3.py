"""A small vision transformer built as DINOv3's on torch.hub is."""

from __future__ import annotations

import torch
from torch import nn

from tests.hub.models import PATCH, Base


class DinoVisionTransformer(Base):
    """Its blocks get positions, and lists of batches where whole features are asked for."""

    def __init__(self):
        super().__init__(depth=3)
        self.patch_size = PATCH
        self.n_storage_tokens = 2
        self.chunked_blocks = False
        self.storage_tokens = nn.Parameter(torch.randn(1, 2, 12))

    def prepare_tokens_with_masks(self, x, masks=None):
        prefix = torch.cat([self.cls_token, self.storage_tokens], 1)
        return torch.cat([prefix.expand(len(x), -1, -1), self.tokens(x)], 1), x.shape[-2:]

    def forward_features_list(self, images, masks):
        prepared = [self.prepare_tokens_with_masks(x) for x in images]
        x = [tokens for tokens, _ in prepared]
        for block in self.blocks:
            x = block(x, [size for _, size in prepared])
        return [
            {
                "x_norm_clstoken": self.norm(one)[:, 0],
                "x_storage_tokens": self.norm(one)[:, 1:3],
                "x_norm_patchtokens": self.norm(one)[:, 3:],
                "x_prenorm": one,
                "masks": None,
            }
            for one in x
        ]

    def forward_features(self, x, masks=None):
        if isinstance(x, torch.Tensor):
            return self.forward_features_list([x], [masks])[0]
        return self.forward_features_list(x, masks)

    def get_intermediate_layers(
        self,
        x,
        *,
        n=1,
        reshape=False,
        return_class_token=False,
        return_extra_tokens=False,
        norm=True,
    ):
        grid = [size // PATCH for size in x.shape[-2:]]
        (x, size), every = self.prepare_tokens_with_masks(x), []
        for block in self.blocks:
            x = block(x, size)
            every.append(self.norm(x) if norm else x)
        found = []
        for full in every[-n:] if isinstance(n, int) else [every[i] for i in n]:
            maps = full[:, 3:]
            if reshape:
                maps = maps.unflatten(1, grid).permute(0, 3, 1, 2).contiguous()
            wanted = {full[:, 0]: return_class_token, full[:, 1:3]: return_extra_tokens}
            found.append((maps, *(tokens for tokens, asked in wanted.items() if asked)))
        return tuple(one if len(one) > 1 else one[0] for one in found)

    def forward(self, *args, is_training=False, **kwargs):
        found = self.forward_features(*args, **kwargs)
        return found if is_training else self.head(found["x_norm_clstoken"])
