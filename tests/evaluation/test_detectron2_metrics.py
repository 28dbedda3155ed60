"""Figures and per-image statistics of Detectron2's evaluators, on predictions that are partly
right."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("detectron2", reason="needs Detectron2 (make setup DETECTRON2=...)")

import pycocotools.mask
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.detection_utils import read_image
from detectron2.evaluation import COCOEvaluator, DatasetEvaluator, SemSegEvaluator
from detectron2.structures import Boxes, Instances

from srt_plugins.detectron2 import register_scenes
from srt_plugins.errors import ConfigError
from srt_plugins.evaluation.bootstrap import draw
from srt_plugins.evaluation.detectron2_metrics import Collector, collectors
from srt_plugins.evaluation.gains import compare
from srt_plugins.evaluation.results import Measured
from srt_plugins.evaluation.rows import Row

IMAGES, SIZE = 8, (64, 96)


@pytest.fixture(scope="module")
def name():
    return register_scenes("val", IMAGES, SIZE)


@pytest.fixture
def clean(name):
    yield
    vars(MetadataCatalog.get(name)).pop("json_file", None)


def predicted(name: str, noise: float, seed: int = 0) -> list[dict]:
    """The objects themselves, moved by ``noise`` pixels, some with a wrong class; half the
    detections of them are false.
    """
    rng = np.random.default_rng(seed)
    outputs = []
    for one in DatasetCatalog.get(name):
        boxes, classes, masks = [], [], []
        for annotation in one["annotations"]:
            mask = pycocotools.mask.decode(annotation["segmentation"]).astype(bool)
            dy, dx = rng.normal(0, noise, 2)
            boxes.append(np.add(annotation["bbox"], [dx, dy, dx, dy]))
            masks.append(np.roll(mask, (round(dy), round(dx)), (0, 1)))
            classes.append(annotation["category_id"] if rng.random() < 0.8 else rng.integers(0, 4))
        for _ in range(3):
            x, y = rng.uniform(0, 60, 2)
            boxes.append(np.array([x, y, x + 20, y + 20]))
            masks.append(rng.random(SIZE) < 0.1)
            classes.append(rng.integers(0, 4))
        found = Instances(SIZE)
        found.pred_boxes = Boxes(torch.tensor(np.array(boxes), dtype=torch.float32))
        found.pred_classes = torch.tensor(np.array(classes), dtype=torch.int64)
        found.pred_masks = torch.tensor(np.array(masks))
        found.scores = torch.tensor(rng.random(len(boxes)), dtype=torch.float32)
        outputs.append({"instances": found})
    return outputs


def run(collector, inputs, outputs):
    """Two batches, the second of one image."""
    collector.reset()
    collector.process(inputs[:-1], outputs[:-1])
    collector.process(inputs[-1:], outputs[-1:])
    return collector.metrics(collector.evaluate())


@pytest.mark.parametrize("fast", [True, False])
def test_detection_figures_are_the_evaluator_s(name, clean, tmp_path, fast):
    inputs, outputs = DatasetCatalog.get(name), predicted(name, 0.8)

    def make():
        return COCOEvaluator(name, ("bbox", "segm"), False, str(tmp_path), use_fast_impl=fast)

    box, mask = run(*collectors([make()], None), inputs, outputs)
    evaluator = make()
    evaluator.reset()
    evaluator.process(inputs, outputs)
    expected = evaluator.evaluate()
    for metric, task in ((box, "bbox"), (mask, "segm")):
        for figure, value in metric.figures().items():
            np.testing.assert_equal(value, expected[task][figure.rpartition("/")[2]])
        for label, value in metric.per_class()[f"{task}/AP per class"].items():
            np.testing.assert_equal(value, expected[task][f"AP-{label}"])
        assert 10 < metric.figures()[f"{task}/AP"] < 90
        once = metric.resampled(np.ones((1, IMAGES), dtype=int))
        assert once[0] == pytest.approx(expected[task]["AP"], abs=1e-6)
    assert (box.main.label, mask.main.label) == ("box AP", "mask AP")


def test_a_better_detector_is_told_from_a_worse_one(name, clean, tmp_path):
    inputs = DatasetCatalog.get(name)
    (collector,) = collectors([COCOEvaluator(name, None, False, str(tmp_path))], None)
    measured = [
        Measured(row, run(collector, inputs, predicted(name, noise)), {}, [1.0], 1)
        for row, noise in ((Row("plain", "plain", "plain"), 4), (Row("SRT", "srt", "srt"), 0.3))
    ]
    found = compare(measured, [], resamples=300)
    for metric in ("bbox/AP", "segm/AP"):
        score = found["SRT"].scores[metric]
        low, high = score.gain_interval
        assert 0 < low < score.gain < high
        assert score.gain_over_control_interval == score.gain_interval
    assert "\nmask AP: No 1x control beats the plain model. SRT adds +" in found.conclusion()


def test_an_ap_that_is_not_of_the_matches_has_no_interval(name, clean, tmp_path):
    (collector,) = collectors([COCOEvaluator(name, ("bbox",), False, str(tmp_path))], None)
    (box,) = run(collector, DatasetCatalog.get(name), predicted(name, 1))
    assert box.resampled(draw(IMAGES, 3)) is not None
    box.values["bbox/AP"] += 1
    assert box.resampled(draw(IMAGES, 3)) is None


def test_no_detections_at_all(name, clean, tmp_path):
    outputs = predicted(name, 1)
    for output in outputs:
        output["instances"] = output["instances"][:0]
    (collector,) = collectors([COCOEvaluator(name, ("bbox",), False, str(tmp_path))], None)
    plain, srt = Row("plain", "plain", "plain"), Row("SRT", "srt", "srt")
    metrics = run(collector, DatasetCatalog.get(name), outputs)
    assert np.isnan(metrics[0].figures()["bbox/AP"])
    right = run(collector, DatasetCatalog.get(name), predicted(name, 1))
    found = compare([Measured(plain, metrics, {}, [1], 1), Measured(srt, right, {}, [1], 1)], [])
    assert "cannot be told" in found.conclusion()
    assert found.to_dict()["rows"][0]["bbox/AP"] is None


def labels(one: dict) -> np.ndarray:
    return read_image(one["sem_seg_file_name"], "L").squeeze(2)


def segmented(name: str, seed: int = 0) -> list[dict]:
    """Labels with a fifth of the pixels of another class, as logits; class 9 is never right."""
    rng = np.random.default_rng(seed)
    outputs = []
    for one in DatasetCatalog.get(name):
        found = labels(one).astype(int)
        wrong = (rng.random(found.shape) < 0.2) | (found == 9) | (found > 9)
        found[wrong] = rng.integers(0, 9, wrong.sum())
        outputs.append({"sem_seg": torch.eye(10)[torch.from_numpy(found)].permute(2, 0, 1)})
    return outputs


def test_segmentation_figures_are_the_evaluator_s(name):
    inputs, outputs = DatasetCatalog.get(name), segmented(name)
    (metric,) = run(*collectors([SemSegEvaluator(name, False)], None), inputs, outputs)
    counts = draw(IMAGES, 6, seed=1)
    for resample, own in zip(counts, metric.resampled(counts)):
        evaluator = SemSegEvaluator(name, False)
        evaluator.reset()
        for one, output, count in zip(inputs, outputs, resample):
            evaluator.process([one] * count, [output] * count)
        assert own == pytest.approx(evaluator.evaluate()["sem_seg"]["mIoU"], abs=1e-9)
    once = metric.resampled(np.ones((1, IMAGES), dtype=int))
    assert once[0] == pytest.approx(metric.figures()["sem_seg/mIoU"], abs=1e-9)
    assert 20 < once[0] < 90
    assert set(metric.figures()) == {f"sem_seg/{k}" for k in ("mIoU", "fwIoU", "mACC", "pACC")}
    assert len(metric.per_class()["sem_seg/IoU per class"]) == 10


def test_a_class_that_is_only_predicted_does_not_count():
    from srt_plugins.evaluation.scores import mean_iou

    totals = np.array([[5.0, 0], [10, 4], [9, 4], [6, 0]])
    assert mean_iou(totals) == 25
    assert mean_iou(totals, labelled_only=True) == 50


class Counting(DatasetEvaluator):
    """An evaluator of one's own."""

    def evaluate(self):
        return {"mine": {"AP": 12.5, "AP-a-b": 1.0, "text": "no figure"}}


def test_other_evaluators_give_their_figures(name):
    (collector,) = collectors([Counting()], None)
    assert type(collector) is Collector
    (metric,) = run(collector, DatasetCatalog.get(name), segmented(name))
    assert metric.figures() == {"mine/AP": 12.5} and metric.images == IMAGES
    assert metric.per_class() == {"mine/AP per class": {"a-b": 1.0}}
    assert metric.resampled(draw(IMAGES, 3)) is None
    rows = [Row("plain", "plain", "plain"), Row("SRT", "srt", "srt")]
    found = compare([Measured(row, [metric], {}, [1.0], 1) for row in rows], [])
    assert found["SRT"].gain_interval is None and found["SRT"].AP == 12.5
    assert found.conclusion().endswith("beyond it; no interval.")


def test_what_cannot_be_evaluated():
    with pytest.raises(ConfigError, match="DatasetEvaluator, got object"):
        collectors([object()], None)
    with pytest.raises(ConfigError, match="no limit with Counting"):
        collectors([Counting()], 3)
