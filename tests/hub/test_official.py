"""DINOv2's own code, where torch.hub has a checkout of it (torch.hub.load downloads one)."""

from __future__ import annotations

import copy
import pickle
from functools import partial
from pathlib import Path

import pytest
import torch
from srt_plugins.adapters import describe, find_backbone
from srt_plugins.adapters.structure import tensors

from srt_plugins import SRTWrapper, attach, detach
from tests import readings
from tests.contracts import VIEWS, layer_by_hand, run
from tests.hub.test_adapters import Call, same_or_none

CHECKOUT = Path(torch.hub.get_dir()) / "facebookresearch_dinov2_main"
pytestmark = [
    pytest.mark.skipif(not CHECKOUT.exists(), reason=f"needs DINOv2's code in {CHECKOUT.name}"),
    pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning"),
]

EVEN = (42, 56)
ODD = (50, 61)
FEATURES = ("pooled", "pooled", "patches/14", "tokens/14")
CALLS = (
    Call("forward_features", {}, FEATURES),
    Call(
        "get_intermediate_layers",
        dict(n=[2, 11], reshape=True, return_class_token=True, norm=False),
        ("NCHW/14", "pooled") * 2,
    ),
    Call("get_intermediate_layers", dict(n=1), ("patches/14",)),
    Call("forward", {}, ("pooled",)),
)


def load(name, **keywords):
    torch.manual_seed(0)
    made = torch.hub.load(str(CHECKOUT), name, source="local", pretrained=False, **keywords)
    return made.eval()


def images(size, batch=1):
    return torch.randn(batch, 3, *size, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(
    ("name", "prefix", "keywords"),
    [
        ("dinov2_vits14", 1, {}),
        ("dinov2_vits14_reg", 5, {}),
        ("dinov2_vits14_reg", 5, dict(block_chunks=4)),
    ],
)
def test_backbones_are_ensembled_as_by_the_oracle(name, prefix, keywords):
    model = load(name, **keywords)
    adapter = describe(model)
    assert (adapter.patch, adapter.prefix_tokens, len(adapter.blocks)) == (14, prefix, 12)
    wrapped = attach(copy.deepcopy(model), views=VIEWS)
    for call in CALLS:
        readings.check(call, wrapped, model, images(EVEN), call.readings, prefix)
    SRTWrapper(wrapped, views=VIEWS, layer=5)
    call = CALLS[1]
    expected = tensors(layer_by_hand(adapter, model, images(EVEN), 5, call=call))
    for (path, a), (other, b) in zip(tensors(call(wrapped, images(EVEN))), expected):
        assert path == other and (a - b).abs().max() <= 1e-4 * b.abs().max()
    for call in CALLS:
        assert same_or_none(call(detach(wrapped), images(EVEN)), call(model, images(EVEN)))


@pytest.mark.parametrize("name", ["dinov2_vits14_ld", "dinov2_vits14_dd"])
@pytest.mark.parametrize("layer", [None, 8])
def test_depth_models(name, layer):
    model, image = load(name), images(ODD, 2)
    last = [m for m in model.decode_head.conv_depth.modules() if isinstance(m, torch.nn.Conv2d)][-1]
    torch.nn.init.constant_(last.bias, 4)  # depths below zero are cut off
    assert find_backbone(model) is model.backbone
    ask = partial(model.whole_inference, img_meta=None, rescale=True, size=ODD)
    with torch.no_grad():
        before = ask(image)
        attach(model, views=VIEWS, layer=layer)
        ensembled = ask(image)
        features = model.backbone(image)
    assert ensembled.shape == before.shape == (2, 1, *ODD)
    assert not torch.allclose(ensembled, before, rtol=1e-4)
    assert [tuple(m.shape[2:]) for m, _ in features] == [(4, 5)] * 4  # completed on both sides
    twin = copy.deepcopy(model)
    assert twin.backbone.forward.func.__self__ is twin.backbone
    with torch.no_grad():
        assert torch.equal(twin.whole_inference(image, None, True, size=ODD), ensembled)
        assert torch.equal(detach(twin).whole_inference(image, None, True, size=ODD), before)
        assert torch.equal(ask(image), ensembled)
        detach(model)
        assert torch.equal(ask(image), before)
    # Its hook is a lambda, so only the backbone without it can be pickled.
    model.backbone._forward_pre_hooks.clear()
    attach(model, views=VIEWS, layer=layer)
    other = pickle.loads(pickle.dumps(model.backbone))
    assert other.forward.func.__self__ is other
    for (a, _), (b, _) in zip(run(other, images(EVEN)), run(model.backbone, images(EVEN))):
        assert torch.equal(a, b)


def test_a_linear_classifier_takes_ensembled_features():
    model, image = load("dinov2_vits14_lc", layers=4), images(EVEN)
    assert find_backbone(model) is model.backbone
    before = run(model, image)
    ensembled = run(attach(model, views=VIEWS), image)
    with torch.no_grad():
        every = model.backbone.get_intermediate_layers(image, n=4, return_class_token=True)
        tokens = [token for _, token in every]
        expected = model.linear_head(torch.cat([*tokens, every[-1][0].mean(1)], 1))
    torch.testing.assert_close(ensembled, expected)
    assert not torch.allclose(ensembled, before, rtol=1e-4)
