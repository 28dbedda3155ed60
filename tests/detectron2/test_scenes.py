"""The procedural scenes through Detectron2's own loaders and evaluators."""

from __future__ import annotations

import pytest

pytest.importorskip("detectron2", reason="needs Detectron2 (make setup DETECTRON2=...)")

import numpy as np
import torch
from detectron2.data import (
    DatasetCatalog,
    DatasetMapper,
    MetadataCatalog,
    build_detection_test_loader,
)
from detectron2.data import transforms as T
from detectron2.data.detection_utils import read_image
from detectron2.evaluation import COCOEvaluator, SemSegEvaluator
from detectron2.structures import Boxes, Instances
from detectron2.utils.file_io import PathManager
from PIL import Image

from srt_plugins import ConfigError
from srt_plugins.detectron2.scenes import register_scenes
from srt_plugins.scenes import CLASSES, THING_CLASSES, Scenes

SIZE = (64, 96)


@pytest.fixture(scope="module")
def name():
    return register_scenes("val", 4, SIZE)


def test_pictures_and_labels_are_the_rendered_ones(name):
    for item, scene in zip(DatasetCatalog.get(name), Scenes("val", 4, SIZE)):
        assert np.array_equal(read_image(item["file_name"], "RGB"), scene.image)
        assert np.array_equal(read_image(item["file_name"], "BGR"), scene.image[..., ::-1])
        with PathManager.open(item["sem_seg_file_name"], "rb") as file:
            assert np.array_equal(np.asarray(Image.open(file)), scene.labels)


def test_instances_are_the_rendered_ones(name):
    mapper = DatasetMapper(
        is_train=True,
        augmentations=[],
        image_format="RGB",
        use_instance_mask=True,
        instance_mask_format="bitmask",
    )
    total = 0
    for item, scene in zip(DatasetCatalog.get(name), Scenes("val", 4, SIZE)):
        instances = mapper(item)["instances"]
        assert np.allclose(instances.gt_boxes.tensor.numpy(), scene.boxes)
        assert np.array_equal(instances.gt_masks.tensor.numpy(), scene.masks)
        found = [THING_CLASSES[i] for i in instances.gt_classes]
        assert found == [CLASSES[i] for i in scene.classes]
        total += len(found)
    assert total > 0


def test_augmentations_and_loaders_apply(name):
    augmentations = [T.Resize((32, 48))]
    mapper = DatasetMapper(is_train=False, augmentations=augmentations, image_format="RGB")
    loader = build_detection_test_loader(DatasetCatalog.get(name), mapper=mapper, num_workers=0)
    (first,) = next(iter(loader))
    assert first["image"].shape == (3, 32, 48)
    assert (first["height"], first["width"]) == SIZE


def perfect(scene):
    instances = Instances(SIZE)
    instances.pred_boxes = Boxes(torch.from_numpy(scene.boxes))
    things = {CLASSES.index(n): i for i, n in enumerate(THING_CLASSES)}
    instances.pred_classes = torch.tensor([things[int(c)] for c in scene.classes])
    instances.scores = torch.ones(len(scene.classes))
    instances.pred_masks = torch.from_numpy(scene.masks)
    return instances


def test_the_evaluators_give_full_marks_to_the_truth(name, tmp_path):
    scenes = list(Scenes("val", 4, SIZE))
    items = DatasetCatalog.get(name)
    coco = COCOEvaluator(name, ("bbox", "segm"), distributed=False, output_dir=str(tmp_path))
    labels = SemSegEvaluator(name, distributed=False)
    for evaluator in (coco, labels):
        evaluator.reset()
    for item, scene in zip(items, scenes):
        scores = torch.nn.functional.one_hot(torch.from_numpy(scene.labels).long(), len(CLASSES))
        coco.process([item], [{"instances": perfect(scene)}])
        labels.process([item], [{"sem_seg": scores.permute(2, 0, 1)}])
    results = coco.evaluate()
    assert results["bbox"]["AP"] == pytest.approx(100)
    assert results["segm"]["AP"] == pytest.approx(100)
    assert labels.evaluate()["sem_seg"]["mIoU"] == pytest.approx(100)


def test_registering_again_gives_the_same_name(name):
    assert register_scenes("val", 4, SIZE) == name
    assert register_scenes("val", 5, SIZE) != name
    assert MetadataCatalog.get(name).thing_classes == list(THING_CLASSES)
    assert register_scenes("train", 2, SIZE, name="my_scenes") == "my_scenes"
    assert len(DatasetCatalog.get("my_scenes")) == 2


@pytest.mark.parametrize("path", ["val/64x96/no.png", "vals/64x96/00001.png", "val/64x96"])
def test_paths_that_name_no_scene(name, path):
    with pytest.raises(FileNotFoundError, match="Expected scenes://"):
        PathManager.open(f"scenes://{path}", "rb")


def test_mistakes(name):
    with pytest.raises(ConfigError, match="split"):
        register_scenes("vla")
    with pytest.raises(ConfigError, match="length"):
        register_scenes("val", 0)
    with pytest.raises(ConfigError, match="another"):
        register_scenes("train", 7, SIZE, name="my_scenes")
