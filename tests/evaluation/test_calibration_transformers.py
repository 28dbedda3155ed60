"""Calibration in ``srt compare transformers`` against outputs and processors run by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

pytest.importorskip("transformers", reason="transformers is not installed")

from PIL import Image
from transformers import AutoImageProcessor
from transformers.modeling_outputs import DepthEstimatorOutput

from srt_plugins import dispersion, srt_enabled
from srt_plugins.evaluation import compare_transformers
from srt_plugins.uncertainty import combined

from . import transformers_models as tiny
from .test_calibration import slow_ause, slow_ece, slow_spearman

SKIP = ["controls", "larger"]
SRT, OE, FLIP = "SRT 4 views", "output ensemble (OE), 4 views", "flip TTA"


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("transformers")
    tiny.write_folder(folder / "data")
    return folder


@pytest.fixture
def run(root):
    def run(kind, **options):
        found = compare_transformers(
            tiny.saved(kind, root),
            root / "data",
            [{}],
            skip=SKIP,
            limit=1,
            device="cpu",
            calibration=True,
            **options,
        )
        torch.manual_seed(0)
        image = Image.open(root / "data" / "images" / "0.png")
        processor = AutoImageProcessor.from_pretrained(tiny.saved(kind, root))
        return found, processor(images=[image], return_tensors="pt"), processor

    return run


def check(row, name, values, error, root=False):
    figures, values, error = row.calibration.figures, values.tolist(), error.tolist()
    expected = slow_ause(values, error, root)
    assert figures[f"AUSE_{name}"].value == pytest.approx(expected, rel=2e-3)
    expected = slow_spearman(values, error)
    assert figures[f"correlation_{name}"].value == pytest.approx(expected, abs=2e-3)


@torch.no_grad()
def test_segmentation(run, root):
    found, inputs, _ = run("segformer")
    model = type(tiny.KINDS["segformer"][0]()).from_pretrained(root / "segformer").eval()
    truth = np.array(Image.open(root / "data" / "labels" / "0.png"))
    judged = truth != 255
    for name in ("plain", SRT):
        with srt_enabled(model, enabled=name == SRT, dispersion=True):
            logits = F.interpolate(model(**inputs).logits, truth.shape, mode="bilinear")[0].double()
            spread = combined(dispersion(model), truth.shape)[0, 0] if name == SRT else None
        sure, best = (one.numpy()[judged] for one in logits.softmax(0).max(0))
        right = (best == truth[judged]).astype(float)
        row = found[name]
        expected = slow_ece(sure.tolist(), right.tolist())
        assert row.calibration.figures["ECE"].value == pytest.approx(expected, rel=2e-3)
        check(row, "confidence", 1 - sure, 1 - right)
        if spread is not None:
            figure = row.calibration.figures["AUSE_dispersion"].value
            values = spread.double().numpy()[judged].tolist()
            # Resized once here, at the input's size in between there.
            assert figure == pytest.approx(slow_ause(values, (1 - right).tolist()), abs=0.05)
    for name in (OE, FLIP):
        assert {"ECE", "AUSE_dispersion", "AUSE_both"} <= set(found[name].calibration.figures)


@torch.no_grad()
def test_depth(run, root):
    found, inputs, processor = run("metric", depth_scale=tiny.DEPTH_SCALE)
    assert set(found["plain"].calibration.figures) == {"AUSE_depth", "correlation_depth"}
    assert {"AUSE_dispersion", "AUSE_both"} <= set(found[SRT].calibration.figures)
    model = type(tiny.metric_depth()).from_pretrained(root / "metric").eval()
    truth = np.array(Image.open(root / "data" / "depth" / "0.png")) / tiny.DEPTH_SCALE
    judged = (truth > 1e-3) & (truth < 80)
    pixels = inputs["pixel_values"]
    pair = [model(p).predicted_depth for p in (pixels, pixels.flip(-1))]
    pair[1] = pair[1].flip(-1)
    outputs = DepthEstimatorOutput(predicted_depth=sum(pair) / 2)
    (made,) = processor.post_process_depth_estimation(outputs, target_sizes=[truth.shape])
    depth = made["predicted_depth"].double().numpy()[judged]
    spread = (pair[0] - pair[1]).abs() / 2
    spread = F.interpolate(spread[None], truth.shape, mode="bilinear")[0, 0].numpy()[judged]
    check(found[FLIP], "depth", depth, (depth.clip(1e-3, 80) - truth[judged]) ** 2, root=True)
    check(found[FLIP], "dispersion", spread, (depth.clip(1e-3, 80) - truth[judged]) ** 2, root=True)


def test_scores_of_masks_have_no_calibration_error(run):
    found, _, _ = run("maskformer")
    assert "ECE" not in found["plain"].calibration.figures
    assert "AUSE_dispersion" in found[SRT].calibration.figures
