"""The configs in ``mmseg_configs``, shrunk in depth and width, against the configs they inherit."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.model import revert_sync_batchnorm

from srt_plugins import detach, srt_enabled
from tests.mmseg.tiny import build, logits

CONFIGS = Path(__file__).resolve().parents[2] / "mmseg_configs"
OFFICIAL = Path(__import__("mmseg").__file__).parent / ".mim" / "configs"
NAMES = sorted(p.name for p in CONFIGS.glob("*.py"))
WINDOW, SIZE = (64, 64), (50, 90)  # neither whole patches nor a whole window

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")

_VIT = {
    "model.backbone.embed_dims": 32,
    "model.backbone.num_layers": 4,
    "model.backbone.num_heads": 2,
    "model.backbone.img_size": WINDOW,
}
_FOUR = {"model.backbone.out_indices": (0, 1, 2, 3)}
_UPER = {
    "model.decode_head.in_channels": [32] * 4,
    "model.decode_head.channels": 16,
    "model.auxiliary_head.in_channels": 32,
    "model.auxiliary_head.channels": 16,
}
_SLIDE = {"model.test_cfg.crop_size": WINDOW, "model.test_cfg.stride": (40, 40)}
_FIXED = {**_VIT, **_FOUR, **_UPER, **_SLIDE, "model.neck.embed_dim": 32}
_SEGMENTER = {
    **_VIT,
    **_SLIDE,
    "model.decode_head.in_channels": 32,
    "model.decode_head.channels": 32,
}
# Sizes only: types, strides, outputs and modes stay those of the config.
SHRUNK = {
    "segmenter_vit-s_fcn": _SEGMENTER,
    "segmenter_vit-s_mask": {
        **_SEGMENTER,
        "model.decode_head.embed_dims": 32,
        "model.decode_head.num_heads": 2,
    },
    "setr": {
        **_VIT,
        **_FOUR,
        **_SLIDE,
        "model.decode_head.in_channels": 32,
        "model.auxiliary_head": None,
    },
    "vit": {
        **_VIT,
        **_FOUR,
        **_UPER,
        "model.neck.in_channels": [32] * 4,
        "model.neck.out_channels": 32,
    },
    "dpt": {
        **_VIT,
        **_FOUR,
        "model.decode_head.in_channels": (32,) * 4,
        "model.decode_head.embed_dims": 32,
        "model.decode_head.channels": 16,
        "model.decode_head.post_process_channels": [8, 8, 16, 16],
    },
    "beit": _FIXED,
    "mae": _FIXED,
    "swin": {
        "model.backbone.embed_dims": 12,
        "model.backbone.depths": [1, 1, 2, 1],
        **_UPER,
        "model.decode_head.in_channels": [12, 24, 48, 96],
        "model.auxiliary_head.in_channels": 48,
    },
    "segformer": {
        "model.backbone.embed_dims": 8,
        "model.backbone.num_layers": [1, 1, 2, 1],
        "model.decode_head.in_channels": [8, 16, 40, 64],
        "model.decode_head.channels": 16,
    },
}


def shrink(name):
    (options,) = (o for prefix, o in SHRUNK.items() if name.startswith(prefix))
    return options


def base_of(name):
    """The official config that a config inherits."""
    (path,) = re.findall(r'"mmseg::(.+\.py)"', (CONFIGS / name).read_text())
    return OFFICIAL / path


def small(path, name):
    """A model from a config file, small, random and on the CPU."""
    config = Config.fromfile(path)
    config.merge_from_dict({"model.pretrained": None, **shrink(name)})
    if "PaddedSegDataPreProcessor" in str(config.model.data_preprocessor):
        config.merge_from_dict({"model.data_preprocessor.test_cfg.size": WINDOW})
    return revert_sync_batchnorm(build(config.model)).eval()


@pytest.fixture(scope="module")
def pair(request):
    """A wrapped model and the one of its base, with the same weights."""
    wrapped = small(CONFIGS / request.param, request.param)
    base = small(base_of(request.param), request.param)
    base.load_state_dict(wrapped.state_dict(), strict=True)
    return wrapped, base


every_config = pytest.mark.parametrize("pair", NAMES, indirect=True)


def test_there_is_a_config_for_every_listed_family():
    assert {n for n in NAMES if shrink(n)} == set(NAMES)
    assert {k for k in SHRUNK if any(n.startswith(k) for n in NAMES)} == set(SHRUNK)


@every_config
def test_state_dicts_are_those_of_the_base_both_ways(pair):
    wrapped, base = pair
    assert list(wrapped.state_dict()) == list(base.state_dict())
    assert [n for n, _ in wrapped.named_parameters()] == [n for n, _ in base.named_parameters()]
    wrapped.load_state_dict(base.state_dict(), strict=True)


@every_config
def test_off_is_the_base_to_the_bit_and_on_is_not(pair):
    wrapped, base = pair
    size = SIZE
    if type(wrapped.data_preprocessor) is not type(base.data_preprocessor):
        size = (64, 90)  # a window at least: the base fails on less
    expected = logits(base, size)
    with srt_enabled(wrapped, enabled=False):
        assert torch.equal(logits(wrapped, size), expected)
    with srt_enabled(wrapped, level=0, views=None):
        assert torch.equal(logits(wrapped, size), expected)
    found = logits(wrapped, size)
    assert found.shape == expected.shape and found.isfinite().all()
    assert not torch.equal(found, expected)
    # Random weights, so no more than that views agree in the main: a misplaced map would not.
    assert torch.corrcoef(torch.stack([found.flatten(), expected.flatten()]))[0, 1] > 0.8


@every_config
def test_takes_images_smaller_than_a_window(pair):
    wrapped, _ = pair
    assert logits(wrapped, (40, 50)).shape[-2:] == (40, 50)


@every_config
def test_detached_it_is_the_base(pair):
    wrapped, base = pair
    detach(wrapped)
    assert type(wrapped.backbone) is type(base.backbone)
    size = (64, 90)
    assert torch.equal(logits(wrapped, size), logits(base, size))


@pytest.mark.parametrize("name", NAMES)
def test_configs_are_deltas_with_their_arithmetic(name):
    text = (CONFIGS / name).read_text()
    comments, code = (
        [line for line in text.splitlines() if line.startswith("#") is wanted]
        for wanted in (True, False)
    )
    assert len(code) <= 20 and '"./_base_/srt.py"' in text
    assert any("atch" in line for line in comments)
    cost = re.search(r"Cost: (\d+) x", "\n".join(comments))
    config = Config.fromfile(CONFIGS / name)
    backbone = build({**config.model.backbone, **_tiny_backbone(name)})
    state = backbone._srt
    state.patch = state.adapter.patch
    assert cost is not None and int(cost[1]) == len(state.views())


def _tiny_backbone(name):
    prefix = "model.backbone."
    return {k[len(prefix) :]: v for k, v in shrink(name).items() if k.startswith(prefix)}
