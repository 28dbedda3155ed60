"""Tiny random backbones of Detectron2, and what they are known to look like."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Callable

import torch
from detectron2.layers import ShapeSpec
from detectron2.modeling import FPN, MViT, ResNet, SimpleFeaturePyramid, SwinTransformer, ViT
from detectron2.modeling.backbone import Backbone, BasicStem
from detectron2.modeling.backbone.fpn import LastLevelMaxPool, LastLevelP6P7
from detectron2.modeling.backbone.regnet import RegNet, ResBottleneckBlock, SimpleStem
from torch import nn

EVEN = (64, 96)  # whole tokens on every level
ODD = (43, 75)


@dataclass(frozen=True)
class Case:
    """How to make a backbone, and the facts that its adapter must find out by itself."""

    make: Callable[[], nn.Module]
    strides: dict[str, int]
    patch: int
    layout: str = "NCHW"
    blocks: int = 0
    taps: tuple[int, ...] = ()
    middle: str | None = None
    sizes: tuple[tuple[int, int], ...] = (EVEN, ODD)
    floors: bool = False
    target: str | None = None  # the part below a pyramid


def vit(**keywords):
    made = ViT(
        **{
            "img_size": 64,
            "patch_size": 8,
            "embed_dim": 16,
            "depth": 3,
            "num_heads": 2,
            "window_size": 3,  # divides neither side: windows are padded
            "window_block_indexes": (0, 1),
            "use_rel_pos": True,
            "pretrain_img_size": 32,
            **keywords,
        }
    )
    for name, parameter in made.named_parameters():
        if "rel_pos" in name:  # zero at the start, and then without effect
            nn.init.normal_(parameter, std=0.5)
    return made


def pyramid(scales=(4.0, 2.0, 1.0, 0.5), **keywords):
    return SimpleFeaturePyramid(
        vit(patch_size=16),
        in_feature="last_feat",
        out_channels=8,
        scale_factors=scales,
        top_block=LastLevelMaxPool(),
        **keywords,
    )


def swin():
    return SwinTransformer(embed_dim=8, depths=(2, 1, 2), num_heads=(1, 2, 2), window_size=4,
                           out_indices=(0, 2))  # fmt: skip


def mvit():
    return MViT(
        embed_dim=8,
        depth=5,
        num_heads=1,
        last_block_indexes=(0, 2, 4, 9),
        out_features=("scale2", "scale4"),
        adaptive_window_size=4,
        img_size=64,
    )


def resnet(features=("res2", "res4")):
    stages = ResNet.make_default_stages(18, norm="BN")
    stages = [blocks[: 1 + i % 2] for i, blocks in enumerate(stages)]  # 1, 2, 1 and 2 blocks
    return ResNet(BasicStem(norm="BN"), stages, out_features=list(features))


def fpn(top):
    features = ["res3", "res4", "res5"]
    return FPN(resnet(features), features, 8, top_block=top())


def regnet():
    return RegNet(
        stem_class=SimpleStem,
        stem_width=8,
        block_class=ResBottleneckBlock,
        depth=6,
        w_a=8.0,
        w_0=8,
        w_m=2.0,
        group_width=8,
        norm="BN",
        out_features=["s2", "s1"],  # not in the order in which they run
    )


class Custom(Backbone):
    """A user's own: plain maps in an order of its own."""

    def __init__(self):
        super().__init__()
        self.fine, self.coarse = nn.Conv2d(3, 4, 4, 4), nn.Conv2d(4, 6, 2, 2)

    def forward(self, x):
        fine = self.fine(x)
        return {"coarse": self.coarse(fine), "fine": fine}

    def output_shape(self):
        return {
            "fine": ShapeSpec(channels=4, stride=4),
            "coarse": ShapeSpec(channels=6, stride=8),
        }


_VIT = dict(layout="NHWC", blocks=3, taps=(2,), floors=True)
_FPN = dict(patch=32, blocks=6, taps=(2, 3, 5), middle="bottom_up.res4.0", target="bottom_up")

BACKBONES = {
    "vit": Case(vit, {"last_feat": 8}, 8, middle="blocks.1", **_VIT),
    "vit-global-residual": Case(
        partial(vit, window_size=0, use_rel_pos=False, residual_block_indexes=(1,)),
        {"last_feat": 8},
        8,
        middle="blocks.0",
        **_VIT,
    ),
    "simple-pyramid": Case(
        pyramid,
        {"p2": 4, "p3": 8, "p4": 16, "p5": 32, "p6": 64},
        16,
        middle="net.blocks.1",
        target="net",
        **_VIT,
    ),
    "swin": Case(
        swin, {"p0": 4, "p2": 16}, 16, "NLC", 5, (1, 4), "layers.1.blocks.0", (EVEN, (45, 76))
    ),
    "mvit": Case(mvit, {"scale2": 4, "scale4": 16}, 16, "NHWC", 5, (0, 4), "blocks.3"),
    "resnet": Case(resnet, {"res2": 4, "res4": 16}, 16, "NCHW", 4, (0, 3), "res3.0"),
    "fpn": Case(
        partial(fpn, LastLevelMaxPool),
        {"p3": 8, "p4": 16, "p5": 32, "p6": 64},
        sizes=(EVEN, (96, 160)),
        **_FPN,
    ),
    "fpn-p6p7": Case(
        partial(fpn, partial(LastLevelP6P7, 512, 8, in_feature="res5")),
        {"p3": 8, "p4": 16, "p5": 32, "p6": 64, "p7": 128},
        sizes=(EVEN,),
        **_FPN,
    ),
    "regnet": Case(regnet, {"s1": 4, "s2": 8}, 8),
    "custom": Case(Custom, {"coarse": 8, "fine": 4}, 8, sizes=(EVEN,)),
}


def build(case):
    """The backbone in eval mode, its batch norms as if trained."""
    torch.manual_seed(0)
    made = case.make().eval()
    for module in made.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_var, 0.5, 1.5)
    return made


def images(size, batch=1):
    return torch.randn(batch, 3, *size, generator=torch.Generator().manual_seed(1))
