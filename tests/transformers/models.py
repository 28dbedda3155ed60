"""Tiny random models of transformers with their heads, and the facts about them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Callable

import torch
import transformers
from torch import nn

from tests.transformers.tiny import STAGES, SWIN, VIT, config, dinov2, lively

_NECK = dict(neck_hidden_sizes=[4, 4, 8, 8], fusion_hidden_size=8)
_LAYERS = dict(
    hidden_sizes=[8, 8, 16, 16],
    depths=[1, 1, 2, 1],
    num_attention_heads=[1, 1, 2, 2],
    decoder_hidden_size=8,
)
_DECODER = dict(
    encoder_layers=1,
    decoder_layers=2,
    encoder_feedforward_dim=16,
    dim_feedforward=16,
    num_attention_heads=2,
    num_queries=5,
)
_OUT = dict(out_indices=[1, 2, 3, 4])


@dataclass(frozen=True)
class Case:
    """How to make a model, where its backbone is, and which sizes it takes."""

    make: Callable[[], nn.Module]
    backbone: str
    size: tuple[int, int] = (64, 96)
    output: str = "logits"


def _model(name, configuration):
    torch.manual_seed(0)
    return lively(getattr(transformers, name)(configuration))


def _swin():
    return config("Swin", **SWIN, **_OUT)


def depth_anything(**keywords):
    neck = dict(reassemble_hidden_size=16, head_hidden_size=4, **_NECK)
    backbone = dinov2(reshape_hidden_states=False)
    made = config("DepthAnything", backbone_config=backbone, patch_size=14, **neck, **keywords)
    return _model("DepthAnythingForDepthEstimation", made)


def prompt_depth_anything():
    neck = dict(reassemble_hidden_size=16, head_hidden_size=4, **_NECK)
    backbone = dinov2(reshape_hidden_states=False)
    made = config("PromptDepthAnything", backbone_config=backbone, patch_size=14, **neck)
    return _model("PromptDepthAnythingForDepthEstimation", made)


def dpt(head="DepthEstimation", **keywords):
    own = dict(backbone_out_indices=[0, 1, 2, 3], image_size=64, patch_size=16)
    made = _model(f"DPTFor{head}", config("DPT", **{**VIT, **own, **_NECK, **keywords}))
    if head == "DepthEstimation":
        nn.init.ones_(made.head.head[4].bias)  # above zero, where the last ReLU passes all
    return made


def dpt_segmentation():
    return dpt("SemanticSegmentation", num_labels=5)


def dpt_hybrid():
    stem = config(
        "Bit",
        embedding_size=8,
        hidden_sizes=[8, 8, 16],
        depths=[1, 1, 1],
        num_groups=2,
        layer_type="bottleneck",
        global_padding="same",
        embedding_dynamic_padding=True,
        out_features=["stage1", "stage2", "stage3"],
    )
    return dpt(
        is_hybrid=True,
        backbone_config=stem,
        backbone_featmap_shape=[1, 16, 4, 4],
        neck_hidden_sizes=[8, 8, 8, 8],
        neck_ignore_stages=[0, 1],
    )


def dpt_dinov2():
    return dpt(backbone_config=dinov2(reshape_hidden_states=False), reassemble_factors=[4, 2, 1, 1])


def zoedepth():
    own = dict(reshape_hidden_states=False, use_relative_position_bias=True, **_OUT)
    heads = dict(bottleneck_features=8, num_relative_features=4, bin_embedding_dim=8)
    made = config(
        "ZoeDepth",
        backbone_config=config("Beit", **VIT, **own),
        num_attractors=[4, 2, 2, 1],
        **heads,
        **_NECK,
    )
    return _model("ZoeDepthForDepthEstimation", made)


def glpn():
    return _model("GLPNForDepthEstimation", config("GLPN", **_LAYERS))


def segformer():
    made = config("Segformer", num_labels=5, **_LAYERS)
    return _model("SegformerForSemanticSegmentation", made)


def upernet(backbone=None, auxiliary=32):
    heads = dict(hidden_size=8, pool_scales=[1, 2], auxiliary_channels=4)
    made = config(
        "UperNet",
        backbone_config=backbone or _swin(),
        auxiliary_in_channels=auxiliary,
        num_labels=5,
        **heads,
    )
    return _model("UperNetForSemanticSegmentation", made)


def upernet_convnext():
    return upernet(config("ConvNext", **STAGES, **_OUT), 16)


def beit():
    heads = dict(pool_scales=[1, 2], auxiliary_channels=4, num_labels=5)
    return _model("BeitForSemanticSegmentation", config("Beit", **VIT, **_OUT, **heads))


def mask2former():
    made = config(
        "Mask2Former",
        backbone_config=_swin(),
        feature_size=32,
        mask_feature_size=32,
        hidden_dim=32,
        num_labels=5,
        output_auxiliary_logits=False,
        **_DECODER,
    )
    return _model("Mask2FormerForUniversalSegmentation", made)


def maskformer():
    decoder = config(
        "Detr",
        d_model=32,
        encoder_layers=1,
        decoder_layers=1,
        encoder_ffn_dim=16,
        decoder_ffn_dim=16,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        num_queries=5,
    )
    made = config(
        "MaskFormer",
        backbone_config=_swin(),
        decoder_config=decoder,
        fpn_feature_size=32,
        mask_feature_size=32,
        num_labels=5,
    )
    return _model("MaskFormerForInstanceSegmentation", made)


def oneformer():
    text = dict(
        text_encoder_width=32,
        text_encoder_num_layers=1,
        text_encoder_vocab_size=99,
        task_seq_len=8,
    )
    made = config(
        "OneFormer",
        backbone_config=_swin(),
        conv_dim=32,
        mask_dim=32,
        hidden_dim=32,
        num_labels=5,
        **text,
        **_DECODER,
    )
    return _model("OneFormerForUniversalSegmentation", made)


def dinov2_classifier():
    return _model("Dinov2ForImageClassification", dinov2(num_labels=5))


_DEPTH = dict(output="predicted_depth")
_MASKS = dict(output="masks_queries_logits", size=(64, 96))
_ENCODER = "model.pixel_level_module.encoder"
MODELS = {
    "depth-anything": Case(depth_anything, "backbone", (61, 77), **_DEPTH),
    "prompt-depth-anything": Case(prompt_depth_anything, "backbone", (61, 77), **_DEPTH),
    "dpt": Case(dpt, "dpt", (64, 64), **_DEPTH),
    "dpt-hybrid": Case(dpt_hybrid, "dpt", (64, 64), **_DEPTH),
    "dpt-dinov2": Case(dpt_dinov2, "backbone", (61, 77), **_DEPTH),
    "zoedepth": Case(zoedepth, "backbone", (48, 64), **_DEPTH),
    "glpn": Case(glpn, "glpn", **_DEPTH),
    "segformer": Case(segformer, "segformer", (61, 77)),
    "upernet-swin": Case(upernet, "backbone", (61, 77)),
    "upernet-convnext": Case(upernet_convnext, "backbone"),
    "beit": Case(beit, "beit", (48, 48)),
    "dpt-segmentation": Case(dpt_segmentation, "dpt", (64, 64)),
    "mask2former": Case(mask2former, _ENCODER, **_MASKS),
    "maskformer": Case(maskformer, _ENCODER, **_MASKS),
    "oneformer": Case(oneformer, _ENCODER, **_MASKS),
    "dinov2-classifier": Case(dinov2_classifier, "dinov2", (61, 77)),
}
