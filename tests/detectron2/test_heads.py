"""The linear segmentation head against sums written out, and in a model that trains."""

from __future__ import annotations

import pytest

pytest.importorskip("detectron2", reason="needs Detectron2 (make setup DETECTRON2=...)")

import torch
from detectron2.layers import ShapeSpec
from detectron2.modeling import build_model
from detectron2.modeling.meta_arch.semantic_seg import SemSegFPNHead, build_sem_seg_head
from torch.nn import functional as F

from srt_plugins import ConfigError
from srt_plugins.detectron2 import LinearSemSegHead

from .tiny import SIZE, built, pictures, tiny_linear_cfg

SHAPES = {"coarse": ShapeSpec(channels=3, stride=8), "fine": ShapeSpec(channels=2, stride=4)}


def head(**keywords) -> LinearSemSegHead:
    torch.manual_seed(0)
    made = LinearSemSegHead(SHAPES, **{"num_classes": 5, "ignore_value": 255, **keywords})
    torch.nn.init.normal_(made.predictor.weight)
    return made


def features() -> dict:
    torch.manual_seed(1)
    return {"coarse": torch.randn(2, 3, 2, 3), "fine": torch.randn(2, 2, 4, 6)}


def expected_logits(made) -> torch.Tensor:
    """Bilinear resizing as a sum over both axes, then one product per position."""

    def axis(n, factor):
        """(n * factor, n) weights of bilinear interpolation between pixel centres."""
        weights = torch.zeros(n * factor, n)
        for i in range(n * factor):
            at = min(max((i + 0.5) / factor - 0.5, 0), n - 1)
            low = min(int(at), n - 1)
            weights[i, low] += 1 - (at - low)
            weights[i, min(low + 1, n - 1)] += at - low
        return weights

    def resize(x, factor):
        rows, columns = axis(x.shape[2], factor), axis(x.shape[3], factor)
        return torch.einsum("yh,nchw,xw->ncyx", rows, x, columns)

    both = torch.cat([features()["fine"], resize(features()["coarse"], 2)], 1)
    weight = made.predictor.weight[:, :, 0, 0]
    logits = torch.einsum("kc,nchw->nkhw", weight, both) + made.predictor.bias[:, None, None]
    return resize(logits, 4)


def test_logits():
    made = head().eval()
    logits, losses = made(features())
    assert losses == {} and logits.shape == (2, 5, 16, 24)
    torch.testing.assert_close(logits, expected_logits(made), atol=1e-5, rtol=1e-5)
    assert list(made.state_dict()) == ["predictor.weight", "predictor.bias"]


def test_loss():
    made = head(loss_weight=0.5)
    targets = torch.randint(0, 5, (2, 16, 24))
    targets[:, :5] = 255
    result, losses = made(features(), targets)
    assert result is None and list(losses) == ["loss_sem_seg"]
    logs = expected_logits(made).log_softmax(1)
    kept = targets != 255
    picked = logs.gather(1, torch.where(kept, targets, 0)[:, None])[:, 0]
    expected = -picked[kept].mean() * 0.5
    torch.testing.assert_close(losses["loss_sem_seg"], expected, atol=1e-5, rtol=1e-5)
    # The images may end before the last partial patch does.
    smaller = made(features(), targets[:, :14, :21])[1]["loss_sem_seg"]
    cut = -picked[:, :14, :21][kept[:, :14, :21]].mean() * 0.5
    torch.testing.assert_close(smaller, cut, atol=1e-5, rtol=1e-5)


def test_same_contract_as_detectron2s_head():
    theirs = SemSegFPNHead(SHAPES, num_classes=5, conv_dims=4, common_stride=4, ignore_value=255)
    targets = torch.randint(0, 5, (2, 16, 24))
    for mode, args in ((False, ()), (True, (targets,))):
        found = head().train(mode)(features(), *args)
        expected = theirs.train(mode)(features(), *args)
        assert type(found) is type(expected) and list(found[1]) == list(expected[1])
        assert (found[0] is None) == (expected[0] is None)
        if found[0] is not None:
            assert found[0].shape == expected[0].shape


def test_from_a_config():
    cfg = tiny_linear_cfg()
    cfg.MODEL.SEM_SEG_HEAD.LOSS_WEIGHT, cfg.MODEL.SEM_SEG_HEAD.IGNORE_VALUE = 0.25, 7
    cfg.MODEL.SEM_SEG_HEAD.IN_FEATURES = ["coarse", "fine"]
    made = build_sem_seg_head(cfg, {**SHAPES, "unused": ShapeSpec(channels=9, stride=2)})
    assert isinstance(made, LinearSemSegHead) and made.in_features == ["fine", "coarse"]
    assert made.predictor.weight.shape == (10, 5, 1, 1)
    assert (made.loss_weight, made.ignore_value, made.stride) == (0.25, 7, 4)


def test_linear_probe_learns():
    """Only the head is trained, and its loss falls."""
    model = built(tiny_linear_cfg()).train()
    for parameter in model.backbone.parameters():
        parameter.requires_grad_(False)
    # Left half and right half of each picture differ in brightness.
    labels = torch.zeros(SIZE, dtype=torch.long)
    labels[:, SIZE[1] // 2 :] = 1
    batch = [
        {**x, "image": labels.expand(3, -1, -1) * 255.0, "sem_seg": labels} for x in pictures(1)
    ]
    optimizer = torch.optim.Adam(model.sem_seg_head.parameters(), lr=0.003)
    losses = []
    for _ in range(60):
        (loss,) = model(batch).values()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss))
    assert losses[-1] < 0.2 * losses[0]
    with torch.no_grad():
        found = model.eval()(batch)[0]["sem_seg"].argmax(0)
    assert F.one_hot(found, 10).shape == (*SIZE, 10) and (found == labels).float().mean() > 0.9


def test_mistakes():
    cfg = tiny_linear_cfg()
    cfg.MODEL.SEM_SEG_HEAD.IN_FEATURES = ["res4", "res5"]
    with pytest.raises(ConfigError, match=r"maps \['res3', 'res4'\], got 'res5'"):
        build_model(cfg)
    with pytest.raises(ConfigError, match="at least one feature map"):
        LinearSemSegHead({}, num_classes=5)
    with pytest.raises(ConfigError, match="Expected targets in training"):
        head()(features())
    with pytest.raises(ConfigError, match="16x25 padded.*size_divisibility of 4"):
        head()(features(), torch.zeros(2, 16, 25, dtype=torch.long))
