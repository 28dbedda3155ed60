"""``mmseg.apis`` with wrapped configs, and the inference modes of a segmentor."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmseg.apis import MMSegInferencer, inference_model, init_model

from srt_plugins import attach, detach, dispersion, srt_enabled
from tests.mmseg.tiny import FIXED, build, checkpoint, flat, logits, nested, segmentor

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")
FORMS = {"nested": nested, "flat": flat}
SRT = dict(level=1, views=[(0, 0), (1, -1)])
SLIDE = dict(mode="slide", crop_size=FIXED, stride=(16, 20))


def config(backbone=None):
    pipeline = [dict(type="LoadImageFromFile"), dict(type="PackSegInputs")]
    return Config(
        dict(
            default_scope="mmseg",
            custom_imports=dict(imports=["srt_plugins.mmseg"]),
            model=segmentor(backbone),
            test_pipeline=pipeline,
            test_dataloader=dict(dataset=dict(pipeline=pipeline)),
        )
    )


@pytest.fixture
def image():
    return np.random.default_rng(0).integers(0, 256, (45, 70, 3), dtype=np.uint8)


@pytest.fixture
def weights(tmp_path):
    return checkpoint(tmp_path / "weights.pth", seed=3)


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_init_and_inference_model(image, weights, tmp_path, form):
    plain = init_model(config(), weights, device="cpu")
    before = inference_model(plain, image).seg_logits.data
    config(form(**SRT)).dump(tmp_path / "config.py")
    wrapped = init_model(str(tmp_path / "config.py"), weights, device="cpu")
    found = inference_model(wrapped, [image, image])
    attach(plain, **SRT)
    expected = inference_model(plain, image).seg_logits.data
    assert not torch.equal(expected, before)
    for sample in found:
        assert torch.equal(sample.seg_logits.data, expected)


def test_overrides_of_init_model(image, weights):
    options = {
        "model.backbone.type": "srt_plugins.mmseg.SRTWrapper",
        "model.backbone.wraps": "VisionTransformer",
        "model.backbone.srt.level": 1,
        "model.backbone.srt.views": SRT["views"],
    }
    overridden = init_model(config(), weights, device="cpu", cfg_options=options)
    expected = init_model(config(flat(**SRT)), weights, device="cpu")
    a, b = (inference_model(m, image).seg_logits.data for m in (overridden, expected))
    assert torch.equal(a, b)


def test_init_model_clears_init_cfg_on_the_outer_config(weights):
    init = dict(type="Pretrained", checkpoint="nowhere.pth")
    model = init_model(config(dict(flat(**SRT), init_cfg=init)), weights, device="cpu")
    assert model.backbone.init_cfg is None


def test_inferencer_takes_a_wrapped_config(image, weights, tmp_path):
    wrapped = config(nested(**SRT))
    wrapped.visualizer = dict(type="SegLocalVisualizer", name="inferencer")
    wrapped.dump(tmp_path / "config.py")
    inferencer = MMSegInferencer(
        str(tmp_path / "config.py"), weights, classes=["c"] * 10, palette=[[0] * 3] * 10
    )
    found = inferencer(image, return_datasamples=True, show=False)
    expected = inference_model(init_model(wrapped, weights, device="cpu"), image)
    assert torch.equal(found.pred_sem_seg.data.cpu(), expected.pred_sem_seg.data)


@pytest.mark.parametrize("size", [(16, 20), FIXED, (45, 70)], ids=["smaller", "window", "larger"])
def test_slide_mode_ensembles_window_by_window(size):
    model = build(segmentor(test_cfg=SLIDE))
    plain = logits(model, size)
    with srt_enabled(model, level=0):
        assert torch.equal(logits(model, size), plain)
    with srt_enabled(model, **SRT):
        found = logits(model, size)
    assert found.shape == plain.shape == (10, *size)
    assert not torch.equal(found, plain)
    if size == FIXED:  # one window: the whole image
        whole = attach(build(segmentor()), **SRT)
        torch.testing.assert_close(found, logits(whole, size))


def test_autocast_runs_and_stays_close():
    model = attach(build(segmentor(test_cfg=SLIDE)), **SRT)
    expected = logits(model, (45, 70))
    with torch.autocast("cpu", torch.bfloat16):
        found = logits(model, (45, 70))
    assert found.isfinite().all()
    assert (found.float() - expected).abs().max() < 0.05 * expected.abs().max()


def test_dispersion_of_a_segmentor():
    model = attach(build(segmentor()), level=1, dispersion=True)
    logits(model)
    (spread,) = dispersion(model)
    assert spread.shape == (1, 1, FIXED[0] // 8, FIXED[1] // 8) and (spread > 0).all()
    detach(model)
    assert not hasattr(model.backbone, "_srt")
