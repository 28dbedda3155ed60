"""The detector that the project ships: it detects, and SRT runs on what it detects."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("detectron2", reason="needs Detectron2 (make setup DETECTRON2=...)")

import torch
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.config import LazyConfig, instantiate
from detectron2.evaluation import inference_on_dataset

from srt_plugins import attach, detach

FOLDER = Path(__file__).resolve().parents[2] / "examples" / "detection"
pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(scope="module")
def cfg(tmp_path_factory):
    made = LazyConfig.load(str(FOLDER / "vitdet_scenes.py"))
    made.dataloader.test.dataset.names.length = 5
    made.train.output_dir = str(tmp_path_factory.mktemp("out"))
    return made


@pytest.fixture(scope="module")
def model(cfg):
    made = instantiate(cfg.model).eval()
    unused = DetectionCheckpointer(made).load(str(FOLDER / "vitdet_scenes.pth"))
    assert set(unused) <= {"__author__", "iteration", "matching_heuristics"}, unused
    saved = torch.load(FOLDER / "vitdet_scenes.pth", weights_only=True)["model"]
    for key, value in made.state_dict().items():
        assert torch.equal(value.half(), saved[key]), key
    return made


def instances(model, loader):
    with torch.no_grad():
        return [output["instances"] for batch in loader for output in model(batch)]


def test_it_detects_with_and_without_srt(cfg, model):
    loader = instantiate(cfg.dataloader.test)
    for srt in (None, dict(views=2)):
        if srt is not None:
            attach(model, **srt)
        results = inference_on_dataset(model, loader, instantiate(cfg.dataloader.evaluator))
        detach(model)
        # Chance is far below one: ten pixels of overlap do not happen by themselves.
        assert results["bbox"]["AP50"] > 25 and results["segm"]["AP50"] > 20


def test_level_zero_gives_the_same_instances_to_the_bit(cfg, model):
    loader = instantiate(cfg.dataloader.test)
    before = instances(model, loader)
    attach(model, level=0)
    after = instances(model, loader)
    attach(model, views=2)
    other = instances(model, loader)
    detach(model)
    assert sum(len(found) for found in before) > 20
    for a, b in zip(before, after):
        assert a.get_fields().keys() == b.get_fields().keys()
        assert torch.equal(a.pred_boxes.tensor, b.pred_boxes.tensor)
        for field in ("scores", "pred_classes", "pred_masks"):
            assert torch.equal(a.get(field), b.get(field))
    assert any(
        len(a) != len(c) or not torch.equal(a.scores, c.scores) for a, c in zip(before, other)
    )
