"""The model of `benchmarks.view_parallel`, and its table. What SRT costs in all: `srt bench`."""

from __future__ import annotations

import torch

import srt_plugins.mmseg  # noqa: F401  (makes mmseg importable with mmcv-lite)

SIZE = (368, 480)


def vit(width=384, depth=12, heads=6):
    """A ViT-S/16 of MMSegmentation with random weights."""
    from mmseg.models.backbones import VisionTransformer

    torch.manual_seed(0)
    backbone = VisionTransformer(
        img_size=(512, 512),
        patch_size=16,
        embed_dims=width,
        num_layers=depth,
        num_heads=heads,
        out_indices=(depth - 1,),
    )
    backbone.eval()
    return backbone


def table(rows, columns):
    lines = ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    for row in rows:
        cells = [f"{row[c]:.3f}" if isinstance(row[c], float) else str(row[c]) for c in columns]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)
