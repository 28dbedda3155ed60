"""The scenes in MMSegmentation's own pipelines and Runner, and the demo checkpoint."""

from __future__ import annotations

import copy
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

import srt_plugins.mmseg  # noqa: F401  (before mmseg: the placeholder for mmcv's ops)

pytest.importorskip("mmseg")

from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmengine.runner import Runner
from mmseg.datasets.transforms import LoadAnnotations, LoadImageFromNDArray
from mmseg.registry import DATASETS

from srt_plugins.errors import ConfigError
from srt_plugins.mmseg.scenes import LoadScene, ScenesDataset
from srt_plugins.scenes import CLASSES, PALETTE, SPLIT_SEEDS, render

DEMO = Path(__file__).resolve().parents[2] / "examples" / "demo"
CHECKPOINT = DEMO / "vit_scenes.pth"
SIZE = (56, 90)


def build(pipeline, **kwargs):
    init_default_scope("mmseg")
    cfg = {"type": "ScenesDataset", "length": 3, "size": SIZE, "pipeline": pipeline, **kwargs}
    return DATASETS.build(cfg)


def test_test_pipeline_gives_what_was_rendered():
    load = {"type": "LoadScene", "depth": True}
    dataset = build([load, {"type": "PackSegInputs"}], split="test", test_mode=True)
    assert len(dataset) == 3
    assert dataset.metainfo["classes"] == CLASSES
    assert [tuple(c) for c in dataset.metainfo["palette"]] == list(PALETTE)
    for i in range(3):
        packed, scene = dataset[i], render(SPLIT_SEEDS["test"], i, SIZE)
        image = packed["inputs"]
        assert image.dtype == torch.uint8 and image.shape == (3, *SIZE)
        np.testing.assert_array_equal(image.flip(0).permute(1, 2, 0).numpy(), scene.image)
        sample = packed["data_samples"]
        assert sample.ori_shape == sample.img_shape == SIZE
        assert sample.reduce_zero_label is False
        assert sample.gt_sem_seg.data.dtype == torch.int64
        np.testing.assert_array_equal(sample.gt_sem_seg.data[0].numpy(), scene.labels)
        np.testing.assert_array_equal(sample.gt_depth_map.data[0].numpy(), scene.depth)
    assert len({dataset[i]["data_samples"].img_path for i in range(3)}) == 3


def test_keys_are_those_of_the_loaders_it_stands_in_for(tmp_path):
    info = build([]).get_data_info(0)
    ours = LoadScene()(copy.deepcopy(info))
    path = tmp_path / "labels.png"
    cv2.imwrite(str(path), render(SPLIT_SEEDS["val"], 0, SIZE).labels)
    theirs = LoadImageFromNDArray()({**copy.deepcopy(info), "img": ours["img"]})
    theirs = LoadAnnotations()({**theirs, "seg_map_path": str(path)})
    missing = set(theirs) - set(ours) - {"img_path", "seg_map_path"}
    assert not missing
    for key in ("img_shape", "ori_shape", "seg_fields", "reduce_zero_label"):
        assert ours[key] == theirs[key]
    np.testing.assert_array_equal(ours["gt_seg_map"], theirs["gt_seg_map"])


@pytest.mark.parametrize(
    "options",
    [
        {"reduce_zero_label": True},
        {"metainfo": {"classes": ("car", "road", "tree")}},
        {"metainfo": {"classes": ("car", "road", "tree")}, "reduce_zero_label": True},
    ],
)
def test_relabelling_is_that_of_load_annotations(tmp_path, options):
    dataset = build([], **options)
    path = tmp_path / "labels.png"
    for i in range(3):
        info = dataset.get_data_info(i)
        cv2.imwrite(str(path), render(SPLIT_SEEDS["val"], i, SIZE).labels)
        expected = LoadAnnotations()({**copy.deepcopy(info), "seg_map_path": str(path)})
        got = LoadScene()(info)
        np.testing.assert_array_equal(got["gt_seg_map"], expected["gt_seg_map"])
        assert len(np.unique(got["gt_seg_map"])) > 1


def test_training_pipeline_moves_labels_and_depth_with_the_picture():
    dataset = build(
        [
            {"type": "LoadScene", "depth": True, "cache": True},
            {"type": "RandomFlip", "prob": 1.0},
            {"type": "RandomCrop", "crop_size": (40, 48)},
            {"type": "PackSegInputs"},
        ],
        split="train",
    )
    for _ in range(2):  # from the renderer, then from the cache
        packed, scene = dataset[1], render(SPLIT_SEEDS["train"], 1, SIZE)
        assert packed["inputs"].shape == (3, 40, 48)
        crop = packed["inputs"].flip(0).permute(1, 2, 0).numpy()
        mirrored = scene.image[:, ::-1]
        at = [
            (y, x)
            for y in range(SIZE[0] - 39)
            for x in range(SIZE[1] - 47)
            if (mirrored[y : y + 40, x : x + 48] == crop).all()
        ]
        assert len(at) == 1
        rows, cols = (slice(at[0][0], at[0][0] + 40), slice(at[0][1], at[0][1] + 48))
        labels = packed["data_samples"].gt_sem_seg.data[0].numpy()
        depth = packed["data_samples"].gt_depth_map.data[0].numpy()
        np.testing.assert_array_equal(labels, scene.labels[:, ::-1][rows, cols])
        np.testing.assert_array_equal(depth, scene.depth[:, ::-1][rows, cols])


def test_the_cache_survives_transforms_that_write_in_place():
    info, load = build([]).get_data_info(0), LoadScene(depth=True, cache=True)
    first = load(copy.deepcopy(info))
    kept = {k: first[k].copy() for k in ("img", "gt_seg_map", "gt_depth_map")}
    for k in kept:
        first[k][:] = 0
    again = load(copy.deepcopy(info))
    for k, expected in kept.items():
        np.testing.assert_array_equal(again[k], expected)


def test_unknown_split_is_refused():
    with pytest.raises(ConfigError, match=r"split.*'dev'"):
        ScenesDataset(split="dev")


def test_checkpoint_holds_plain_finite_tensors_and_is_small():
    assert CHECKPOINT.stat().st_size < 8e6
    saved = torch.load(CHECKPOINT, weights_only=True)
    assert set(saved) == {"state_dict", "meta"}
    assert saved["meta"]["dataset_meta"]["classes"] == list(CLASSES)
    assert all(type(v) is torch.Tensor and v.isfinite().all() for v in saved["state_dict"].values())


def test_checkpoint_fits_the_config_and_beats_the_majority(tmp_path):
    cfg = Config.fromfile(str(DEMO / "vit_scenes.py"))
    cfg.work_dir, cfg.log_level = str(tmp_path), "ERROR"
    cfg.load_from = str(CHECKPOINT)
    cfg.test_dataloader.dataset.indices = 4
    runner = Runner.from_cfg(cfg)
    state = torch.load(CHECKPOINT, weights_only=True)["state_dict"]
    loaded = runner.model.load_state_dict(state, strict=True)
    assert not loaded.missing_keys and not loaded.unexpected_keys
    for p in runner.model.parameters():
        torch.nn.init.zeros_(p)  # so that only mmengine's own loading can bring the weights
    miou = runner.test()["mIoU"]
    assert {p.dtype for p in runner.model.parameters()} == {torch.float32}

    labels = np.stack([render(SPLIT_SEEDS["val"], i, cfg.scene_size).labels for i in range(4)])
    share = np.bincount(labels.ravel(), minlength=len(CLASSES)) / labels.size
    majority = 100 * share.max() / (share > 0).sum()  # IoU of the majority class, 0 elsewhere
    assert majority < 10
    assert miou > 3 * majority
    assert miou > 40
