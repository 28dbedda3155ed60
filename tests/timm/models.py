"""Tiny random models of timm, and what they are known to look like."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any, Callable

import timm
import torch
from timm.models.hiera import Hiera
from timm.models.mvitv2 import MultiScaleVit, MultiScaleVitCfg
from torch import nn

ODD = (61, 77)
WIDE = (48, 64)  # whole patches of 16
COARSE = (64, 96)  # whole cells of 32
SQUARE = (64, 64)


@dataclass(frozen=True)
class Call:
    """One way to ask a model for features, and what each tensor that it returns holds."""

    entry: str
    keywords: dict[str, Any]
    readings: tuple[str, ...]

    def __call__(self, model: nn.Module, image: torch.Tensor) -> Any:
        with torch.no_grad():
            return getattr(model, self.entry)(image, **self.keywords)


@dataclass(frozen=True)
class Case:
    """How to make a model, and the facts that its adapter must find out by itself."""

    make: Callable[[], nn.Module]
    strides: tuple[int, ...]
    calls: tuple[Call, ...]
    sizes: tuple[tuple[int, int], ...]
    multiple: int | None = None
    prefix: int = 0
    blocks: int = 0
    layout: str = "NLC"
    middle: str | None = None
    floors: bool = False


def calls(final, maps, *more):
    """What every model can be asked for: final features, and the maps of its stages or blocks."""
    return (
        Call("forward_features", {}, (final,)),
        Call("forward_intermediates", {}, (final, *maps)),
        Call("forward_intermediates", dict(indices=[0], intermediates_only=True), (maps[0],)),
        *more,
    )


def asked(patch, ways):
    """What a ViT of two blocks can be asked for beside that."""
    maps, tokens, final = f"NCHW/{patch}", f"patches/{patch}", f"tokens/{patch}"
    only, prefix = dict(intermediates_only=True), dict(return_prefix_tokens=True)
    every = {
        "NLC": Call("forward_intermediates", dict(output_fmt="NLC", **only), (tokens, tokens)),
        "prefix": Call("forward_intermediates", {**prefix, **only}, (maps, "pooled") * 2),
        "dict": Call(
            "forward_intermediates",
            dict(output_dict=True, **prefix),
            (maps, maps, "pooled", "pooled", final),
        ),
        "dict-only": Call("forward_intermediates", dict(output_dict=True, **only), (maps, maps)),
        "maps": Call(
            "get_intermediate_layers", dict(n=2, reshape=True, **prefix), (maps, "pooled") * 2
        ),
        "tokens": Call("get_intermediate_layers", dict(n=[0], norm=True), (tokens,)),
    }
    return [every[way] for way in ways.split()]


def create(name, **keywords):
    return partial(timm.create_model, name, num_classes=5, **keywords)


def vit(name, patch=16, prefix=1, sizes=(WIDE,), ways="NLC", multiple=None, blocks=2, **keywords):
    return Case(
        create(name, embed_dim=16, depth=2, num_heads=2, **keywords),
        (patch,),
        calls(f"tokens/{patch}", (f"NCHW/{patch}",) * 2, *asked(patch, ways)),
        sizes,
        multiple,
        prefix,
        blocks,
        middle="blocks.0" if blocks else None,
    )


def maps(strides, layout="NCHW"):
    return tuple(f"{layout}/{s}" for s in strides)


def staged(make, final, *more, strides=(4, 8, 16, 32), sizes=(COARSE, ODD), **facts):
    return Case(make, strides, calls(final, maps(strides), *more), sizes, **facts)


def swin(name, **keywords):
    widths = dict(embed_dim=8, depths=(1, 2, 1, 1), num_heads=(1, 1, 2, 2), window_size=4)
    return create(name, **{**widths, "img_size": 64, "strict_img_size": False, **keywords})


def mvit():
    cfg = MultiScaleVitCfg(depths=(1, 2, 1, 1), embed_dim=(8, 8, 16, 16), num_heads=(1, 1, 2, 2))
    return MultiScaleVit(cfg, img_size=96, num_classes=5)


def mvit_cls():
    cfg = MultiScaleVitCfg(
        depths=(1, 1, 1, 1),
        embed_dim=(8, 8, 16, 16),
        num_heads=(1, 1, 2, 2),
        use_cls_token=True,
        use_abs_pos=True,
        rel_pos_type="none",
    )
    return MultiScaleVit(cfg, img_size=64, num_classes=5)


def hiera():
    return Hiera((64, 64), embed_dim=8, num_heads=1, stages=(1, 2, 1, 1), num_classes=5)


WIDTHS = dict(depths=(1, 2, 1, 1), dims=(8, 8, 16, 16))
resnet = create(
    "resnet18", layers=(1, 2, 1, 1), channels=(8, 8, 16, 16), stem_type="deep", stem_width=4
)
convnext = create("convnext_tiny", **WIDTHS)
sam = create(
    "samvit_base_patch16_224",
    embed_dim=16,
    depth=2,
    num_heads=2,
    img_size=64,
    neck_chans=8,
    window_size=3,  # divides neither side: windows are padded
    global_attn_indexes=(1,),
)
pvt = create("pvt_v2_b0", depths=(1, 1, 1, 1), embed_dims=(8, 8, 16, 16), num_heads=(1, 1, 2, 2))

EVERY = "NLC prefix dict dict-only maps tokens"
SIZED = dict(img_size=64, dynamic_img_size=True)
SWIN = dict(sizes=(COARSE, (60, 76)), multiple=32, blocks=5, layout="NHWC")
NHWC = Call(
    "forward_intermediates",
    dict(output_fmt="NHWC", intermediates_only=True),
    maps((4, 8, 16, 32), "NHWC"),
)
MVIT_NLC = Call(
    "forward_intermediates",
    dict(output_fmt="NLC", intermediates_only=True),
    maps((4, 8, 16, 32), "tokens"),
)
BOTH = Call("forward_features", dict(return_intermediates=True), ("tokens/32", *NHWC.readings))
_TINY = "vit_tiny_patch16_224"

MODELS = {
    "vit": vit(_TINY, ways=EVERY, **SIZED),
    "vit-fixed": vit(_TINY, sizes=(SQUARE,), img_size=64),
    "vit-any": vit(_TINY, sizes=(ODD,), ways=EVERY, multiple=16, dynamic_img_pad=True, **SIZED),
    "deit": vit("deit_tiny_distilled_patch16_224", prefix=2, ways="prefix tokens", **SIZED),
    "clip": vit("vit_base_patch16_clip_quickgelu_224", **SIZED),
    "siglip": vit("vit_base_patch16_siglip_224", prefix=0, ways="NLC tokens", **SIZED),
    "mae": vit("vit_base_patch16_224.mae", **SIZED),
    "dinov2": vit(
        "vit_small_patch14_reg4_dinov2",
        14,
        5,
        ((42, 56),),
        EVERY,
        img_size=56,
        dynamic_img_size=True,
    ),
    "hybrid": vit("vit_tiny_r_s16_p8_224", 32, sizes=(COARSE,), **SIZED),
    "relpos": vit("vit_relpos_small_patch16_224", prefix=0, sizes=(SQUARE,), img_size=64),
    "eva": vit(
        "eva02_tiny_patch14_224",
        14,
        sizes=((42, 56),),
        ways="NLC prefix",
        img_size=56,
        dynamic_img_size=True,
    ),
    "dinov3": vit("vit_small_patch16_dinov3", prefix=5, ways="NLC prefix"),
    "beit": vit("beit_base_patch16_224", sizes=(SQUARE,), ways="NLC prefix", img_size=64),
    "naflex": vit("naflexvit_base_patch16_gap", prefix=4, ways="NLC prefix"),
    "cait": vit("cait_xxs24_224", sizes=(SQUARE,), blocks=0, img_size=64),
    "xcit": vit("xcit_nano_12_p16_224", sizes=(WIDE, ODD), blocks=0),
    "sam": Case(
        sam,
        (16,),
        calls("NCHW/16", ("NCHW/16", "NCHW/16")),
        (WIDE,),
        blocks=2,
        layout="NHWC",
        middle="blocks.0",
    ),
    "swin": staged(
        swin("swin_tiny_patch4_window7_224"), "NHWC/32", middle="layers.1.blocks.0", **SWIN
    ),
    "swinv2": staged(
        swin("swinv2_tiny_window8_256"), "NHWC/32", middle="layers.2.blocks.0", **SWIN
    ),
    "swin-fixed": staged(
        swin("swin_tiny_patch4_window7_224", strict_img_size=True),
        "NHWC/32",
        **{**SWIN, "sizes": (SQUARE,), "multiple": None},
    ),
    "convnext": staged(
        convnext,
        "NCHW/32",
        blocks=5,
        layout="NCHW",
        middle="stages.1.blocks.0",
        floors=True,
    ),
    "mvit": staged(mvit, "tokens/32", MVIT_NLC, blocks=5, middle="stages.1.blocks.0"),
    "mvit-cls": staged(
        mvit_cls,
        "tokens/32",
        MVIT_NLC,
        sizes=(SQUARE,),
        prefix=1,
        blocks=4,
        middle="stages.1.blocks.0",
    ),
    "hiera": staged(hiera, "tokens/32", NHWC, BOTH, sizes=(SQUARE,)),
    "mambaout": staged(create("mambaout_femto", **WIDTHS), "NHWC/32", NHWC),
    "resnet": staged(
        resnet,
        "NCHW/32",
        strides=(2, 4, 8, 16, 32),
        blocks=5,
        layout="NCHW",
        middle="layer2.0",
    ),
    "pvt": staged(pvt, "NCHW/32"),
}


def build(case: Case) -> nn.Module:
    """The model in eval mode, its constant parameters and batch norms as if trained, and with
    layers that mix what they are given.
    """
    torch.manual_seed(0)
    made = case.make().eval()
    with torch.no_grad():
        for parameter in made.parameters():
            if parameter.min() == parameter.max():
                parameter.add_(torch.randn_like(parameter), alpha=0.3)
    for module in made.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_var, 0.5, 1.5)
        if isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=module.in_features**-0.5)
    return made


def images(size, batch=1):
    return torch.randn(batch, 3, *size, generator=torch.Generator().manual_seed(1))
