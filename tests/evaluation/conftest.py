"""A tiny model of MMSegmentation with a tiny data set on disk."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

CLASSES = ("ground", "thing", "sky")
IMAGES = 5
# Neither side is a multiple of the patch of 8.
SIZE = (42, 60)

CONFIG = """
default_scope = 'mmseg'
model = dict(
    type='EncoderDecoder',
    data_preprocessor=dict(
        type='SegDataPreProcessor', mean=[120.0] * 3, std=[60.0] * 3, bgr_to_rgb=True,
        test_cfg=dict(size_divisor=8)),
    backbone=dict(
        type='VisionTransformer', img_size=(48, 64), patch_size=8, embed_dims=16, num_layers=2,
        num_heads=2, mlp_ratio=2, out_indices=(0, 1), final_norm=True),
    decode_head=dict(
        type='FCNHead', in_channels=16, in_index=1, channels=16, num_convs=0, concat_input=False,
        num_classes=3, norm_cfg=None, align_corners=False,
        loss_decode=dict(type='CrossEntropyLoss')),
    train_cfg=dict(),
    test_cfg=dict(mode='whole'))
test_dataloader = dict(
    batch_size=1, num_workers=2, persistent_workers=True, prefetch_factor=4,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type='BaseSegDataset', data_root={root!r},
        data_prefix=dict(img_path='images', seg_map_path='labels'),
        img_suffix='.png', seg_map_suffix='.png', metainfo=dict(classes={classes!r}),
        pipeline=[dict(type='LoadImageFromFile'), dict(type='LoadAnnotations'),
                  dict(type='PackSegInputs')],
        test_mode=True))
test_evaluator = dict(type='IoUMetric', iou_metrics=['mIoU'])
test_cfg = dict(type='TestLoop')
train_dataloader = dict(dataset=dict(type='NotBuilt'))
default_hooks = dict(visualization=dict(type='SegVisualizationHook', draw=True))
visualizer = dict(type='SegLocalVisualizer', vis_backends=[dict(type='LocalVisBackend')])
"""


def write_images(root: Path) -> None:
    """Images whose colours tell the class, with unlabelled pixels and noise."""
    rng = np.random.default_rng(0)
    colours = np.array([[60, 90, 60], [200, 60, 60], [110, 160, 230]])
    for folder in ("images", "labels"):
        (root / folder).mkdir(parents=True)
    for i in range(IMAGES):
        label = np.repeat(np.repeat(rng.integers(0, 3, (6, 8)), 7, 0), 8, 1)[: SIZE[0], : SIZE[1]]
        image = colours[label] + rng.normal(0, 25, (*SIZE, 3))
        label[rng.random(SIZE) < 0.05] = 255
        Image.fromarray(image.clip(0, 255).astype(np.uint8)).save(root / "images" / f"{i}.png")
        Image.fromarray(label.astype(np.uint8)).save(root / "labels" / f"{i}.png")


@torch.no_grad()
def fit_head(model: torch.nn.Module, root: Path) -> None:
    """Least squares from the tokens of the last layer to the classes, so that rows differ."""
    model.eval()
    model.backbone.pos_embed.mul_(0.1)
    tokens, targets = [], []
    for i in range(IMAGES):
        image = np.array(Image.open(root / "images" / f"{i}.png"))[:40, :56]
        label = torch.from_numpy(np.array(Image.open(root / "labels" / f"{i}.png"))[:40, :56])
        inputs = (torch.from_numpy(image).permute(2, 0, 1).float() - 120) / 60
        tokens.append(model.backbone(inputs[None])[-1][0].flatten(1).T)
        shares = torch.stack([(label == k).float() for k in range(3)])
        targets.append(torch.nn.functional.avg_pool2d(shares, 8).flatten(1).T)
    known = torch.cat([torch.cat(tokens), torch.ones(sum(map(len, tokens)), 1)], 1)
    solution = torch.linalg.lstsq(known, torch.cat(targets)).solution
    model.decode_head.conv_seg.weight.copy_(solution[:-1].T[..., None, None])
    model.decode_head.conv_seg.bias.copy_(solution[-1])


@pytest.fixture(scope="session")
def tiny(tmp_path_factory):
    """``.config`` and ``.checkpoint`` are paths; ``.write(name, text)`` derives a config."""
    from srt_plugins.evaluation.mmseg_config import import_mmseg

    import_mmseg()
    from mmengine.config import Config
    from mmengine.registry import DefaultScope
    from mmseg.registry import MODELS

    torch.set_num_threads(1)
    root = tmp_path_factory.mktemp("tiny")
    write_images(root / "data")
    config = root / "tiny.py"
    config.write_text(CONFIG.format(root=str(root / "data"), classes=CLASSES))

    def build(path: str) -> torch.nn.Module:
        with DefaultScope.overwrite_default_scope("mmseg"):
            return MODELS.build(Config.fromfile(path).model)

    torch.manual_seed(0)
    model = build(config)
    fit_head(model, root / "data")
    checkpoint = root / "tiny.pth"
    torch.save({"state_dict": model.state_dict(), "meta": {"epoch": 1}}, checkpoint)

    def write(name: str, text: str) -> str:
        path = root / f"{name}.py"
        path.write_text(f"_base_ = 'tiny.py'\n{text}\n")
        return str(path)

    return SimpleNamespace(
        root=root,
        config=str(config),
        checkpoint=str(checkpoint),
        write=write,
        build=build,
        images=IMAGES,
    )
