"""Small vision transformers built as DINO's and DINOv2's on torch.hub are."""

from __future__ import annotations

from functools import partial

import torch
from torch import nn
from torch.nn import functional as F

PATCH = 8


class Block(nn.Module):
    """Attention and a layer after it; on one batch, or on a list of batches."""

    def __init__(self, width=12, heads=2):
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.mlp = nn.Linear(width, width)

    def forward(self, x, *sizes, return_attention=False):
        if isinstance(x, list):
            return [self.one(batch) for batch in x]
        return self.one(x, return_attention)

    def one(self, x, return_attention=False):
        q, k, v = self.qkv(self.norm(x)).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        weights = (q @ k.transpose(2, 3)).softmax(-1)
        if return_attention:
            return weights
        x = x + (weights @ v).transpose(1, 2).flatten(2)
        return x + torch.tanh(self.mlp(x))


class Embed(nn.Module):
    """Patches as a sequence."""

    def __init__(self, width=12, whole=True):
        super().__init__()
        self.patch_size = PATCH
        self.whole = whole
        self.proj = nn.Conv2d(3, width, PATCH, PATCH)

    def forward(self, x):
        if self.whole:
            assert not any(n % PATCH for n in x.shape[-2:]), "images of whole patches"
        return self.proj(x).flatten(2).transpose(1, 2)


class Base(nn.Module):
    """Patches with positions, of images of other sizes too."""

    def __init__(self, depth=3, whole=True):
        super().__init__()
        torch.manual_seed(0)
        self.patch_embed = Embed(whole=whole)
        self.cls_token = nn.Parameter(torch.randn(1, 1, 12))
        self.blocks = nn.ModuleList(Block() for _ in range(depth))
        self.norm = nn.LayerNorm(12)
        self.head = nn.Identity()
        self.position = nn.Parameter(torch.randn(1, 12, 12, 16))

    def tokens(self, x):
        grid = [n // PATCH for n in x.shape[-2:]]
        position = F.interpolate(self.position, grid).flatten(2).transpose(1, 2)
        return self.patch_embed(x) + position


class VisionTransformer(Base):
    """As DINO's."""

    def __init__(self):
        super().__init__(whole=False)

    def prepare_tokens(self, x):
        return torch.cat([self.cls_token.expand(len(x), -1, -1), self.tokens(x)], 1)

    def forward(self, x):
        return self.head(self.get_intermediate_layers(x)[0][:, 0])

    def get_intermediate_layers(self, x, n=1):
        x, found = self.prepare_tokens(x), []
        for block in self.blocks:
            x = block(x)
            found.append(self.norm(x))
        return found[-n:]

    def get_last_selfattention(self, x):
        x = self.prepare_tokens(x)
        for block in self.blocks[:-1]:
            x = block(x)
        return self.blocks[-1](x, return_attention=True)


class Chunk(nn.ModuleList):
    def forward(self, x):
        for block in self:
            x = block(x)
        return x


class DinoVisionTransformer(Base):
    """As DINOv2's, with registers or without, its blocks in chunks or not."""

    def __init__(self, num_register_tokens=0, chunks=0):
        super().__init__(depth=4)
        self.patch_size = PATCH
        self.num_register_tokens = num_register_tokens
        self.register_tokens = nn.Parameter(torch.randn(1, num_register_tokens, 12))
        self.chunked_blocks = chunks > 0
        if chunks:  # indices go on over the chunks, behind as many identities
            blocks, size = list(self.blocks), 4 // chunks
            starts = range(0, 4, size)
            self.blocks = nn.ModuleList(
                Chunk([nn.Identity()] * i + blocks[i : i + size]) for i in starts
            )

    def prepare_tokens_with_masks(self, x, masks=None):
        prefix = torch.cat([self.cls_token, self.register_tokens], 1)
        return torch.cat([prefix.expand(len(x), -1, -1), self.tokens(x)], 1)

    def run(self, x):
        """What every block returns."""
        found = []
        for part in self.blocks:
            for block in part if self.chunked_blocks else [part]:
                if not isinstance(block, nn.Identity):
                    x = block(x)
                    found.append(x)
        return found

    def forward_features(self, x, masks=None):
        x = self.run(self.prepare_tokens_with_masks(x, masks))[-1]
        first, normed = 1 + self.num_register_tokens, self.norm(x)
        return {
            "x_norm_clstoken": normed[:, 0],
            "x_norm_regtokens": normed[:, 1:first],
            "x_norm_patchtokens": normed[:, first:],
            "x_prenorm": x,
            "masks": None,
        }

    def get_intermediate_layers(self, x, n=1, reshape=False, return_class_token=False, norm=True):
        grid = [size // PATCH for size in x.shape[-2:]]
        every = self.run(self.prepare_tokens_with_masks(x))
        chosen = every[-n:] if isinstance(n, int) else [every[i] for i in n]
        chosen = [self.norm(x) if norm else x for x in chosen]
        maps = [x[:, 1 + self.num_register_tokens :] for x in chosen]
        if reshape:
            maps = [x.unflatten(1, grid).permute(0, 3, 1, 2).contiguous() for x in maps]
        if return_class_token:
            return tuple((x, full[:, 0]) for x, full in zip(maps, chosen))
        return tuple(maps)

    def forward(self, *args, is_training=False, **kwargs):
        found = self.forward_features(*args, **kwargs)
        return found if is_training else self.head(found["x_norm_clstoken"])


class CenterPadding(nn.Module):
    """Zeros around an image, up to whole patches."""

    def forward(self, module, args):
        (x,) = args
        missing = [-n % PATCH for n in x.shape[-2:]]
        (top, bottom), (left, right) = ((n // 2, n - n // 2) for n in missing)
        return F.pad(x, (left, right, top, bottom))


class Depther(nn.Module):
    """A backbone whose forward is another of its methods, and a head on its maps."""

    def __init__(self):
        super().__init__()
        self.backbone = DinoVisionTransformer(num_register_tokens=2)
        self.backbone.forward = partial(
            self.backbone.get_intermediate_layers,
            n=[1, 3],
            reshape=True,
            return_class_token=True,
            norm=False,
        )
        self.backbone.register_forward_pre_hook(CenterPadding())
        self.decode_head = nn.Conv2d(24, 1, 1)

    def forward(self, x):
        maps = [m + token[:, :, None, None] for m, token in self.backbone(x)]
        depth = self.decode_head(torch.cat(maps, 1))
        return F.interpolate(depth, x.shape[-2:], mode="bilinear")
