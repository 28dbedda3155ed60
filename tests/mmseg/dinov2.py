"""Names and shapes of DINOv2's released checkpoints, and tiny models of that shape."""

from __future__ import annotations

import torch

# Width, depth, gated feed-forward; every released head of the depth and segmentation benchmarks
# reads the blocks in `taps` (four layers) or the last one.
SIZES = {
    "vits14": dict(width=384, depth=12, gated=False, taps=(2, 5, 8, 11)),
    "vitb14": dict(width=768, depth=12, gated=False, taps=(2, 5, 8, 11)),
    "vitl14": dict(width=1024, depth=24, gated=False, taps=(4, 11, 17, 23)),
    "vitg14": dict(width=1536, depth=40, gated=True, taps=(9, 19, 29, 39)),
}
TINY = dict(type="DINOv2", arch=None, embed_dim=16, depth=3, num_heads=2, img_size=56)
TINY_SHAPE = dict(width=16, depth=3, gated=False, side=4)


def backbone_shapes(width, depth, gated=False, registers=0, side=37, **_):
    """Keys and shapes of a ``dinov2_*_pretrain.pth``."""
    c = width
    shapes = {
        "cls_token": (1, 1, c),
        "pos_embed": (1, 1 + side * side, c),
        "mask_token": (1, c),
        "patch_embed.proj.weight": (c, 3, 14, 14),
        "patch_embed.proj.bias": (c,),
        "norm.weight": (c,),
        "norm.bias": (c,),
    }
    if registers:
        shapes["register_tokens"] = (1, registers, c)
    hidden = (c * 8 // 3 + 7) // 8 * 8
    mlp = {"fc1": (4 * c, c), "fc2": (c, 4 * c)}
    if gated:
        mlp = {"w12": (2 * hidden, c), "w3": (c, hidden)}
    for i in range(depth):
        linear = {"attn.qkv": (3 * c, c), "attn.proj": (c, c)}
        linear.update({f"mlp.{name}": shape for name, shape in mlp.items()})
        for name, (out, inner) in linear.items():
            shapes[f"blocks.{i}.{name}.weight"] = (out, inner)
            shapes[f"blocks.{i}.{name}.bias"] = (out,)
        for name in ("norm1.weight", "norm1.bias", "norm2.weight", "norm2.bias"):
            shapes[f"blocks.{i}.{name}"] = (c,)
        for name in ("ls1.gamma", "ls2.gamma"):
            shapes[f"blocks.{i}.{name}"] = (c,)
    return shapes


def linear_depth_shapes(width, layers, bins=256):
    """Keys and shapes of a ``*_linear_head.pth`` (one layer) or ``*_linear4_head.pth``."""
    return {
        "decode_head.conv_depth.weight": (bins, 2 * width * layers, 1, 1),
        "decode_head.conv_depth.bias": (bins,),
    }


def dpt_shapes(width, channels=256, stages=None, hidden=32):
    """Keys and shapes of a ``*_dpt_head.pth``."""
    f = channels
    stages = stages or [width // 8, width // 4, width // 2, width]
    shapes = {}
    for i, c in enumerate(stages):
        shapes[f"reassemble_blocks.projects.{i}.conv.weight"] = (c, width, 1, 1)
        shapes[f"reassemble_blocks.projects.{i}.conv.bias"] = (c,)
        shapes[f"reassemble_blocks.readout_projects.{i}.0.weight"] = (width, 2 * width)
        shapes[f"reassemble_blocks.readout_projects.{i}.0.bias"] = (width,)
        shapes[f"convs.{i}.conv.weight"] = (f, c, 3, 3)
        shapes[f"fusion_blocks.{i}.project.conv.weight"] = (f, f, 1, 1)
        shapes[f"fusion_blocks.{i}.project.conv.bias"] = (f,)
        for unit in (1, 2) if i else (2,):  # the coarsest map has nothing to be fused with
            for conv in (1, 2):
                name = f"fusion_blocks.{i}.res_conv_unit{unit}.conv{conv}.conv.weight"
                shapes[name] = (f, f, 3, 3)
    for i, kernel in ((0, 4), (1, 2), (3, 3)):
        shapes[f"reassemble_blocks.resize_layers.{i}.weight"] = (stages[i],) * 2 + (kernel,) * 2
        shapes[f"reassemble_blocks.resize_layers.{i}.bias"] = (stages[i],)
    shapes.update({"project.conv.weight": (f, f, 3, 3), "project.conv.bias": (f,)})
    for i, (out, inner, kernel) in {
        0: (f // 2, f, 3),
        2: (hidden, f // 2, 3),
        4: (1, hidden, 1),
    }.items():
        shapes[f"conv_depth.head.{i}.weight"] = (out, inner, kernel, kernel)
        shapes[f"conv_depth.head.{i}.bias"] = (out,)
    return {f"decode_head.{key}": shape for key, shape in shapes.items()}


def linear_seg_shapes(width, layers, classes):
    """Keys and shapes of a ``*_ade20k_linear_head.pth``, ``*_voc2012_ms_head.pth``, ..."""
    c = width * layers
    shapes = {"decode_head.conv_seg.weight": (classes, c, 1, 1)}
    shapes["decode_head.conv_seg.bias"] = (classes,)
    for name in ("weight", "bias", "running_mean", "running_var"):
        shapes[f"decode_head.bn.{name}"] = (c,)
    shapes["decode_head.bn.num_batches_tracked"] = ()
    return shapes


def hollow(shapes):
    """Tensors of these shapes that hold one number each, in memory and on disk."""
    return {key: torch.zeros(()).expand(shape) for key, shape in shapes.items()}


def random(shapes, seed=0):
    """Random weights of these shapes, of a size that a deep model bears."""
    generator = torch.Generator().manual_seed(seed)
    made = {}
    for key, shape in shapes.items():
        if not shape:
            made[key] = torch.tensor(1)
            continue
        noise = torch.randn(shape, generator=generator)
        fan = max(1, noise[0].numel()) if len(shape) > 1 and "token" not in key else 10
        made[key] = noise * fan**-0.5
        if "running_var" in key:
            made[key] = made[key].abs() + 0.5
        elif key.endswith(("gamma", "norm1.weight", "norm2.weight", "norm.weight", "bn.weight")):
            made[key] += 1
    return made
