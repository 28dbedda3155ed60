"""A tiny depth estimator of MMSegmentation on rendered scenes, and its outputs made by hand."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import srt_plugins.mmseg  # noqa: F401  (before mmseg: the placeholder for mmcv's ops)

pytest.importorskip("mmseg")

from mmengine.config import Config
from mmengine.registry import DefaultScope
from mmseg.models.decode_heads.decode_head import BaseDecodeHead
from mmseg.registry import MODELS

from srt_plugins.evaluation.mmseg_config import import_mmseg

IMAGES = 6
# Neither side is a multiple of the patch of 8.
SIZE = (42, 60)
PADDED = (48, 64)
# Metres; the scenes reach further.
RANGE = (1e-3, 80.0)

CONFIG = f"""
default_scope = 'mmseg'
model = dict(
    type='DepthEstimator',
    data_preprocessor=dict(
        type='SegDataPreProcessor', mean=[120.0] * 3, std=[60.0] * 3, bgr_to_rgb=True,
        test_cfg=dict(size_divisor=8)),
    backbone=dict(
        type='VisionTransformer', img_size={PADDED}, patch_size=8, embed_dims=16, num_layers=2,
        num_heads=2, mlp_ratio=2, out_indices=(0, 1), final_norm=True),
    decode_head=dict(
        type='TokenDepthHead', in_channels=16, in_index=1, channels=16, num_classes=1,
        threshold=0.5, dropout_ratio=0, align_corners=False,
        loss_decode=dict(type='SiLogLoss')),
    train_cfg=dict(),
    test_cfg=dict(mode='whole'))
test_dataloader = dict(
    batch_size=1, num_workers=2, persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type='ScenesDataset', split='val', length={IMAGES}, size={SIZE},
        pipeline=[dict(type='LoadScene', depth=True), dict(type='PackSegInputs')],
        test_mode=True))
test_evaluator = dict(
    type='DepthMetric', min_depth_eval={RANGE[0]}, max_depth_eval={RANGE[1]})
test_cfg = dict(type='TestLoop')
"""

VPD = """
model = dict(
    backbone=dict(num_layers=4, out_indices=(0, 1, 2, 3)),
    neck=dict(
        type='Feature2Pyramid', embed_dim=16, rescales=[4, 2, 1, 0.5], norm_cfg=dict(type='BN')),
    decode_head=dict(
        _delete_=True, type='VPDDepthHead', in_channels=[16] * 4, embed_dim=16, feature_dim=128,
        num_deconv_layers=1, num_deconv_filters=(16,), max_depth=80, align_corners=False))
"""


@MODELS.register_module(force=True)
class TokenDepthHead(BaseDecodeHead):
    """Depth in metres of each token: the exponential of a linear map."""

    def forward(self, inputs):
        return torch.exp(self.cls_seg(self._transform_inputs(inputs)))


def build(path: str) -> torch.nn.Module:
    with DefaultScope.overwrite_default_scope("mmseg"):
        return MODELS.build(Config.fromfile(path).model)


def scenes(length: int = IMAGES) -> list[tuple[torch.Tensor, np.ndarray]]:
    """Normalised images ``(1, 3, 42, 60)`` and depth ``(42, 60)``."""
    from srt_plugins.scenes import Scenes

    found = []
    for scene in (Scenes("val", length, SIZE)[i] for i in range(length)):
        image = torch.from_numpy(scene.image.copy()).permute(2, 0, 1).float()
        found.append(((image[None] - 120) / 60, scene.depth))
    return found


def padded(image: torch.Tensor, mode: str = "constant") -> torch.Tensor:
    """An image completed to whole patches, bottom and right."""
    bottom, right = PADDED[0] - SIZE[0], PADDED[1] - SIZE[1]
    return F.pad(image, (0, right, 0, bottom), mode=mode)


def depth_of(model: torch.nn.Module, image: torch.Tensor) -> torch.Tensor:
    """Depth of every pixel of a completed image, by backbone and head alone, ``(1, 1, H, W)``."""
    tokens = model.decode_head(model.backbone(image))
    return F.interpolate(tokens, image.shape[-2:], mode="bilinear", align_corners=False)


def cropped(depth: torch.Tensor) -> np.ndarray:
    """Depth of the pixels that the image has, ``(42, 60)``."""
    return depth[0, 0, : SIZE[0], : SIZE[1]].numpy()


@torch.no_grad()
def fit_head(model: torch.nn.Module) -> None:
    """Least squares from tokens to the logarithm of their mean depth, so that rows differ."""
    model.eval()
    model.backbone.pos_embed.mul_(0.1)
    tokens, targets = [], []
    for image, depth in scenes():
        image, depth = image[..., :40, :56], torch.from_numpy(depth[None, None, :40, :56].copy())
        known = F.avg_pool2d((depth > 0).float(), 8)
        mean = F.avg_pool2d(depth.clamp(max=RANGE[1]), 8) / known
        there = known.flatten() > 0
        tokens.append(model.backbone(image)[-1][0].flatten(1).T[there])
        targets.append(mean.flatten()[there].log())
    columns = torch.cat([torch.cat(tokens), torch.ones(sum(map(len, tokens)), 1)], 1)
    solution = torch.linalg.lstsq(columns, torch.cat(targets)[:, None]).solution
    model.decode_head.conv_seg.weight.copy_(solution[:-1].T[..., None, None])
    model.decode_head.conv_seg.bias.copy_(solution[-1])


def made(root) -> SimpleNamespace:
    """``.config`` and ``.checkpoint`` are paths; ``.write(name, text)`` derives a config."""
    import_mmseg()
    torch.set_num_threads(1)
    config = root / "depth.py"
    config.write_text(CONFIG)
    torch.manual_seed(0)
    model = build(config)
    fit_head(model)
    checkpoint = root / "depth.pth"
    torch.save({"state_dict": model.state_dict()}, checkpoint)

    def write(name: str, text: str) -> str:
        path = root / f"{name}.py"
        path.write_text(f"_base_ = 'depth.py'\n{text}\n")
        return str(path)

    return SimpleNamespace(
        root=root, config=str(config), checkpoint=str(checkpoint), write=write, model=model.eval()
    )
