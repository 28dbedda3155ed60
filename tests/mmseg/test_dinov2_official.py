"""Features and depth beside DINOv2's own code, where torch.hub has a checkout of it.

``torch.hub.load("facebookresearch/dinov2", "dinov2_vits14", pretrained=False)`` makes one.
"""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import pytest
import torch

pytest.importorskip("timm", reason="the backbone is built on timm")

from mmseg.registry import MODELS

from tests.mmseg.dinov2 import SIZES, random
from tests.mmseg.tiny import images

CHECKOUT = Path(torch.hub.get_dir()) / "facebookresearch_dinov2_main"
pytestmark = [
    pytest.mark.skipif(not CHECKOUT.is_dir(), reason=f"no checkout of DINOv2 at {CHECKOUT}"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]
TAPS = list(SIZES["vits14"]["taps"])


@pytest.fixture
def official(monkeypatch):
    """DINOv2's modules, on the path for one test."""
    monkeypatch.setenv("XFORMERS_DISABLED", "1")
    monkeypatch.syspath_prepend(str(CHECKOUT))
    kept = set(sys.modules)
    yield importlib.import_module("dinov2.hub.backbones")
    for name in set(sys.modules) - kept:
        if name.split(".")[0] == "dinov2":
            del sys.modules[name]


def filled(model):
    shapes = {key: tuple(value.shape) for key, value in model.state_dict().items()}
    model.load_state_dict(random(shapes))
    return model.eval()


def assert_close(found, expected):
    assert found.shape == expected.shape
    assert (found - expected).abs().max() <= 1e-5 * expected.abs().max()


@pytest.mark.parametrize("norm", [True, False])
@pytest.mark.parametrize("name", ["dinov2_vits14", "dinov2_vits14_reg"])
def test_features(official, tmp_path, name, norm):
    theirs = filled(getattr(official, name)(pretrained=False))
    torch.save(theirs.state_dict(), tmp_path / "official.pth")
    ours = MODELS.build(
        dict(
            type="DINOv2",
            arch="vits14",
            registers=4 if name.endswith("reg") else 0,
            out_indices=TAPS,
            output_cls_token=True,
            final_norm=norm,
            pad=True,
            checkpoint=str(tmp_path / "official.pth"),
        )
    ).eval()
    pad = importlib.import_module("dinov2.hub.utils").CenterPadding(14)
    for size in ((98, 182), (61, 77)):
        with torch.no_grad():
            expected = theirs.get_intermediate_layers(
                pad(images(size)), TAPS, reshape=True, return_class_token=True, norm=norm
            )
            found = ours(images(size))
        for (grid, token), (their_grid, their_token) in zip(found, expected):
            assert_close(grid, their_grid)
            assert_close(token, their_token)


@pytest.mark.parametrize("kind", ["linear", "linear4", "dpt"])
def test_depth(official, tmp_path, kind):
    depthers = importlib.import_module("dinov2.hub.depthers")
    if kind == "dpt":
        theirs = filled(depthers.dinov2_vits14_dd(pretrained=False))
        torch.nn.init.constant_(theirs.decode_head.conv_depth.head[-1].bias, 1.5)
        head = dict(type="DINOv2DPTDepthHead", embed_dims=384)
    else:
        layers = 4 if kind == "linear4" else 1
        theirs = filled(depthers.dinov2_vits14_ld(layers=layers, pretrained=False))
        head = dict(
            type="DINOv2LinearDepthHead", in_channels=[384] * layers, in_index=list(range(layers))
        )
    head["max_depth"] = theirs.decode_head.max_depth
    state = theirs.state_dict()
    files = {"backbone": tmp_path / "backbone.pth", "decode_head": tmp_path / "head.pth"}
    for part, path in files.items():
        own = {k: v for k, v in state.items() if k.startswith(part)}
        if part == "backbone":
            own = {k[len("backbone.") :]: v for k, v in own.items()}
        torch.save(own, path)
    ours = MODELS.build(
        dict(
            type="DepthEstimator",
            backbone=dict(
                type="DINOv2",
                arch="vits14",
                out_indices=[11] if kind == "linear" else TAPS,
                output_cls_token=True,
                final_norm=False,
                pad=True,
                checkpoint=str(files["backbone"]),
            ),
            decode_head=head,
            test_cfg=dict(mode="whole"),
        )
    ).eval()
    missing, unexpected = ours.load_state_dict(torch.load(files["decode_head"]), strict=False)
    assert not unexpected and all(key.startswith("backbone.") for key in missing)
    for size in ((98, 182), (61, 77)):
        with torch.no_grad():
            expected = theirs.whole_inference(images(size), None, rescale=True)
            found = ours.encode_decode(images(size), [dict(ori_shape=size, img_shape=size)])
        assert_close(found, expected)
        assert found.std() > 0
