"""Nets that ``features_only=True`` makes of timm's models."""

from __future__ import annotations

import copy
import pickle
from dataclasses import dataclass
from functools import partial
from typing import Callable

import pytest

pytest.importorskip("timm", reason="needs timm")

import timm
import torch
from srt_plugins.adapters import describe, find_backbone
from srt_plugins.adapters.structure import tensors
from timm.models._features import FeatureGetterNet
from torch import nn

from srt_plugins import AdapterError, ConfigError, SRTWrapper, attach, detach, dispersion
from tests import readings
from tests.contracts import VIEWS, layer_by_hand, run, same
from tests.timm.models import COARSE, ODD, WIDE, WIDTHS, build, images, maps

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")


@dataclass(frozen=True)
class Net:
    """How to make a net, and the facts that its adapter must find out by itself."""

    make: Callable[[], nn.Module]
    readings: tuple[str, ...]
    patch: int
    cls: str
    sizes: tuple[tuple[int, int], ...] = (COARSE,)
    multiple: int | None = None
    taps: tuple[int, ...] = ()
    middle: str | None = None
    floors: bool = False


def create(name, **keywords):
    return partial(timm.create_model, name, features_only=True, **keywords)


_VIT = dict(embed_dim=16, depth=3, num_heads=2, img_size=64, dynamic_img_size=True)
_SWIN = dict(
    embed_dim=8,
    depths=(1, 2, 1, 1),
    num_heads=(1, 1, 2, 2),
    window_size=4,
    img_size=64,
    strict_img_size=False,
)
_RESNET = dict(layers=(1, 2, 1, 1), channels=(8, 8, 16, 16), stem_type="deep", stem_width=4)
vit = partial(create, "vit_tiny_patch16_224", **_VIT)
swin = partial(create, "swin_tiny_patch4_window7_224", **_SWIN)
resnet = partial(create, "resnet18", **_RESNET)
STAGED = (4, 8, 16, 32)


def registered():
    """The final norm on every map, and registers in front of the tokens."""
    model = timm.create_model("vit_small_patch14_reg4_dinov2", **{**_VIT, "img_size": 56})
    return FeatureGetterNet(model, out_indices=[0, 2], norm=True)


NETS = {
    "vit": Net(
        vit(out_indices=(0, 2)),
        ("NCHW/16",) * 2,
        16,
        "FeatureGetterNet",
        sizes=(WIDE,),
        taps=(0, 2),
        middle="model.blocks.1",
    ),
    "vit-any": Net(
        vit(dynamic_img_pad=True, out_indices=(1,)),
        ("NCHW/16",),
        16,
        "FeatureGetterNet",
        sizes=(ODD,),
        multiple=16,
        taps=(1,),
        middle="model.blocks.0",
    ),
    "dinov2-normed": Net(
        registered,
        ("NCHW/14",) * 2,
        14,
        "FeatureGetterNet",
        sizes=((42, 56),),
        taps=(0, 2),
        middle="model.blocks.1",
    ),
    "swin": Net(
        swin(out_indices=(1, 3)),
        ("NHWC/8", "NHWC/32"),
        32,
        "FeatureListNet",
        sizes=(COARSE, (60, 76)),
        taps=(2, 4),
        middle="layers_2.blocks.0",
    ),
    "swin-getter": Net(
        swin(feature_cls="getter"),
        maps(STAGED),
        32,
        "FeatureGetterNet",
        multiple=32,
        taps=(0, 2, 3, 4),
        middle="model.layers.1.blocks.0",
    ),
    "convnext": Net(
        create("convnext_tiny", **WIDTHS),
        maps(STAGED),
        32,
        "FeatureListNet",
        sizes=(COARSE, ODD),
        taps=(0, 2, 3, 4),
        middle="stages_1.blocks.0",
        floors=True,
    ),
    "resnet": Net(
        resnet(out_indices=(0, 2, 3)),
        maps((2, 8, 16)),
        16,
        "FeatureListNet",
        sizes=(COARSE, ODD),
        taps=(2, 3),
        middle="layer2.0",
    ),
    "resnet-dict": Net(
        resnet(feature_cls="dict", out_indices=(1, 3)),
        maps((4, 16)),
        16,
        "FeatureDictNet",
        taps=(0, 3),
        middle="layer2.0",
    ),
    "resnet-hook": Net(
        resnet(feature_cls="hook", out_indices=(3, 1)),  # in this order
        maps((16, 4)),
        16,
        "FeatureHookNet",
        taps=(0, 3),
        middle="body.layer2.1",
    ),
    "resnet-fx": Net(
        resnet(feature_cls="fx", out_indices=(1, 3)), maps((4, 16)), 16, "FeatureGraphNet"
    ),
    "efficientnet": Net(
        create("test_efficientnet", out_indices=(2, 4)), maps((8, 32)), 32, "EfficientNetFeatures"
    ),
    "mambaout": Net(
        create("mambaout_femto", out_indices=(1, 3), **WIDTHS),
        ("NHWC/8", "NHWC/32"),
        32,
        "FeatureListNet",
    ),
}


@pytest.fixture(params=NETS)
def net(request):
    return NETS[request.param]


@pytest.fixture
def model(net):
    made = build(net)
    assert type(made).__name__ == net.cls
    return made


def test_maps_are_ensembled_as_by_the_oracle(net, model):
    wrapped = attach(build(net), views=VIEWS)
    facts = dict(multiple=net.multiple, floors=net.floors)
    for size in net.sizes:
        readings.check(run, wrapped, model, images(size), net.readings, **facts)


def test_declared_facts_are_the_actual_ones(net, model):
    adapter = describe(model)
    assert find_backbone(model) is model
    assert (adapter.patch, adapter.multiple, adapter.taps) == (net.patch, net.multiple, net.taps)
    assert adapter.entries == ("forward",)
    reductions, found = model.feature_info.reduction(), run(model, images(net.sizes[0]))
    assert sorted(reductions) == sorted(int(word.split("/")[1]) for word in net.readings)
    assert len(tensors(found)) == len(reductions)


def test_layer_equals_an_independent_computation(net, model):
    adapter = describe(model)
    if net.middle is None:
        with pytest.raises(ConfigError, match="blocks are not known"):
            SRTWrapper(model, layer=1)
        return
    index = adapter.blocks.index(net.middle)
    wrapped = SRTWrapper(copy.deepcopy(model), views=VIEWS, layer=net.middle)
    for size in net.sizes:
        image = images(size)
        expected = tensors(layer_by_hand(adapter, model, image, index, net.floors))
        plain, found = tensors(run(model, image)), tensors(run(wrapped, image))
        for reading, (path, a), (other, b), (_, c) in zip(net.readings, found, expected, plain):
            if net.multiple:
                b = readings.cropped(b, reading, 0, adapter.view_size(size), size)
            assert path == other and a.shape == b.shape == c.shape
            assert (a - b).abs().max() <= 1e-4 * b.abs().max()
        # The coarsest; a ResNet's first map comes before its blocks.
        last = max(range(len(found)), key=lambda i: int(net.readings[i].split("/")[1]))
        assert not torch.allclose(found[last][1], plain[last][1], rtol=1e-4, atol=1e-6)


def test_level_zero_copies_and_detaching(net, model):
    image, cls = images(net.sizes[0]), type(model)
    before, keys = run(model, image), list(model.state_dict())
    assert same(run(SRTWrapper(model, level=0), image), before)
    ensembled = run(SRTWrapper(model, views=VIEWS), image)
    assert not same(ensembled, before)
    assert list(model.state_dict()) == keys
    if net.cls != "FeatureGraphNet":  # copies of traced graphs run as in training
        for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
            assert same(run(other, image), ensembled)
    assert type(detach(model)) is cls
    assert same(run(model, image), before)


def test_a_finer_stride_and_the_dispersion_of_maps():
    model, image = build(NETS["swin"]), images(COARSE)
    SRTWrapper(model, views=VIEWS, stride=4, dispersion=True)
    assert [tuple(t.shape[1:3]) for t in run(model, image)] == [(16, 24), (16, 24)]
    assert [tuple(d.shape) for d in dispersion(model)] == [(1, 1, 16, 24), (1, 1, 16, 24)]
    assert all(d.isfinite().all() and d.max() > 0 for d in dispersion(model))


def test_the_model_inside_a_getter_can_be_ensembled_instead():
    model, image = build(NETS["vit"]), images(WIDE)
    expected = run(SRTWrapper(copy.deepcopy(model), views=VIEWS), image)
    attach(model, target="model", views=VIEWS)
    for found, other in zip(run(model, image), expected):
        torch.testing.assert_close(found, other)


def test_parts_that_hooks_collect_from_are_refused():
    with pytest.raises(ConfigError, match="that takes images"):
        attach(build(NETS["resnet-hook"]), target="body", views=VIEWS)


def test_sequences_from_hooks_are_refused_since_their_order_is_not_known():
    hook = dict(features_only=True, feature_cls="hook")
    vit = timm.create_model("vit_tiny_patch16_224", out_indices=(1,), **_VIT, **hook).eval()
    hiera = timm.create_model("hiera_tiny_224", **hook).eval()  # by windows in windows
    for model, size in ((vit, WIDE), (hiera, (224, 224))):
        with pytest.raises(AdapterError, match=r"output\[0\]: \(1, "):
            run(SRTWrapper(model, views=VIEWS), images(size))
