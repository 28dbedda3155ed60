"""Tiny random backbones and base models of transformers, and what they are known to look like."""

from __future__ import annotations

import importlib
from dataclasses import dataclass, field
from functools import partial
from typing import Callable

import torch
import transformers
from torch import nn

from tests.transformers.tiny import STAGES, SWIN, VIT, config, dinov2, lively

ODD = (61, 77)
EVEN = (64, 96)
ASK = dict(output_hidden_states=True, output_attentions=True)


@dataclass(frozen=True)
class Case:
    """How to make a backbone, and the facts that its adapter must find out by itself.

    Attributes:
        outputs: by name, the layout and the strides of the tensors that come with that name.
        middle: a block between the first and the last.
        ask: what a call asks for.
    """

    make: Callable[[], nn.Module]
    outputs: dict[str, tuple[str, tuple[int, ...]]]
    patch: int
    blocks: int = 0
    layout: str = "NLC"
    prefix: int = 0
    middle: str | None = None
    sizes: tuple[tuple[int, int], ...] = (EVEN, ODD)
    completes: bool = False
    declares: bool = False
    ask: dict = field(default_factory=lambda: ASK)


def find(name):
    """A class of transformers, also one that only models use."""
    if hasattr(transformers, name):
        return getattr(transformers, name)
    for module in ("maskformer.modeling_maskformer_swin", "sam.modeling_sam"):
        found = getattr(importlib.import_module(f"transformers.models.{module}"), name, None)
        if found is not None:
            return found
    raise LookupError(name)


def model(name, configuration, **keywords):
    torch.manual_seed(0)
    return lively(find(name)(configuration, **keywords))


def vit(name, family, **keywords):
    return model(name, config(family, **{**VIT, "num_hidden_layers": 3, **keywords}))


def stages(name, family, **keywords):
    return model(name, config(family, **keywords))


def resnet(name, **keywords):
    return stages(name, "ResNet", embedding_size=8, **STAGES, **keywords)


def hiera(name):
    sizes = dict(embed_dim=8, image_size=[64, 96], depths=[1, 1, 2, 1], num_heads=[1, 1, 2, 2])
    return stages(name, "Hiera", **sizes, out_indices=[1, 2, 3, 4])


def timm_backbone(name="convnext_atto", **keywords):
    made = transformers.TimmBackboneConfig(backbone=name, out_indices=[1, 3], **keywords)
    return model("TimmBackbone", made)


_TOKENS = ("NLC", (8,))
_STATES = ("NLC", (8,) * 4)
_POOLED = ("vector", (0,))
_LAYERS = dict(hidden_sizes=[8, 8, 16, 16], depths=[1, 1, 2, 1], num_attention_heads=[1, 1, 2, 2])
_OUT = dict(out_indices=[1, 2, 3, 4])

BACKBONES = {
    "dinov2-backbone": Case(
        partial(model, "Dinov2Backbone", dinov2(num_hidden_layers=3, out_indices=[0, 1, 3])),
        {"feature_maps": ("NCHW", (14,) * 3), "hidden_states": ("NLC", (14,) * 4)},
        *(14, 3, "NLC", 1, "encoder.layer.1"),
        sizes=(ODD, (70, 56)),
    ),
    "dinov2-tokens": Case(
        partial(
            *(model, "Dinov2Backbone"),
            dinov2(num_hidden_layers=3, out_indices=[1, 3], reshape_hidden_states=False),
        ),
        {"feature_maps": ("NLC", (14, 14))},
        *(14, 3, "NLC", 1, "encoder.layer.0"),
        sizes=(ODD,),
        declares=True,
        ask={},
    ),
    "dinov2-registers": Case(
        partial(
            *(vit, "Dinov2WithRegistersModel", "Dinov2WithRegisters"),
            mlp_ratio=2,
            num_register_tokens=4,
        ),
        {"last_hidden_state": _TOKENS, "hidden_states": _STATES, "pooler_output": _POOLED},
        *(8, 3, "NLC", 5, "encoder.layer.1"),
        sizes=(ODD,),
        declares=True,
    ),
    "dinov3-backbone": Case(
        partial(
            *(vit, "DINOv3ViTBackbone", "DINOv3ViT"),
            num_register_tokens=4,
            out_indices=[1, 3],
            return_class_token=True,
        ),
        {
            "feature_maps": ("NCHW", (8, 8)),
            "cls_tokens": ("vector", (0, 0)),
            "hidden_states": _STATES,
        },
        *(8, 3, "NLC", 5, "model.layer.1"),
    ),
    "dinov3": Case(
        partial(vit, "DINOv3ViTModel", "DINOv3ViT", num_register_tokens=4),
        {"last_hidden_state": _TOKENS, "hidden_states": _STATES, "pooler_output": _POOLED},
        *(8, 3, "NLC", 5, "model.layer.1"),
        sizes=(ODD,),
        declares=True,
    ),
    "beit-backbone": Case(
        partial(
            *(vit, "BeitBackbone", "Beit"),
            out_indices=[1, 3],
            use_relative_position_bias=True,
        ),
        {"feature_maps": ("NCHW", (8, 8)), "hidden_states": _STATES},
        *(8, 3, "NLC", 1, "beit.layers.1"),
        sizes=((48, 48), (48, 64)),
    ),
    "data2vec": Case(
        partial(vit, "Data2VecVisionModel", "Data2VecVision"),
        {"last_hidden_state": _TOKENS, "hidden_states": _STATES},
        *(8, 3, "NLC", 1, "encoder.layer.1"),
        sizes=((48, 48),),
        declares=True,
        ask=dict(output_hidden_states=True),
    ),
    "vit": Case(
        partial(vit, "ViTModel", "ViT"),
        {"last_hidden_state": _TOKENS, "hidden_states": _STATES, "pooler_output": _POOLED},
        *(8, 3, "NLC", 1, "layers.1"),
        sizes=((48, 48),),
        declares=True,
    ),
    "deit": Case(
        partial(vit, "DeiTModel", "DeiT"),
        {"last_hidden_state": _TOKENS, "hidden_states": _STATES, "pooler_output": _POOLED},
        *(8, 3, "NLC", 2, "layers.1"),
        sizes=((48, 48),),
        declares=True,
    ),
    "dpt": Case(
        partial(vit, "DPTModel", "DPT"),
        {"last_hidden_state": _TOKENS, "hidden_states": _STATES, "pooler_output": _POOLED},
        *(8, 3, "NLC", 1, "encoder.layer.1"),
        declares=True,
    ),
    "clip": Case(
        partial(vit, "CLIPVisionModel", "CLIPVision"),
        {"last_hidden_state": _TOKENS, "hidden_states": _STATES, "pooler_output": _POOLED},
        *(8, 3, "NLC", 1, "encoder.layers.1"),
        sizes=((48, 48),),
        declares=True,
    ),
    "siglip": Case(
        partial(vit, "SiglipVisionModel", "SiglipVision"),
        {"last_hidden_state": _TOKENS, "hidden_states": _STATES, "pooler_output": _POOLED},
        *(8, 3, "NLC", 0, "encoder.layers.1"),
        sizes=((48, 48),),
        declares=True,
    ),
    "vitdet": Case(
        partial(
            *(vit, "VitDetBackbone", "VitDet"),
            mlp_ratio=2,
            pretrain_image_size=48,
            window_size=4,
            window_block_indices=[0, 2],
            use_relative_position_embeddings=True,
            residual_block_indices=[1],
            out_indices=[1, 3],
        ),
        {"feature_maps": ("NCHW", (8, 8)), "hidden_states": ("NCHW", (8,) * 4)},
        *(8, 3, "NCHW", 0, "encoder.layer.1"),
    ),
    "sam": Case(
        partial(
            *(vit, "SamVisionEncoder", "SamVision"),
            mlp_ratio=2.0,
            output_channels=12,
            window_size=4,
            global_attn_indexes=[1],
        ),
        {"last_hidden_state": ("NCHW", (8,)), "hidden_states": ("NHWC", (8,) * 4)},
        *(8, 3, "NHWC", 0, "layers.1"),
        sizes=((48, 48),),
        declares=True,
    ),
    "swin-backbone": Case(
        partial(stages, "SwinBackbone", "Swin", **SWIN, out_indices=[0, 2, 3]),
        {"feature_maps": ("NCHW", (4, 8, 16)), "hidden_states": ("NCHW", (4, 4, 8, 16, 32))},
        *(16, 5, "NLC", 0, "swin.encoder.layers.1.blocks.1"),
        completes=True,
    ),
    "swin": Case(
        partial(stages, "SwinModel", "Swin", **{**SWIN, "depths": [1, 2], "num_heads": [1, 2]}),
        {
            "last_hidden_state": ("NLC", (8,)),
            "pooler_output": _POOLED,
            "hidden_states": ("NLC", (4, 8, 8)),
            "reshaped_hidden_states": ("NCHW", (4, 8, 8)),
        },
        *(8, 3, "NLC", 0, "encoder.layers.1.blocks.0"),
        completes=True,
        declares=True,
    ),
    "swinv2-backbone": Case(
        partial(stages, "Swinv2Backbone", "Swinv2", **SWIN, **_OUT),
        {"feature_maps": ("NCHW", (4, 8, 16, 32)), "hidden_states": ("NLC", (4, 4, 8, 16, 32))},
        *(32, 5, "NLC", 0, "encoder.layers.1.blocks.1"),
        completes=True,
    ),
    "maskformer-swin": Case(
        partial(stages, "MaskFormerSwinBackbone", "MaskFormerSwin", **SWIN, **_OUT),
        {"feature_maps": ("NCHW", (4, 8, 16, 32))},
        *(32, 5, "NLC", 0, "model.encoder.layers.1.blocks.1"),
        completes=True,
        ask={},
    ),
    "segformer": Case(
        partial(stages, "SegformerModel", "Segformer", **_LAYERS),
        {"last_hidden_state": ("NCHW", (32,)), "hidden_states": ("NCHW", (4, 8, 16, 32))},
        *(32, 5, "NLC", 0, "stages.2.blocks.0"),
        completes=True,
    ),
    "glpn": Case(
        partial(stages, "GLPNModel", "GLPN", **_LAYERS),
        {"last_hidden_state": ("NCHW", (32,)), "hidden_states": ("NCHW", (4, 8, 16, 32))},
        *(32, 5, "NLC", 0, "encoder.block.2.0"),
        completes=True,
        declares=True,
        ask=dict(output_hidden_states=True),
    ),
    "pvt-v2": Case(
        partial(stages, "PvtV2Backbone", "PvtV2", **_LAYERS, out_indices=[0, 2]),
        {"feature_maps": ("NCHW", (4, 16))},
        *(16, 5, "NLC", 0, "encoder.layers.2.blocks.0"),
        completes=True,
        ask={},
    ),
    "convnext": Case(
        partial(stages, "ConvNextBackbone", "ConvNext", **STAGES, **_OUT),
        {"feature_maps": ("NCHW", (4, 8, 16, 32)), "hidden_states": ("NCHW", (4, 4, 8, 16, 32))},
        *(32, 5, "NCHW", 0, "encoder.stages.1.layers.0"),
        ask=dict(output_hidden_states=True),
    ),
    "dinov3-convnext": Case(
        partial(stages, "DINOv3ConvNextModel", "DINOv3ConvNext", **STAGES),
        {
            "last_hidden_state": ("NLC", (32,)),
            "pooler_output": _POOLED,
            "hidden_states": ("NCHW", (1, 4, 8, 16, 32)),
        },
        *(32, 5, "NCHW", 1, "model.stages.1.layers.0"),
        ask=dict(output_hidden_states=True),
    ),
    "resnet": Case(
        partial(resnet, "ResNetModel"),
        {
            "last_hidden_state": ("NCHW", (32,)),
            "pooler_output": _POOLED,
            "hidden_states": ("NCHW", (4, 4, 8, 16, 32)),
        },
        *(32, 5, "NCHW", 0, "encoder.stages.1.layers.0"),
        completes=True,
        ask=dict(output_hidden_states=True),
    ),
    "resnet-first": Case(
        partial(resnet, "ResNetBackbone", downsample_in_first_stage=True, out_indices=[1, 3]),
        {"feature_maps": ("NCHW", (8, 32))},
        *(32, 5, "NCHW", 0, "encoder.stages.1.layers.0"),
        sizes=(EVEN,),
        completes=True,
        ask={},
    ),
    "hiera": Case(
        partial(hiera, "HieraBackbone"),
        {"feature_maps": ("NCHW", (4, 8, 16, 32))},
        patch=32,
        sizes=(EVEN,),
        ask={},
    ),
    "hiera-model": Case(
        partial(hiera, "HieraModel"),
        {"last_hidden_state": ("NLC", (32,)), "pooler_output": _POOLED},
        patch=32,
        sizes=(EVEN,),
        ask={},
    ),
    "timm": Case(
        timm_backbone,
        {"feature_maps": ("NCHW", (8, 32))},
        *(32, 12, "NCHW", 0, "_backbone.stages_2.blocks.0"),
        ask={},
    ),
}


def build(case):
    return case.make()
