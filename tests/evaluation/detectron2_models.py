"""Tiny Detectron2 models on procedural scenes, as configs and checkpoints on disk."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

pytest.importorskip("detectron2", reason="needs Detectron2 (make setup DETECTRON2=...)")

import torch
import torch.nn.functional as F
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.config import LazyConfig, instantiate
from detectron2.data import DatasetCatalog, DatasetMapper, MetadataCatalog
from detectron2.evaluation import inference_on_dataset
from detectron2.utils.events import EventStorage

from ..detectron2 import tiny

SIZE = (64, 96)
IMAGES = 6
DATASET = f"scenes_val_{IMAGES}_64x96"

_DATA = """
from detectron2.config import LazyCall as L
from detectron2.data import (
    DatasetMapper, build_detection_test_loader, get_detection_dataset_dicts)
from detectron2.evaluation import COCOEvaluator, SemSegEvaluator
from omegaconf import OmegaConf
from srt_plugins.detectron2 import register_scenes

dataloader = OmegaConf.create()
dataloader.test = L(build_detection_test_loader)(
    dataset=L(get_detection_dataset_dicts)(
        names=L(register_scenes)(split="val", length={images}, size=(64, 96)), filter_empty=False),
    mapper=L(DatasetMapper)(is_train=False, augmentations=[], image_format="RGB"),
    num_workers=0)
dataloader.evaluator = L({evaluator})(
    dataset_name="${{..test.dataset.names}}", distributed=False, output_dir="not_written_to")
"""

_DENSE = """
from functools import partial
from torch import nn
from detectron2.config import LazyCall as L
from detectron2.layers import ShapeSpec
from detectron2.modeling import SemanticSegmentor, ViT
from srt_plugins.detectron2 import LinearSemSegHead

model = L(SemanticSegmentor)(
    backbone=L(ViT)(
        img_size=64, patch_size=8, embed_dim=32, depth=2, num_heads=2, use_abs_pos=False,
        window_size=0, norm_layer=partial(nn.LayerNorm, eps=1e-6), out_feature="last_feat"),
    sem_seg_head=L(LinearSemSegHead)(
        input_shape=dict(last_feat=ShapeSpec(channels=32, stride=8)), num_classes=10),
    pixel_mean=[123.7, 116.3, 103.5], pixel_std=[58.4, 57.1, 57.4])
"""

_DETECTOR = """
from tests.detectron2.tiny import tiny_vitdet_cfg

model = tiny_vitdet_cfg()
model.proposal_generator.anchor_generator.sizes = [[8], [12], [20], [32], [48]]
model.proposal_generator.pre_nms_topk = (200, 20)
model.proposal_generator.post_nms_topk = (50, 20)
"""


@torch.no_grad()
def fit_head(model: torch.nn.Module, batches: list) -> None:
    """Least squares from tokens to classes, so that rows differ and are right now and then."""
    tokens, targets = [], []
    for (item,) in batches:
        images = (item["image"].float() - model.pixel_mean) / model.pixel_std
        tokens.append(model.backbone(images[None])["last_feat"][0].flatten(1).T)
        shares = torch.stack([(item["sem_seg"] == k).float() for k in range(10)])
        targets.append(F.avg_pool2d(shares, 8).flatten(1).T)
    known = torch.cat([torch.cat(tokens), torch.ones(sum(map(len, tokens)), 1)], 1)
    solution = torch.linalg.lstsq(known, torch.cat(targets)).solution
    model.sem_seg_head.predictor.weight.copy_(solution[:-1].T[..., None, None])
    model.sem_seg_head.predictor.bias.copy_(solution[-1])


def train(model: torch.nn.Module, steps: int = 100) -> None:
    """Some seconds of training on the test images, so that some boxes and masks are right."""
    mapper = DatasetMapper(
        is_train=True,
        augmentations=[],
        image_format="RGB",
        use_instance_mask=True,
        instance_mask_format="bitmask",
    )
    batch = [mapper(one) for one in DatasetCatalog.get(DATASET)]
    torch.manual_seed(0)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.015)
    model.train()
    with EventStorage():
        for _ in range(steps):
            losses = model(batch)
            optimizer.zero_grad()
            sum(losses.values()).backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
    model.eval()


def lazy(folder: Path, name: str, model: str, evaluator: str) -> SimpleNamespace:
    """``.config`` and ``.checkpoint`` are paths; ``.cfg`` is the config, ``.model`` the model."""
    config = folder / f"{name}.py"
    config.write_text(model + _DATA.format(images=IMAGES, evaluator=evaluator))
    cfg = LazyConfig.load(str(config))
    made = tiny.built(cfg.model)
    if name == "dense":
        fit_head(made, list(instantiate(cfg.dataloader.test)))
    else:
        instantiate(cfg.dataloader.test)  # registers the data
        train(made)
    DetectionCheckpointer(made, str(folder)).save(name)
    checkpoint = str(folder / f"{name}.pth")
    return SimpleNamespace(config=str(config), checkpoint=checkpoint, cfg=cfg, model=made)


def yacs(folder: Path, name: str, seed: int = 0) -> SimpleNamespace:
    """As :func:`lazy`; of ``tests/detectron2/tiny.py``."""
    cfg = tiny.CFGS[name]()
    cfg.DATASETS.TEST = (DATASET,)
    cfg.INPUT.FORMAT = "RGB"
    config = folder / f"{name}.yaml"
    config.write_text(cfg.dump())
    made = tiny.built(cfg, seed)
    DetectionCheckpointer(made, str(folder)).save(name)
    checkpoint = str(folder / f"{name}.pth")
    return SimpleNamespace(config=str(config), checkpoint=checkpoint, cfg=cfg, model=made)


def directly(made: SimpleNamespace, folder: Path, call=None) -> dict:
    """Flat figures of Detectron2's own functions, written without this package's session."""
    from detectron2.evaluation.testing import flatten_results_dict

    cfg = LazyConfig.load(made.config)
    cfg.dataloader.evaluator.output_dir = str(folder)
    evaluator = instantiate(cfg.dataloader.evaluator)
    found = inference_on_dataset(
        made.model if call is None else call, instantiate(cfg.dataloader.test), evaluator
    )
    # Detectron2 would look for the annotations that it wrote, after the folder is gone.
    vars(MetadataCatalog.get(DATASET)).pop("json_file", None)
    return flatten_results_dict(found)
