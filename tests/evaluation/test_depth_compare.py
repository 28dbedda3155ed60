"""`srt compare mmseg` on real depth estimators, against backbone, head and errors run by hand."""

from __future__ import annotations

import json
import math
import os

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from srt_plugins import srt_enabled
from srt_plugins.cli import main
from srt_plugins.errors import ConfigError
from srt_plugins.evaluation import compare_mmseg
from srt_plugins.evaluation.checkpoint import load_weights
from srt_plugins.evaluation.depth import FIGURES
from srt_plugins.evaluation.mmseg_session import Session
from srt_plugins.evaluation.request import Request

from . import depth_models as models
from .depth_models import PADDED, RANGE, cropped, depth_of, padded
from .test_depth import THEIRS, slow_errors

# The default ones for patches of 8.
VIEWS = [(0, 0), (0, 4), (4, 0), (4, 4)]
SRT, OE = "SRT 4 views", "output ensemble (OE), 4 views"
ALL = ["controls", "oe", "flip", "larger"]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return models.made(tmp_path_factory.mktemp("depth"))


@pytest.fixture(scope="module")
def run(tiny, tmp_path_factory):
    """The command, once."""
    out = tmp_path_factory.mktemp("out")
    argv = ["compare", "mmseg", tiny.config, tiny.checkpoint, "--out", str(out), "--device", "cpu"]
    assert main(argv) == 0
    return out, json.loads((out / "compare.json").read_text())


def rows(run) -> dict:
    return {row["name"]: row for row in run[1]["rows"]}


def directly(config, checkpoint, folder) -> dict:
    """What MMSegmentation's Runner reports, written without this package's session."""
    from mmengine.config import Config
    from mmengine.runner import Runner

    cfg = Config.fromfile(config)
    cfg.work_dir, cfg.load_from, cfg.log_level = str(folder), checkpoint, "ERROR"
    cfg.test_dataloader.update(num_workers=0, persistent_workers=False)
    runner = Runner.from_cfg(cfg)
    runner.model.to("cpu")
    return runner.test()


@torch.no_grad()
def by_hand(predict) -> tuple[list[float], list[float]]:
    """Mean errors over the scenes, and the RMSE of each, of a map from image to depth."""
    errors = [
        slow_errors(predict(image), truth, *RANGE, crop=False, clamp=False)
        for image, truth in models.scenes()
    ]
    return np.mean(errors, 0).tolist(), [one[0] for one in errors]


def ensembled(model, image) -> np.ndarray:
    """The output ensemble, view by view and pixel by pixel."""
    wide = F.pad(padded(image), (0, 8, 0, 8), mode="replicate")
    wide = F.pad(wide, (8, 0, 8, 0), mode="replicate")
    total, seen = np.zeros(PADDED), np.zeros(PADDED)
    for dy, dx in VIEWS:
        view = wide[..., 8 - dy : 8 - dy + PADDED[0], 8 - dx : 8 - dx + PADDED[1]]
        depth = depth_of(model, view)[0, 0].double().numpy()
        for y in range(PADDED[0] - dy):
            for x in range(PADDED[1] - dx):
                total[y, x] += depth[y + dy, x + dx]
                seen[y, x] += 1
    return (total / seen)[: models.SIZE[0], : models.SIZE[1]]


def flipped(model, image) -> np.ndarray:
    mirrored = depth_of(model, padded(image).flip(3)).flip(3)
    return cropped((depth_of(model, padded(image)) + mirrored) / 2)


def with_srt(model, image) -> np.ndarray:
    with srt_enabled(model, views=VIEWS):
        return cropped(depth_of(model, padded(image)))


@pytest.mark.parametrize(
    ("name", "predict"),
    [
        ("plain", lambda model, image: cropped(depth_of(model, padded(image)))),
        (
            "1x replicate padding",
            lambda model, image: cropped(depth_of(model, padded(image, "replicate"))),
        ),
        (SRT, with_srt),
        ("flip TTA", flipped),
    ],
)
def test_rows_are_what_backbone_and_head_give(run, tiny, name, predict):
    row = rows(run)[name]
    expected, _ = by_hand(lambda image: predict(tiny.model, image))
    assert [row[figure] for figure in FIGURES] == pytest.approx(expected, rel=1e-5)


def test_the_output_ensemble_is_a_loop_over_pixels(run, tiny):
    expected, _ = by_hand(lambda image: ensembled(tiny.model, image))
    assert [rows(run)[OE][figure] for figure in FIGURES] == pytest.approx(expected, rel=1e-5)


def test_gains_and_intervals(run, tiny):
    plain, ours = (
        by_hand(lambda image, p=p: p(tiny.model, image))[1]
        for p in (lambda m, i: cropped(depth_of(m, padded(i))), with_srt)
    )
    row = rows(run)[SRT]
    reductions = np.array(plain) - np.array(ours)
    assert row["gain"] == pytest.approx(reductions.mean(), rel=1e-4)
    assert row["relative_gain"] == pytest.approx(100 * reductions.mean() / np.mean(plain), rel=1e-4)
    low, high = row["gain_interval"]
    assert reductions.min() <= low < row["gain"] < high <= reductions.max()
    best = min(
        (row for row in run[1]["rows"] if row["kind"] in ("plain", "control")),
        key=lambda row: row["RMSE"],
    )
    assert run[1]["best_1x_control"] == best["name"]
    assert row["gain_over_control"] == pytest.approx(best["RMSE"] - row["RMSE"])


def test_the_framework_reports_what_it_does_alone(run, tiny, tmp_path):
    assert rows(run)["plain"]["reported"] == directly(tiny.config, tiny.checkpoint, tmp_path)
    for row in rows(run).values():
        ours, theirs = [row[f] for f in FIGURES], [row["reported"][f] for f in THEIRS]
        assert ours == pytest.approx(theirs, rel=1e-6)
    assert len({row["RMSE"] for row in rows(run).values()}) == len(rows(run))


def test_files(run):
    out, found = run
    assert sorted(os.listdir(out)) == ["compare.json", "compare.md", "compare.png"]
    text = (out / "compare.md").read_text()
    assert "| row | RMSE | RMSE_log | AbsRel | SqRel | a1 | a2 | a3 |" in text
    assert f"| plain | {rows(run)['plain']['RMSE']:.4f} |" in text
    assert (out / "compare.png").read_bytes().startswith(b"\x89PNG")
    expected = {"min_depth_eval": RANGE[0], "max_depth_eval": RANGE[1], "crop_type": None}
    assert found["depth"] == expected and found["metric"] == "RMSE"
    assert found["images"] == models.IMAGES


def test_depths_are_freed_as_they_come(tiny):
    with Session(tiny.config, Request(device="cpu")) as session:
        load_weights(session.model, tiny.checkpoint)
        results = session.evaluator.metrics[0].results
        kept = []
        first = session.run(lambda done: kept.append(list(results)))
        again = session.run()
    assert [len(batch) for batch in kept] == list(range(1, models.IMAGES + 1))
    for errors, nothing in kept[-1]:
        assert nothing is None and all(isinstance(value, float) for value in errors.values())
    assert first.reported == again.reported
    assert "_calc_all_metrics" not in vars(session.evaluator.metrics[0])


def test_a_metric_that_needs_the_depths_keeps_them(tiny):
    from mmseg.evaluation import DepthMetric
    from mmseg.registry import METRICS

    @METRICS.register_module(force=True)
    class MaxDepth(DepthMetric):
        def compute_metrics(self, results):
            return {"max": max(float(predicted.max()) for _, predicted in results)}

    config = tiny.write("other", "test_evaluator = dict(type='MaxDepth')")
    found = compare_mmseg(config, tiny.checkpoint, [{}], skip=ALL, device="cpu")
    assert list(found["plain"].reported) == ["max"] and found["plain"].reported["max"] > 10
    assert found["plain"].RMSE > 0


@pytest.mark.parametrize("mode", ["whole", "slide_flip"])
def test_vpd_head(tiny, tmp_path, mode):
    text = models.VPD
    if mode == "slide_flip":
        test_cfg = "_delete_=True, mode='slide_flip', crop_size=(32, 32), stride=(16, 16)"
        text = text.replace("model = dict(", f"model = dict(test_cfg=dict({test_cfg}),")
    config = tiny.write(f"vpd_{mode}", text)
    torch.manual_seed(0)
    torch.save(models.build(config).state_dict(), tmp_path / "vpd.pth")
    found = compare_mmseg(
        config, tmp_path / "vpd.pth", [{}], skip=["controls", "larger"], limit=2, device="cpu"
    )
    for result in found.results:
        ours, theirs = result.figures.values(), [result.reported[f] for f in THEIRS]
        assert list(ours) == pytest.approx(theirs, rel=1e-5)
    assert len({result.RMSE for result in found.results}) == 4
    assert directly(config, str(tmp_path / "vpd.pth"), tmp_path)["rmse"] > 0


def test_depth_and_labels_of_one_model(tiny):
    from mmengine.structures import PixelData
    from mmseg.models import DepthEstimator
    from mmseg.registry import MODELS

    @MODELS.register_module(force=True)
    class NearAndFar(DepthEstimator):
        def postprocess_result(self, depth, data_samples=None):
            for sample in super().postprocess_result(depth, data_samples):
                sample.pred_sem_seg = PixelData(data=(sample.pred_depth_map.data > 15).long())
            return data_samples

    both = (
        "test_evaluator = [dict(type='IoUMetric', iou_metrics=['mIoU']), dict(type='DepthMetric')]"
    )
    config = tiny.write("both", f"model = dict(type='NearAndFar')\n{both}")
    with pytest.raises(ConfigError, match="pred_sem_seg'; IoUMetric is for segmentors"):
        compare_mmseg(tiny.write("no_labels", both), tiny.checkpoint, [{}], device="cpu")
    found = compare_mmseg(config, tiny.checkpoint, [{}], skip=ALL, device="cpu")
    assert list(found.metrics) == ["mIoU", "RMSE"]
    assert {"mIoU", "mAcc", "aAcc", *THEIRS} <= set(found["plain"].reported)
    assert found[SRT].scores["RMSE"].gain == found["plain"].RMSE - found[SRT].RMSE
    assert found[SRT].scores["mIoU"].gain == found[SRT].mIoU - found["plain"].mIoU


NO_DEPTH = "[dict(type='LoadScene'), dict(type='PackSegInputs')]"
RESIZED = (
    "[dict(type='LoadScene', depth=True), dict(type='Resize', scale=(32, 24), keep_ratio=False), "
    "dict(type='PackSegInputs')]"
)
SLIDE = "test_cfg=dict(mode='slide', crop_size=(32, 32), stride=(16, 16))"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (f"test_dataloader = dict(dataset=dict(pipeline={NO_DEPTH}))", "without gt_depth_map; add"),
        (f"test_dataloader = dict(dataset=dict(pipeline={RESIZED}))", "load depth after resizing"),
        ("test_evaluator = dict(format_only=True)", r"with labels, got .'DepthMetric\(format_only"),
        ("test_evaluator = dict(max_depth_eval=1.0)", "got none in the first 5 images, whose"),
        ("test_evaluator = dict(min_depth_eval=1e3, max_depth_eval=1e4)", "depth_rescale_factor"),
        ("test_evaluator = dict(min_depth_eval=90)", "min_depth_eval < max_depth_eval"),
        ("test_evaluator = dict(_delete_=True, type='IoUMetric')", "DepthMetric for depth est"),
        (f"model = dict({SLIDE})", "--cfg-options model.test_cfg.mode=whole"),
    ],
)
def test_mistakes(tiny, text, message):
    with pytest.raises(ConfigError, match=message):
        compare_mmseg(tiny.write("mistake", text), tiny.checkpoint, [{}], device="cpu")


def test_images_that_are_judged_nowhere(tiny):
    """Only the second scene has something nearer than 2.8 m."""
    config = tiny.write("near", "test_evaluator = dict(max_depth_eval=2.8)")
    found = compare_mmseg(config, tiny.checkpoint, [{}], skip=ALL, device="cpu")
    image, truth = models.scenes()[1]
    with torch.no_grad():
        depth = cropped(depth_of(tiny.model, padded(image)))
    expected = slow_errors(depth, truth, RANGE[0], 2.8, crop=False, clamp=False)
    assert list(found["plain"].figures.values()) == pytest.approx(expected, rel=1e-5)
    assert math.isnan(found["plain"].reported["rmse"])
    assert found[SRT].gain_interval is None
    assert any("5 images without judged pixels" in note for note in found.notes)
    assert any("are predicted outside of 0.001 to 2.8 m" in note for note in found.notes)


@pytest.mark.parametrize(
    ("text", "note"),
    [
        (models.VPD.replace("max_depth=80", "max_depth=10"), "the head predicts 10 m at most, and"),
        (
            "test_evaluator = dict(crop_type='nyu_crop')\n"
            "test_dataloader = dict(dataset=dict(size=(64, 96)))",
            "of 64 x 96, rows 45 to 470 and columns 41 to 600 are judged",
        ),
    ],
)
def test_what_looks_wrong_is_noted(tiny, tmp_path, text, note):
    config = tiny.write("odd", text)
    torch.save(models.build(config).state_dict(), tmp_path / "odd.pth")
    found = compare_mmseg(config, tmp_path / "odd.pth", [{}], skip=ALL, limit=1, device="cpu")
    assert len(found.notes) == 1 and note in found.notes[0]


def test_depth_that_is_not_positive_is_noted(tiny, tmp_path):
    head = "dict(type='FCNHead', num_convs=0, concat_input=False)"
    config = tiny.write("signed", f"model = dict(decode_head={head})")
    torch.save(models.build(config).state_dict(), tmp_path / "signed.pth")
    found = compare_mmseg(config, tmp_path / "signed.pth", [{}], skip=ALL, limit=3, device="cpu")
    plain = found["plain"]
    assert math.isnan(plain.RMSE_log) and math.isnan(plain.reported["rmse_log"])
    assert plain.a1 < 0.1 < plain.reported["d1"]  # theirs counts depth below 0 as right
    assert found.to_dict()["rows"][0]["RMSE_log"] is None
    assert any("some predictions are not positive" in note for note in found.notes)


def test_help_tells_of_depth(capsys):
    assert main(["compare", "mmseg", "--help"]) == 0
    assert "DepthEstimator with test_evaluator DepthMetric: RMSE in m" in capsys.readouterr().out
