"""Calibration in ``srt compare detectron2`` against the model's own outputs."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("detectron2", reason="needs Detectron2 (make setup DETECTRON2=...)")

import torch
import torch.nn.functional as F
from detectron2.config import instantiate

from srt_plugins import ConfigError, dispersion, srt_enabled
from srt_plugins.evaluation import compare_detectron2

from . import detectron2_models as models
from .test_calibration import slow_ause, slow_ece, slow_spearman

SRT, OE, FLIP = "SRT 4 views", "output ensemble (OE), 4 views", "flip TTA"
SKIP = ["controls", "larger"]


def check(row, name, values, error):
    figures, values, error = row.calibration.figures, values.tolist(), error.tolist()
    expected = slow_ause(values, error)
    assert figures[f"AUSE_{name}"].value == pytest.approx(expected, rel=2e-3)
    expected = slow_spearman(values, error)
    assert figures[f"correlation_{name}"].value == pytest.approx(expected, abs=2e-3)


@torch.no_grad()
def test_semantic_segmentation(tmp_path):
    torch.set_num_threads(1)
    made = models.lazy(tmp_path, "dense", models._DENSE, "SemSegEvaluator")
    found = compare_detectron2(
        made.config, made.checkpoint, [{}], skip=SKIP, limit=1, device="cpu", calibration=True
    )
    model = made.model.eval()
    ((item,),) = list(instantiate(made.cfg.dataloader.test))[:1]
    truth = item["sem_seg"].numpy()
    mirrored = {**item, "image": item["image"].flip(-1)}

    def logits(item):
        return model([{k: v for k, v in item.items() if k != "sem_seg"}])[0]["sem_seg"].double()

    pair = [logits(item), logits(mirrored).flip(-1)]
    rows = {
        "plain": (pair[0], None),
        FLIP: (sum(pair) / 2, ((pair[0] - pair[1]) / 2).square().mean(0).sqrt()),
    }
    with srt_enabled(model, dispersion=True):
        rows[SRT] = logits(item), F.interpolate(*dispersion(model), truth.shape, mode="bilinear")
    for name, (output, spread) in rows.items():
        sure, best = (one.numpy().ravel() for one in output.softmax(0).max(0))
        right = (best == truth.ravel()).astype(float)
        row = found[name]
        expected = slow_ece(sure.tolist(), right.tolist())
        assert row.calibration.figures["ECE"].value == pytest.approx(expected, rel=2e-3)
        check(row, "confidence", 1 - sure, 1 - right)
        assert (spread is None) == ("AUSE_dispersion" not in row.calibration.figures)
        if spread is not None:
            check(row, "dispersion", np.asarray(spread).ravel(), 1 - right)
    assert {"ECE", "AUSE_dispersion", "AUSE_both"} <= set(found[OE].calibration.figures)


def test_detectors_have_none(tmp_path):
    made = models.yacs(tmp_path, "retinanet")
    with pytest.raises(ConfigError, match=r"got RetinaNet with \['COCOEvaluator'\]; leave"):
        compare_detectron2(
            made.config, made.checkpoint, [{}], limit=1, device="cpu", calibration=True
        )
