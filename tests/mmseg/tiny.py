"""Tiny random MMSegmentation models, and what their backbones are known to look like."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from mmengine.config import ConfigDict
from mmengine.registry import init_default_scope
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample

import srt_plugins.mmseg  # noqa: F401 (registers)

PATCH = 8
FIXED = (24, 32)  # the only size of the fixed-size backbones
ODD = (21, 35)  # whole patches on neither axis


@dataclass(frozen=True)
class Case:
    """A backbone config with the facts that its adapter must find out by itself."""

    config: dict
    strides: tuple[int, ...]
    patch: int | None
    multiple: int | None = None
    blocks: int = 0
    # Blocks that outputs are made from, the block to ensemble at, and whether the outputs are the
    # last block's very tokens.
    taps: tuple[int, ...] = ()
    middle: str | None = None
    raw: bool = False
    prefix: int = 0
    sizes: tuple[tuple[int, int], ...] = (FIXED, ODD)


def vit(**keywords):
    """Config of a plain three-block ViT."""
    config = dict(
        type="VisionTransformer",
        img_size=FIXED,
        patch_size=PATCH,
        embed_dims=16,
        num_layers=3,
        num_heads=2,
        mlp_ratio=2,
    )
    return {**config, **keywords}


def plain(config, **facts):
    facts = {"taps": (1, 2), "middle": "layers.1", "prefix": 1, "multiple": 8, **facts}
    return Case(config, (8,) * len(facts["taps"]), 8, blocks=3, **facts)


_PYRAMID = dict(embed_dims=[8, 16], num_heads=[1, 2], mlp_ratios=[2, 2], out_indices=(0, 1))
_TIMM_VIT = dict(img_size=FIXED, patch_size=8, embed_dim=16, depth=3, num_heads=2)

BACKBONES = {
    "vit": plain(vit(out_indices=(1, 2), final_norm=True)),
    "vit-no-class-token": plain(
        vit(out_indices=(0, 2), with_cls_token=False),
        taps=(0, 2),
        prefix=0,
        raw=True,
    ),
    "vit-class-token-out": plain(vit(out_indices=(1, 2), output_cls_token=True), raw=True),
    "vit-floors": plain(vit(out_indices=(1, 2), patch_pad=0), multiple=None, raw=True),
    "beit": plain(
        vit(type="BEiT", out_indices=(1, 2), qv_bias=True, init_values=0.1),
        multiple=None,
        raw=True,
        sizes=(FIXED,),
    ),
    "mae": plain(
        vit(type="MAE", out_indices=(1, 2), init_values=1.0),
        multiple=None,
        raw=True,
        sizes=(FIXED,),
    ),
    "swin": Case(
        dict(
            type="SwinTransformer",
            embed_dims=8,
            patch_size=2,
            window_size=3,
            mlp_ratio=2,
            depths=(2, 2),
            num_heads=(2, 2),
            strides=(2, 2),
            out_indices=(0, 1),
            drop_path_rate=0.0,
        ),
        strides=(2, 4),
        patch=4,
        multiple=4,
        blocks=4,
        taps=(1, 3),
        middle="stages.1.blocks.0",
    ),
    "mit": Case(
        dict(
            type="MixVisionTransformer",
            embed_dims=8,
            num_stages=3,
            num_layers=[1, 2, 1],
            num_heads=[1, 2, 2],
            patch_sizes=[3, 3, 3],
            strides=[2, 2, 2],
            sr_ratios=[2, 2, 1],
            out_indices=(0, 1, 2),
            mlp_ratio=2,
        ),
        strides=(2, 4, 8),
        patch=8,
        multiple=8,
        blocks=4,
        taps=(0, 2, 3),
        middle="layers.1.1.0",
    ),
    "pcpvt": Case(
        dict(
            type="PCPVT",
            patch_sizes=[4, 2],
            strides=[4, 2],
            depths=[2, 2],
            sr_ratios=[2, 1],
            norm_after_stage=True,
            **_PYRAMID,
        ),
        strides=(4, 8),
        patch=8,
        multiple=8,
        blocks=4,
        taps=(1, 3),
        middle="layers.1.0",
    ),
    "svt": Case(
        dict(
            type="SVT",
            patch_sizes=[4, 2],
            strides=[4, 2],
            depths=[2, 2],
            windiow_sizes=[3, 3],
            drop_path_rate=0.0,
            sr_ratios=[2, 1],
            norm_after_stage=False,
            **_PYRAMID,
        ),
        strides=(4, 8),
        patch=8,
        multiple=8,
        blocks=4,
        taps=(1, 3),
        middle="layers.1.1",
        raw=True,
    ),
    "resnet": Case(
        dict(
            type="ResNetV1c",
            depth=18,
            stem_channels=4,
            base_channels=4,
            strides=(1, 2, 1, 1),
            dilations=(1, 1, 2, 4),
            out_indices=(0, 1, 3),
        ),
        strides=(4, 8, 8),
        patch=8,
        multiple=8,
        blocks=8,
        taps=(1, 3, 7),
        middle="layer3.0",
        raw=True,
    ),
    "timm-cnn": Case(
        dict(type="TIMMBackbone", model_name="resnet10t", pretrained=False, out_indices=(1, 2)),
        strides=(4, 8),
        patch=8,
    ),
    "timm-vit": Case(
        dict(
            type="TIMMBackbone",
            model_name="vit_tiny_patch16_224",
            pretrained=False,
            out_indices=(1, 2),
            **_TIMM_VIT,
        ),
        strides=(8, 8),
        patch=8,
        sizes=(FIXED,),
    ),
    "timm-vit-pads": Case(
        dict(
            type="TIMMBackbone",
            model_name="vit_tiny_patch16_224",
            pretrained=False,
            out_indices=(1, 2),
            dynamic_img_size=True,
            dynamic_img_pad=True,
            **_TIMM_VIT,
        ),
        strides=(8, 8),
        patch=8,
    ),
    # Not known to the adapter: probed.
    "mscan": Case(
        dict(type="MSCAN", embed_dims=[8, 16], depths=[1, 1], num_stages=2, mlp_ratios=[2, 2]),
        strides=(4, 8),
        patch=None,
    ),
    "stdc": Case(
        dict(
            type="STDCNet",
            stdc_type="STDCNet1",
            in_channels=3,
            channels=(8, 8, 8, 16, 16),
            bottleneck_type="cat",
            norm_cfg=dict(type="BN"),
            act_cfg=dict(type="ReLU"),
            with_final_conv=False,
        ),
        strides=(8, 16, 32),
        patch=None,
        sizes=((32, 64), (45, 70)),
    ),
}


def build(config, seed=0):
    """A built model in eval mode, every parameter random (several start out as zeros)."""
    init_default_scope("mmseg")
    model = MODELS.build(ConfigDict(config))
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if parameter.ndim > 1:
                parameter.copy_(noise * max(1, parameter[0].numel()) ** -0.5)
            else:
                parameter.copy_(noise * 0.2 + name.endswith("weight"))
    model.eval()
    return model


def images(size, batch=1, seed=1):
    """``(batch, 3, H, W)`` noise on a gradient, so that no symmetry hides a mistake."""
    generator = torch.Generator().manual_seed(seed)
    h, w = size
    ramp = torch.linspace(-1, 1, h)[:, None] - 2 * torch.linspace(-1, 1, w)
    return ramp + torch.randn(batch, 3, h, w, generator=generator)


CLASSES = 10


def segmentor(backbone=None, **keywords):
    """Config of a segmentor with a linear head on ``backbone`` (a tiny ViT)."""
    config = dict(
        type="EncoderDecoder",
        data_preprocessor=dict(
            type="SegDataPreProcessor",
            mean=[120.0] * 3,
            std=[60.0] * 3,
            bgr_to_rgb=True,
            size_divisor=PATCH,
        ),
        backbone=backbone or vit(),
        decode_head=dict(
            type="FCNHead",
            in_channels=16,
            channels=16,
            num_convs=0,
            concat_input=False,
            dropout_ratio=0.0,
            num_classes=CLASSES,
            norm_cfg=None,
            loss_decode=dict(type="CrossEntropyLoss"),
        ),
        test_cfg=dict(mode="whole"),
    )
    return {**config, **keywords}


def flat(**srt):
    """The tiny ViT in the flat form."""
    return dict(vit(), type="SRTWrapper", wraps="VisionTransformer", srt=srt)


def nested(**srt):
    """The tiny ViT in the nested form."""
    return dict(type="SRTWrapper", backbone=vit(), **srt)


def checkpoint(path, seed=3, only="", prefix="", **keywords):
    """Save a random checkpoint of the tiny segmentor in plain types; returns its path."""
    state = build(segmentor(**keywords), seed).state_dict()
    kept = {prefix + k: v for k, v in state.items() if k.startswith(only)}
    torch.save({"state_dict": kept, "meta": {}}, path)
    return str(path)


def logits(model, size=FIXED):
    """Logits of a segmentor for one image, through ``test_step``."""
    image = (images(size)[0] * 60 + 120).clamp(0, 255)
    with torch.no_grad():
        (sample,) = model.test_step({"inputs": [image], "data_samples": [sample_of(size)]})
    return sample.seg_logits.data


def sample_of(size):
    """A data sample with the metainfo that inference needs."""
    return SegDataSample(metainfo=dict(ori_shape=size, img_shape=size, pad_shape=size))
