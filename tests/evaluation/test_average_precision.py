"""AP of resamples against pycocotools itself, run on data in which images are repeated."""

from __future__ import annotations

import contextlib
import copy
import io

import numpy as np
import pytest

pytest.importorskip("pycocotools", reason="needs pycocotools, which comes with Detectron2")

from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from srt_plugins.evaluation.average_precision import average_precisions, coco_matches, mean_ap
from srt_plugins.evaluation.bootstrap import draw

IMAGES, CLASSES = 9, 4  # class 4 has detections but no objects; class 3 is in one image only


def data(seed: int = 0) -> tuple[list[list[dict]], list[list[dict]]]:
    """Objects and detections per image: objects moved a little, missed ones, and false ones."""
    rng = np.random.default_rng(seed)
    objects, detections = [], []
    for image in range(IMAGES):
        objects.append([])
        detections.append([])
        for _ in range(rng.integers(0, 7)):
            label = 3 if image == 2 and rng.random() < 0.4 else int(rng.integers(1, 3))
            box = [*rng.uniform(0, 300, 2), *rng.choice([15.0, 60.0, 150.0], 2)]
            crowd = int(rng.random() < 0.15)
            objects[-1].append({"category_id": label, "bbox": box, "iscrowd": crowd})
            for _ in range(rng.integers(0, 3)):
                moved = np.array(box) + rng.normal(0, 0.06, 4) * np.tile(box[2:], 2)
                found = label if rng.random() < 0.85 else int(rng.integers(1, 5))
                detections[-1].append(
                    detection(found, [*moved[:2], *np.maximum(moved[2:], 1)], rng)
                )
        for _ in range(rng.integers(0, 5)):
            box = [*rng.uniform(0, 300, 2), *rng.uniform(5, 120, 2)]
            detections[-1].append(detection(int(rng.integers(1, 5)), box, rng))
    return objects, detections


def detection(label: int, box: list[float], rng: np.random.Generator) -> dict:
    return {"category_id": label, "bbox": [float(v) for v in box], "score": float(rng.random())}


def evaluated(objects, detections, counts=None, kind=COCOeval):
    """``COCOeval`` of images, each repeated as often as counted."""
    counts = [1] * len(objects) if counts is None else counts
    truth: dict = {"images": [], "annotations": [], "info": {}}
    truth["categories"] = [{"id": k, "name": str(k)} for k in range(1, CLASSES + 1)]
    results = []
    for i, count in enumerate(counts):
        for _ in range(count):
            number = len(truth["images"]) + 1
            truth["images"].append({"id": number, "height": 500, "width": 500})
            for one in objects[i]:
                w, h = one["bbox"][2:]
                more = {"id": len(truth["annotations"]) + 1, "image_id": number, "area": w * h}
                truth["annotations"].append({**one, **more})
            results += [{**one, "image_id": number} for one in detections[i]]
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        coco.dataset = truth
        coco.createIndex()
        made = kind(coco, coco.loadRes(copy.deepcopy(results)), "bbox")
        made.evaluate()
        made.accumulate()
        made.summarize()
    return made


def official(made, area: int = 0) -> np.ndarray:
    """AP in percent per threshold and class, ``(T, C)``, NaN for absent classes."""
    precision = made.eval["precision"][:, :, :, area, -1]
    return np.where((precision > -1).all(1), 100 * precision.mean(1), np.nan)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("area", ["all", "small", "medium", "large"])
def test_every_image_once_is_coco_s_own_figure(area, seed):
    made = evaluated(*data(seed))
    index = made.params.areaRngLbl.index(area)
    found = average_precisions(coco_matches(made, area), np.ones((1, IMAGES), dtype=int))
    np.testing.assert_allclose(found[0], official(made, index), atol=1e-9)
    stats = 100 * made.stats[{"all": 0, "small": 3, "medium": 4, "large": 5}[area]]
    assert 0 <= stats < 100
    assert mean_ap(found)[0] == pytest.approx(stats, abs=1e-9)
    if area == "all":
        assert 20 < stats < 80
        assert np.nanmean(found[0, 0]) == pytest.approx(100 * made.stats[1], abs=1e-9)
        assert np.nanmean(found[0, 5]) == pytest.approx(100 * made.stats[2], abs=1e-9)
        assert np.isnan(found[0, :, 3]).all()  # a class without objects


@pytest.mark.parametrize("seed", range(3))
def test_a_resample_is_coco_on_repeated_images(seed):
    objects, detections = data(seed)
    counts = draw(IMAGES, 12, seed=seed)
    found = average_precisions(coco_matches(evaluated(objects, detections)), counts)
    for resample, own in zip(counts, found):
        made = evaluated(objects, detections, resample)
        np.testing.assert_allclose(own, official(made), atol=1e-9)
        assert mean_ap(own[None])[0] == pytest.approx(100 * made.stats[0], abs=1e-9)
    assert len(np.unique(mean_ap(found).round(6))) > 6


def test_in_blocks(monkeypatch):
    from srt_plugins.evaluation import average_precision

    matches, counts = coco_matches(evaluated(*data())), draw(IMAGES, 30)
    whole = average_precisions(matches, counts)
    monkeypatch.setattr(average_precision, "_BLOCK", 50)
    np.testing.assert_array_equal(average_precisions(matches, counts), whole)


def test_detectron2_s_faster_evaluation_is_matched_again():
    fast = pytest.importorskip(
        "detectron2.evaluation.fast_eval_api", reason="needs Detectron2 with compiled code"
    )
    made = evaluated(*data(), kind=fast.COCOeval_opt)
    assert not made.evalImgs  # it keeps its matches to itself
    once = np.ones((1, IMAGES), dtype=int)
    assert mean_ap(average_precisions(coco_matches(made), once))[0] == pytest.approx(
        100 * made.stats[0], abs=1e-6
    )


def test_nothing_found_and_nothing_there():
    objects, detections = data()
    lost = [[{**one, "bbox": [490, 490, 1, 1]} for one in image] for image in detections]
    once = np.ones((1, IMAGES), dtype=int)
    found = average_precisions(coco_matches(evaluated(objects, lost)), once)
    assert np.isnan(found[0, :, 3]).all() and (found[0, :, :2] == 0).all()
    found = average_precisions(coco_matches(evaluated([[]] * IMAGES, detections)), once)
    assert np.isnan(found).all() and np.isnan(mean_ap(found)).all()
