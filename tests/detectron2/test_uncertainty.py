"""Dispersion in the outputs of Detectron2's models, against what is made of the maps by hand."""

from __future__ import annotations

import copy
import math
import pickle

import numpy as np
import pytest
import torch
import torch.nn.functional as F

pytest.importorskip("detectron2", reason="needs Detectron2 (make setup DETECTRON2=...)")

from detectron2.data import MetadataCatalog
from detectron2.modeling import build_model

from srt_plugins import ConfigError, attach, detach, dispersion, srt_enabled
from srt_plugins.detectron2 import draw_dispersion, with_dispersion
from srt_plugins.detectron2.uncertainty import dispersion_in_outputs

from . import tiny

SRT = dict(level=2, views=[(0, 0), (2, -1), (-1, 1)])
BIG = (64, 96)


def batch(sizes=((50, 96), (64, 70))):
    """Images of several sizes, whose outputs are asked for in others."""
    made = []
    for seed, (h, w) in enumerate(sizes):
        (one,) = tiny.pictures(1, (h, w), seed)
        made.append({**one, "height": 2 * h - 3, "width": w + 5})
    return made


def by_hand(maps, items):
    """Geometric means over levels of maps resized to the batch's size, cropped, resized."""
    logs = [F.interpolate(m, BIG, mode="bilinear").double().log() for m in maps]
    mean = (sum(logs) / len(logs)).exp().float()
    found = []
    for one, item in zip(mean, items):
        h, w = item["image"].shape[-2:]
        size = (item["height"], item["width"])
        found.append(F.interpolate(one[None, :, :h, :w], size, mode="bilinear")[0, 0])
    return found


@pytest.fixture(params=["semantic", "linear", "panoptic", "rcnn", "retinanet"])
def model(request):
    return tiny.built(tiny.CFGS[request.param]())


@torch.no_grad()
def test_outputs_hold_the_dispersion_of_the_image(model):
    items = batch()
    attach(model, dispersion=True, **SRT)
    before = model(items)
    maps = dispersion(model)
    assert not any("srt_dispersion" in output for output in before)
    with_dispersion(model)
    outputs = model(items)
    expected = by_hand(maps, items)
    assert len(maps) > 1
    for output, one, item in zip(outputs, expected, items):
        assert output["srt_dispersion"].shape == (item["height"], item["width"])
        torch.testing.assert_close(output["srt_dispersion"], one, rtol=1e-4, atol=1e-6)
    for output in outputs:
        del output["srt_dispersion"]
        if "instances" in output:
            output["instances"].remove("srt_dispersion")
    assert tiny.same(before, outputs), "everything else is as it was"


@torch.no_grad()
def test_instances_hold_the_mean_within_mask_or_box(model):
    items = batch()
    outputs = with_dispersion(model, **SRT)(items)
    if "instances" not in outputs[0]:
        assert set(outputs[0]) == {"sem_seg", "srt_dispersion"}
        return
    seen = 0
    for output in outputs:
        instances, whole = output["instances"], output["srt_dispersion"].double().numpy()
        assert instances.srt_dispersion.shape == (len(instances),)
        for i in range(len(instances)):
            inside = np.zeros(whole.shape, dtype=bool)
            if instances.has("pred_masks") and instances.pred_masks[i].any():
                inside = instances.pred_masks[i].numpy()
            else:
                x0, y0, x1, y1 = instances.pred_boxes.tensor[i].tolist()
                inside[int(y0) : math.ceil(y1), int(x0) : math.ceil(x1)] = True
            expected = whole[inside].mean()
            assert instances.srt_dispersion[i].item() == pytest.approx(expected, rel=1e-4)
            seen += 1
    assert seen > 2


def state(model):
    hooks = [(m._forward_hooks, m._forward_pre_hooks, dict(m.__dict__)) for m in model.modules()]
    return type(model), list(model.state_dict()), [(len(a), len(b), set(c)) for a, b, c in hooks]


@torch.no_grad()
def test_nothing_is_left_and_copies_work():
    model, items = tiny.built(tiny.tiny_panoptic_cfg()), batch()
    before, plain = state(model), model(items)
    with_dispersion(model, target="bottom_up", **SRT)
    assert state(model)[:2] == before[:2]
    expected = model(items)
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        found = other(items)
        assert tiny.same(
            [o["srt_dispersion"] for o in found], [o["srt_dispersion"] for o in expected]
        )
        detach(other)
        assert tiny.same(other(items), plain)
        assert state(other) == before
    detach(model)
    assert state(model) == before and tiny.same(model(items), plain)
    with srt_enabled(model, dispersion=True, **SRT), dispersion_in_outputs(model):
        assert "srt_dispersion" in model(items)[0]
    assert state(model) == before


@torch.no_grad()
def test_configs_with_dispersion_need_nothing_else():
    cfg = tiny.srt_cfg(tiny.tiny_semantic_cfg(), target="bottom_up", dispersion=True, level=1)
    torch.manual_seed(0)
    model = build_model(cfg).eval()
    (output,) = model(batch()[:1])
    assert output["srt_dispersion"].shape == output["sem_seg"].shape[1:]
    with srt_enabled(model, dispersion=False):
        assert "srt_dispersion" not in model(batch()[:1])[0]
    detach(model)
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


@torch.no_grad()
def test_lazy_configs_too():
    from detectron2.config import instantiate

    from srt_plugins.detectron2 import with_srt

    node = tiny.tiny_vitdet_cfg()
    with_srt(node.backbone, target="net", dispersion=True, **SRT)
    model = instantiate(node).eval()
    (item,) = tiny.pictures(1)
    (output,) = model([item])
    assert output["srt_dispersion"].shape == (item["height"], item["width"])
    (level,) = dispersion(model)
    expected = F.interpolate(level, tiny.SIZE, mode="bilinear")[0, 0]
    torch.testing.assert_close(output["srt_dispersion"], expected)


@torch.no_grad()
def test_drawing_shows_where_views_disagree():
    (item,) = tiny.pictures(1)
    item["image"][:, :, 48:] = 100.0  # nothing to disagree about
    image = item["image"].permute(1, 2, 0).numpy().astype(np.uint8)
    model = with_dispersion(tiny.built(tiny.tiny_linear_cfg()), **SRT)
    (output,) = model([item])
    heat = draw_dispersion(image, output, alpha=1.0).get_image()
    assert heat.shape == image.shape
    red, blue = heat[..., 0].astype(float), heat[..., 2].astype(float)
    spread = output["srt_dispersion"].numpy()
    assert np.corrcoef((red - blue).ravel(), spread.ravel())[0, 1] > 0.8
    with pytest.raises(ConfigError, match=r"of the image's size \(10, 96\), got \(64, 96\)"):
        draw_dispersion(image[:10], output)
    with pytest.raises(ConfigError, match="got none; run a model with_dispersion"):
        draw_dispersion(image, {})


@torch.no_grad()
def test_drawing_labels_instances():
    (item,) = tiny.pictures(1)
    image = item["image"].permute(1, 2, 0).numpy().astype(np.uint8)
    model = with_dispersion(tiny.built(tiny.tiny_rcnn_fpn_cfg()), **SRT)
    (output,) = model([item])
    metadata = MetadataCatalog.get("tiny_dispersion").set(thing_classes=list("abcd"))
    drawn = draw_dispersion(image, output, metadata, scale=3.0)
    assert drawn.get_image().shape == (192, 288, 3)
    labels = {text.get_text() for text in drawn.ax.texts}
    spreads = output["instances"].srt_dispersion.tolist()
    classes = output["instances"].pred_classes.tolist()
    assert labels == {f"{'abcd'[k]} {spread:.3g}" for k, spread in zip(classes, spreads)}


def test_mistakes():
    with pytest.raises(ConfigError, match="model or predictor of Detectron2, got str"):
        with_dispersion("model")
    model = tiny.built(tiny.tiny_linear_cfg())
    before = state(model)
    with pytest.raises(ConfigError, match="'levle'"):
        with_dispersion(model, levle=1)
    assert state(model) == before
