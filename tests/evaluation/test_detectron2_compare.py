"""The whole comparison on real Detectron2 models, against Detectron2 run directly."""

from __future__ import annotations

import json
import math
import os
import re

import numpy as np
import pytest

pytest.importorskip("detectron2", reason="needs Detectron2 (make setup DETECTRON2=...)")

import torch
from detectron2.config import get_cfg
from detectron2.data import MetadataCatalog
from detectron2.modeling import GeneralizedRCNNWithTTA

from srt_plugins import srt_enabled
from srt_plugins.cli import main
from srt_plugins.core.views import resolve
from srt_plugins.evaluation import compare_detectron2
from srt_plugins.evaluation.detectron2_checkpoint import load_detectron2_weights
from srt_plugins.evaluation.detectron2_compare import DetectorRuns
from srt_plugins.evaluation.detectron2_session import Session
from srt_plugins.evaluation.request import Request
from srt_plugins.evaluation.rows import plan, settings_of

from . import detectron2_models as models
from .detectron2_models import DATASET, IMAGES, directly

GUIDED = "1x smoothing guided 0.75 0.4"
CONTROLS = ("1x smoothing [1 2 1]/4", "1x smoothing [1 4 6 4 1]/16", GUIDED)
SRT = ("SRT 4 views", "SRT 4 views + [1 2 1]/4")
OTHERS = ["controls", "oe", "flip", "larger"]


def command(made, out, *options) -> dict:
    argv = ["compare", "detectron2", made.config, made.checkpoint, "--out", str(out)]
    assert main([*argv, "--device", "cpu", *options]) == 0
    return json.loads((out / "compare.json").read_text())


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    torch.set_num_threads(1)
    return tmp_path_factory.mktemp("detectron2")


@pytest.fixture(scope="module")
def dense(folder):
    return models.lazy(folder, "dense", models._DENSE, "SemSegEvaluator")


@pytest.fixture(scope="module")
def detector(folder):
    return models.lazy(folder, "detector", models._DETECTOR, "COCOEvaluator")


@pytest.fixture(scope="module")
def dense_run(dense, tmp_path_factory):
    return command(dense, tmp_path_factory.mktemp("dense"))


@pytest.fixture(scope="module")
def detector_run(detector, tmp_path_factory):
    out = tmp_path_factory.mktemp("detector")
    return command(detector, out, "--target", "net"), out


def by_name(run) -> dict[str, dict]:
    return {row["name"]: row for row in run["rows"]}


def test_rows_of_a_segmentor(dense_run):
    *names, larger = [row["name"] for row in dense_run["rows"]]
    assert names == ["plain", *CONTROLS, *SRT, "output ensemble (OE), 4 views", "flip TTA"]
    assert re.fullmatch(r"larger input, x[\d.]+ per side", larger)
    ratios = [row["flops_ratio"] for row in dense_run["rows"]]
    assert ratios[0] == 1 and all(1 <= ratio < 1.2 for ratio in ratios[1:3])
    assert ratios[6:8] == [4, 2] and ratios[8] == pytest.approx(ratios[4], rel=0.3)
    assert dense_run["metric"] == "sem_seg/mIoU" and dense_run["images"] == IMAGES
    assert dense_run["meta_architecture"] == "SemanticSegmentor"


def test_figures_of_a_segmentor(dense_run):
    rows = by_name(dense_run)
    assert 15 < rows["plain"]["sem_seg/mIoU"] < 95
    for row in rows.values():
        for name in ("mIoU", "fwIoU", "mACC", "pACC"):
            assert row[f"sem_seg/{name}"] == row["reported"][f"sem_seg/{name}"]
        assert row["sem_seg/IoU per class"]["road"] == row["reported"]["sem_seg/IoU-road"]
        assert row["gain"] == pytest.approx(row["sem_seg/mIoU"] - rows["plain"]["sem_seg/mIoU"])
        low, high = row["gain_interval"]
        assert low <= high
        for name in ("", "data_", "evaluation_"):
            assert row[f"{name}seconds_per_image"] > 0
        assert row["peak_memory"] > 1 << 20
    assert len({row["sem_seg/pACC"] for row in rows.values()}) == len(rows)
    best = max(("plain", *CONTROLS), key=lambda name: rows[name]["sem_seg/mIoU"])
    assert dense_run["best_1x_control"] == best and rows[best]["gain_over_control"] == 0


@pytest.mark.parametrize(
    ("name", "keywords"),
    [("plain", {"level": 0}), (CONTROLS[0], dict(views=[(0, 0)], smooth=3)), (SRT[0], {})],
)
def test_a_segmentor_is_evaluated_as_by_detectron2(dense, dense_run, tmp_path, name, keywords):
    with srt_enabled(dense.model, **keywords):
        expected = directly(dense, tmp_path)
    reported = by_name(dense_run)[name]["reported"]
    assert expected.keys() == reported.keys()
    for key, value in expected.items():
        assert reported[key] == (None if math.isnan(value) else value), key


def test_rows_of_a_detector(detector_run):
    run, out = detector_run
    *names, larger = [row["name"] for row in run["rows"]]
    assert names == ["plain", *CONTROLS, *SRT, "flip TTA"]
    assert re.fullmatch(r"larger input, x[\d.]+ per side", larger)
    assert run["notes"] == [
        "output ensemble (OE): left out, outputs with instances have no mean over views.",
        "FLOPs: of the first image; a detector's vary with how much it finds.",
    ]
    rows = by_name(run)
    # Detectron2's TTA runs the backbone on both images twice: for boxes, and for masks.
    assert 2 < rows["flip TTA"]["flops_ratio"] < 4.5
    assert 1 < rows[SRT[0]]["flops_ratio"] < 4  # the heads run once
    assert rows[larger]["flops_ratio"] == pytest.approx(rows[SRT[0]]["flops_ratio"], rel=0.3)
    assert run["metric"] == "bbox/AP" and set(run["best_1x_controls"]) == {"bbox/AP", "segm/AP"}
    assert run["target"] == "net" and run["dataset"] == DATASET
    assert rows["plain"]["bbox/AP"] > 0 and rows["plain"]["segm/AP"] > 0
    assert len({row["bbox/AP"] for row in rows.values()}) > 4
    for row in rows.values():
        for task in ("bbox", "segm"):
            for name in ("AP", "AP50", "AP75", "APs", "APm", "APl"):
                assert row[f"{task}/{name}"] == row["reported"][f"{task}/{name}"]
            assert row[f"{task}/AP per class"]["car"] == row["reported"][f"{task}/AP-car"]
            assert row["gains"][f"{task}/AP"]["gain_interval"] is not None
    assert sorted(os.listdir(out)) == ["compare.json", "compare.md", "compare.png"]
    assert "box AP: " in run["conclusion"] and "\nmask AP: " in run["conclusion"]


def test_a_detector_is_evaluated_as_by_detectron2(detector, detector_run, tmp_path):
    rows = by_name(detector_run[0])
    (tmp_path / "a").mkdir()
    assert close(rows["plain"]["reported"], directly(detector, tmp_path / "a"))
    with srt_enabled(detector.model.backbone.net):
        assert close(rows[SRT[0]]["reported"], directly(detector, tmp_path / "a"))
    cfg = get_cfg()
    cfg.MODEL.MASK_ON, cfg.MODEL.ROI_HEADS.NUM_CLASSES = True, 4
    cfg.TEST.DETECTIONS_PER_IMAGE = 5
    cfg.TEST.AUG.MIN_SIZES, cfg.TEST.AUG.MAX_SIZE = (64,), 96
    flip = GeneralizedRCNNWithTTA(cfg, detector.model)
    assert close(rows["flip TTA"]["reported"], directly(detector, tmp_path / "a", flip))


def close(reported: dict, expected: dict) -> bool:
    assert reported.keys() == expected.keys()
    return all(
        (value is None and math.isnan(expected[key])) or value == pytest.approx(expected[key])
        for key, value in reported.items()
    )


def test_the_first_images_are_evaluated_alone(detector):
    few = compare_detectron2(
        detector.config, detector.checkpoint, [{}], skip=OTHERS, limit=3, device="cpu"
    )
    own = compare_detectron2(
        detector.config,
        detector.checkpoint,
        [{}],
        skip=OTHERS,
        dataset="scenes_val_3_64x96",
        device="cpu",
    )
    assert few.images == own.images == 3
    for one, other in zip(few.results, own.results):
        assert str(one.reported) == str(other.reported)


def test_batches_and_overrides(dense, dense_run):
    seen = []
    found = compare_detectron2(
        dense.config,
        dense.checkpoint,
        [{}],
        skip=["controls", "larger"],
        batch_size=4,
        cfg_options=["dataloader.test.num_workers=1"],
        device="cpu",
        progress=lambda *told: seen.append(told),
    )
    rows = by_name(dense_run)
    for name in ("plain", SRT[0], "output ensemble (OE), 4 views", "flip TTA"):
        assert found[name].pACC == pytest.approx(rows[name]["sem_seg/pACC"], abs=0.1)
    assert seen[:3] == [("plain", 0, 4, 4, 6), ("plain", 0, 4, 6, 6), (SRT[0], 1, 4, 4, 6)]


@pytest.mark.parametrize("name", ["dense", "detector"])
def test_everything_is_put_back(request, name):
    """Each row runs as if it were the only one; nothing stays on the model or in the catalogs."""
    made = request.getfixturevalue(name)
    with Session(made.config, Request(device="cpu", limit=2)) as session:
        load_detectron2_weights(session.model, made.checkpoint)
        settings = [settings_of(row) for row in ({}, {"smooth": 3})]
        srt = [(s, resolve(s.views, s.level, 8)) for s in settings]
        runs = DetectorRuns(session, "replicate", None, srt[0][1])
        rows = plan(srt, runs.without_counterpart(), own_padding=True, free_padding=True)
        session.model.eval()
        own = {key: dict(vars(module)) for key, module in session.model.named_modules()}
        first = [runs.measured(row, 0) for row in rows]
        after = {key: dict(vars(module)) for key, module in session.model.named_modules()}
        assert after.keys() == own.keys()
        for key in own:
            assert after[key].keys() == own[key].keys()
            assert not after[key]["_forward_hooks"] and not after[key]["_forward_pre_hooks"]
        again = [runs.measured(row, 0) for row in reversed(rows)][::-1]
        for one, other in zip(first, again):
            assert str(one.reported) == str(other.reported)
        folder = session._folder
    assert not os.path.exists(folder)
    assert "json_file" not in vars(MetadataCatalog.get(DATASET))
    assert not os.path.exists("not_written_to")


def test_yacs_with_srt_in_the_config(folder, tmp_path):
    from ..detectron2 import tiny

    made = models.yacs(folder, "rcnn")
    cfg = tiny.srt_cfg(made.cfg, target="bottom_up", level=1)
    (tmp_path / "srt.yaml").write_text(cfg.dump())
    skip = ["oe", "flip", "larger"]
    found = compare_detectron2(
        tmp_path / "srt.yaml", made.checkpoint, skip=skip, device="cpu", limit=2
    )
    assert [r.name for r in found.results] == [
        "plain", *CONTROLS, "SRT 9 views, level 1", "SRT 9 views, level 1 + [1 2 1]/4"
    ]  # fmt: skip
    assert found.context["target"] == "bottom_up"
    plain = compare_detectron2(made.config, made.checkpoint, skip=OTHERS, device="cpu", limit=2)
    assert str(plain["plain"].reported) == str(found["plain"].reported)
    other = compare_detectron2(
        made.config,
        made.checkpoint,
        skip=OTHERS,
        device="cpu",
        dataset="scenes_test_2_40x64",
        cfg_options=["INPUT.MIN_SIZE_TEST", "40"],
    )
    assert other.context["dataset"] == "scenes_test_2_40x64"


def test_a_lazy_config_with_srt_still_has_plain_rows(detector, detector_run):
    from detectron2.config import LazyConfig

    from srt_plugins.detectron2 import with_srt

    cfg = LazyConfig.load(detector.config)
    with_srt(cfg.model.backbone.net, views=2)
    found = compare_detectron2(cfg, detector.checkpoint, skip=OTHERS, device="cpu")
    assert [r.name for r in found.results] == ["plain", "SRT 2 views", "SRT 2 views + [1 2 1]/4"]
    assert found.context["target"] == "net"
    assert close(by_name(detector_run[0])["plain"]["reported"], found["plain"].reported)


def test_panoptic_models_have_three_metrics(folder):
    made = models.yacs(folder, "panoptic")
    found = compare_detectron2(made.config, made.checkpoint, [{}], device="cpu", limit=2)
    assert list(found.metrics) == ["sem_seg/mIoU", "bbox/AP", "segm/AP"]
    names = [r.row.method for r in found.results]
    assert "oe" not in names and "flip" not in names and "larger" in names
    assert "flip TTA: left out, Detectron2's GeneralizedRCNNWithTTA cannot run the inference of " \
        "PanopticFPN." in found.notes  # fmt: skip
    assert found["plain"].scores["sem_seg/mIoU"].gain_interval == (0, 0)


def test_free_completion_is_a_control_where_it_matters(folder):
    """An FPN pads 60 x 90 pixels to 64 x 96."""
    made = models.yacs(folder, "rcnn")
    arguments = dict(
        skip=["oe", "flip", "larger"],
        device="cpu",
        dataset="scenes_val_2_60x90",
        cfg_options={"INPUT.MIN_SIZE_TEST": 60},
    )
    found = compare_detectron2(made.config, made.checkpoint, [{}], **arguments)
    free = ["1x replicate padding", *(f"1x replicate padding, {c[3:]}" for c in CONTROLS)]
    assert [r.name for r in found.results] == ["plain", *CONTROLS, *free, SRT[0]]
    complete = compare_detectron2(
        made.config, made.checkpoint, [{}], complete="replicate", **arguments
    )
    assert [r.name for r in complete.results] == [
        "plain", "1x plain, own padding", *CONTROLS, SRT[0]
    ]  # fmt: skip
    assert str(complete["plain"].reported) == str(found[free[0]].reported)
    assert str(complete["1x plain, own padding"].reported) == str(found["plain"].reported)


def test_a_larger_square(tmp_path, detector):
    """A backbone that pads to a square pads to a larger one while its input is larger."""
    found = compare_detectron2(
        detector.config,
        detector.checkpoint,
        [{}],
        skip=["controls", "flip"],
        limit=1,
        device="cpu",
        cfg_options=["model.backbone.square_pad=96"],
    )
    *_, larger = found.results
    scale = float(re.fullmatch(r"larger input, x([\d.]+) per side", larger.name).group(1))
    assert scale > 1.2
    assert larger.flops_ratio == pytest.approx(found[SRT[0]].flops_ratio, rel=0.35)
    assert "too few images" in found.conclusion()
    assert np.isfinite(larger.seconds_per_image)
