"""The CamVid model of vit_camvid.py in Detectron2: timm's ViT, a linear head, SemSegEvaluator.

    python benchmarks/camvid/to_detectron2.py vit_camvid.pth vit_camvid_d2.pth
    CAMVID_ROOT=path/to/camvid python -m srt_plugins compare detectron2 \
        benchmarks/camvid/vit_camvid_d2.py vit_camvid_d2.pth

``CAMVID_ROOT`` holds ``val`` (images) and ``valannot`` (label maps, 11 = unlabelled).
"""

import os
from pathlib import Path

from detectron2.config import LazyCall as L
from detectron2.data import (
    DatasetCatalog,
    DatasetMapper,
    MetadataCatalog,
    build_detection_test_loader,
    get_detection_dataset_dicts,
)
from detectron2.data.datasets import load_sem_seg
from detectron2.evaluation import SemSegEvaluator
from detectron2.layers import ShapeSpec
from detectron2.modeling import SemanticSegmentor
from omegaconf import OmegaConf

from srt_plugins.detectron2 import LinearSemSegHead, TorchBackbone, timm_net

CLASSES = [
    *("Sky", "Building", "Pole", "Road", "Pavement", "Tree"),
    *("SignSymbol", "Fence", "Car", "Pedestrian", "Bicyclist"),
]


def register_camvid(split="val"):
    """Register a split of the folder that CAMVID_ROOT names; returns the dataset's name."""
    name = f"camvid_{split}"
    if name not in DatasetCatalog:
        root = Path(os.environ.get("CAMVID_ROOT", "camvid"))
        images, labels = str(root / split), str(root / f"{split}annot")
        DatasetCatalog.register(name, lambda: load_sem_seg(labels, images, "png", "png"))
        MetadataCatalog.get(name).set(
            stuff_classes=CLASSES, ignore_label=len(CLASSES), evaluator_type="sem_seg"
        )
    return name


model = L(SemanticSegmentor)(
    backbone=L(TorchBackbone)(
        net=L(timm_net)(
            name="vit_base_patch16_224",
            img_size=(368, 480),  # the position table has this size, see to_detectron2.py
            embed_dim=256,
            depth=10,
            num_heads=4,
            out_indices=[9],
            norm=True,
        ),
        # Images are padded with zeros to whole patches, 360 x 480 to 368 x 480.
        size_divisibility=16,
    ),
    sem_seg_head=L(LinearSemSegHead)(
        input_shape={"p0": L(ShapeSpec)(channels=256, stride=16)}, num_classes=len(CLASSES)
    ),
    pixel_mean=[123.675, 116.28, 103.53],
    pixel_std=[58.395, 57.12, 57.375],
)

dataloader = OmegaConf.create()
dataloader.test = L(build_detection_test_loader)(
    dataset=L(get_detection_dataset_dicts)(names=L(register_camvid)(), filter_empty=False),
    mapper=L(DatasetMapper)(is_train=False, augmentations=[], image_format="RGB"),
    num_workers=0,
)
dataloader.evaluator = L(SemSegEvaluator)(dataset_name="${..test.dataset.names}", distributed=False)
train = dict(device="cpu")
