"""What vision transformers built as those of torch.hub must keep to once they are wrapped."""

from __future__ import annotations

import copy
import pickle
from dataclasses import dataclass
from functools import partial
from typing import Any, Callable

import pytest
import torch
from srt_plugins.adapters import describe, find_backbone
from srt_plugins.adapters.structure import tensors
from torch import nn

from srt_plugins import AdapterError, ConfigError, SRTWrapper, attach, detach, dispersion
from tests import readings
from tests.contracts import VIEWS, layer_by_hand, run, same
from tests.hub import dinov3
from tests.hub.models import Depther, DinoVisionTransformer, VisionTransformer

EVEN = (24, 40)
ODD = (27, 45)


@dataclass(frozen=True)
class Call:
    """One way to ask for features, and what each tensor that is returned holds."""

    entry: str
    keywords: dict[str, Any]
    readings: tuple[str, ...]

    def __call__(self, model, image):
        with torch.no_grad():
            return getattr(model, self.entry)(image, **self.keywords)


@dataclass(frozen=True)
class Case:
    """How to make a backbone, and the facts that its adapter must find out by itself."""

    make: Callable[[], nn.Module]
    entries: tuple[str, ...]
    calls: tuple[Call, ...]
    blocks: tuple[str, ...]
    prefix: int = 1
    sizes: tuple[tuple[int, int], ...] = (EVEN,)


def asked(**keywords):
    return partial(Call, "get_intermediate_layers", keywords)


FEATURES = ("pooled", "pooled", "patches/8", "tokens/8")
SHARED = (
    Call("forward_features", {}, FEATURES),
    Call("forward", {}, ("pooled",)),
    Call("forward", dict(is_training=True), FEATURES),
    asked(n=2)(("patches/8",) * 2),
    asked(n=[0, 2], reshape=True, norm=False)(("NCHW/8",) * 2),
    asked(n=[1], reshape=True, return_class_token=True)(("NCHW/8", "pooled")),
)
BLOCKS = tuple(f"blocks.{i}" for i in range(4))
V2 = partial(Case, entries=("forward_features", "get_intermediate_layers"), calls=SHARED)

BACKBONES = {
    "dino": Case(
        VisionTransformer,
        ("forward", "get_intermediate_layers"),
        (Call("forward", {}, ("pooled",)), asked(n=2)(("tokens/8",) * 2)),
        BLOCKS[:3],
        sizes=(EVEN, ODD),
    ),
    "dinov2": V2(DinoVisionTransformer, blocks=BLOCKS),
    "dinov2-reg": V2(partial(DinoVisionTransformer, 4), blocks=BLOCKS, prefix=5),
    "dinov2-chunks": V2(
        partial(DinoVisionTransformer, 2, chunks=2),
        blocks=("blocks.0.0", "blocks.0.1", "blocks.1.2", "blocks.1.3"),
        prefix=3,
    ),
    "dinov3": V2(
        dinov3.DinoVisionTransformer,
        calls=(
            *SHARED,
            asked(return_class_token=True, return_extra_tokens=True)(
                ("patches/8", "pooled", "pooled")
            ),
        ),
        blocks=BLOCKS[:3],
        prefix=3,
    ),
}


@pytest.fixture(params=BACKBONES)
def case(request):
    return BACKBONES[request.param]


@pytest.fixture
def backbone(case):
    return case.make().eval()


def images(size, batch=1):
    return torch.randn(batch, 3, *size, generator=torch.Generator().manual_seed(1))


def test_every_way_to_ask_is_ensembled_as_by_the_oracle(case, backbone):
    wrapped = attach(copy.deepcopy(backbone), views=VIEWS)
    for size in case.sizes:
        for call in case.calls:
            facts = (call.readings, case.prefix, None, True)
            readings.check(call, wrapped, backbone, images(size), *facts)


def test_level_zero_equals_the_unwrapped_backbone_to_the_bit(case, backbone):
    wrapped, image = SRTWrapper(copy.deepcopy(backbone), level=0), images(EVEN, 2)
    for call in case.calls:
        assert same_or_none(call(wrapped, image), call(backbone, image))


def same_or_none(a, b):
    if isinstance(a, dict):
        assert list(a) == list(b) and (a.get("masks", 0) is None) == (b.get("masks", 0) is None)
        return all(torch.equal(a[k], b[k]) for k in a if k != "masks")
    return same(a, b)


def test_declared_facts_are_the_actual_ones(case, backbone):
    adapter = describe(backbone)
    assert find_backbone(backbone) is backbone
    assert (adapter.patch, adapter.multiple, adapter.entries) == (8, None, case.entries)
    assert (adapter.blocks, adapter.taps) == (case.blocks, tuple(range(len(case.blocks))))
    assert adapter.prefix_tokens == case.prefix
    ran = []
    for path in adapter.blocks:

        def note(module, args, output, path=path):
            ran.append((path, (output[0] if isinstance(output, list) else output).shape))

        backbone.get_submodule(path).register_forward_hook(note)
    run(backbone, images(EVEN))
    assert ran == [(path, (1, case.prefix + 3 * 5, 12)) for path in adapter.blocks]


def test_layer_equals_an_independent_computation(case, backbone):
    adapter = describe(backbone)
    for call in (case.calls[0], case.calls[-1]):
        wrapped = SRTWrapper(copy.deepcopy(backbone), views=VIEWS, layer=1)
        expected = tensors(layer_by_hand(adapter, backbone, images(EVEN), 1, True, call))
        plain, found = tensors(call(backbone, images(EVEN))), tensors(call(wrapped, images(EVEN)))
        for (path, a), (other, b), (_, c) in zip(found, expected, plain):
            assert path == other and a.shape == b.shape
            if a.numel():
                assert (a - b).abs().max() <= 1e-4 * b.abs().max()
                assert not torch.allclose(a, c, rtol=1e-4, atol=1e-6)


def test_the_backbone_stays_what_it_was(case, backbone):
    image, call, cls = images(EVEN), case.calls[0], type(backbone)
    before, keys = call(backbone, image), list(backbone.state_dict())
    names, attributes = [n for n, _ in backbone.named_parameters()], set(vars(backbone))
    wrapped = SRTWrapper(backbone, views=VIEWS)
    assert wrapped is backbone and isinstance(wrapped, cls)
    assert list(wrapped.state_dict()) == keys
    assert [n for n, _ in wrapped.named_parameters()] == names
    ensembled = call(wrapped, image)
    for other in (copy.deepcopy(wrapped), pickle.loads(pickle.dumps(wrapped))):
        assert same_or_none(call(other, image), ensembled)
        assert same_or_none(call(detach(other), image), before)
    wrapped.train()
    assert same_or_none(call(wrapped, image), before)
    detach(wrapped.eval())
    assert type(backbone) is cls and set(vars(backbone)) == attributes
    assert same_or_none(call(backbone, image), before)


def test_batches_and_chunks_of_views_equal_single_ones(case, backbone):
    both = tensors(case.calls[-1](SRTWrapper(backbone, views=VIEWS, view_batch=2), images(EVEN, 2)))
    SRTWrapper(backbone, views=VIEWS, view_batch=1)
    for i in range(2):
        found = tensors(case.calls[-1](backbone, images(EVEN, 2)[i : i + 1]))
        for (_, one), (_, every) in zip(found, both):
            torch.testing.assert_close(one[0], every[i], rtol=1e-4, atol=1e-5)


def test_a_failed_wrap_leaves_the_backbone_alone(case, backbone):
    cls, attributes = type(backbone), set(vars(backbone))
    for keywords in (dict(level=8), dict(stride=3), dict(layer="blocks.9"), dict(levle=3)):
        with pytest.raises(ConfigError):
            SRTWrapper(backbone, **keywords)
        assert type(backbone) is cls and set(vars(backbone)) == attributes


def test_attention_maps_are_those_of_the_image():
    backbone = VisionTransformer().eval()
    with torch.no_grad():
        before = backbone.get_last_selfattention(images(EVEN))
        assert torch.equal(SRTWrapper(backbone).get_last_selfattention(images(EVEN)), before)


def test_registers_are_not_taken_for_the_tokens_of_a_small_image():
    backbone = DinoVisionTransformer(4).eval()  # as many as the image has patches
    wrapped = SRTWrapper(copy.deepcopy(backbone), views=VIEWS)
    for call in SHARED:
        readings.check(call, wrapped, backbone, images((16, 16)), call.readings, 5)


def test_a_finer_stride_and_the_dispersion():
    backbone = SRTWrapper(DinoVisionTransformer(2).eval(), views=VIEWS, stride=4, dispersion=True)
    with torch.no_grad():
        (maps,) = backbone.get_intermediate_layers(images(EVEN), reshape=True)
        assert maps.shape == (1, 12, 6, 10)
        assert backbone.forward_features(images(EVEN))["x_prenorm"].shape == (1, 3 + 60, 12)
    assert [tuple(d.shape) for d in dispersion(backbone)] == [(1, 1, 6, 10)] * 2


def test_sizes_that_the_backbone_refuses_give_its_own_error():
    backbone = SRTWrapper(DinoVisionTransformer().eval())
    with pytest.raises(AssertionError, match="images of whole patches"):
        run(backbone, images(ODD))
    with pytest.raises(ConfigError, match="to be images"):
        run(backbone, [images(EVEN)])
    run(backbone, images(EVEN))


class Own(DinoVisionTransformer):
    def forward(self, x):
        return self.get_intermediate_layers(x, 1, True)[0]


class Resizing(DinoVisionTransformer):
    def prepare_tokens_with_masks(self, x, masks=None):
        return super().prepare_tokens_with_masks(nn.functional.interpolate(x, (32, 32)))


def test_subclasses():
    backbone = Own().eval()
    assert describe(backbone).entries[0] == "forward"
    wrapped = SRTWrapper(copy.deepcopy(backbone), views=VIEWS)
    readings.check(run, wrapped, backbone, images(EVEN), ("NCHW/8",))
    with pytest.raises(AdapterError, match=r"3x5 \(stride 8\) for an image of 24x40.*resizes"):
        run(SRTWrapper(Resizing().eval()), images(EVEN))


# --- a depth model on it -------------------------------------------------------------------------


@pytest.mark.parametrize("size", [EVEN, ODD])
@pytest.mark.parametrize("keywords", [dict(views=VIEWS), dict(views=VIEWS, layer=1)])
def test_a_head_on_another_method_of_the_backbone(size, keywords):
    depther, image = Depther().eval(), images(size)
    assert find_backbone(depther) is depther.backbone
    before = run(depther, image)
    assert before.shape == (1, 1, *size)
    # By hand: the backbone called with what its hook makes of the image.
    twin = Depther().eval()
    (padding,) = twin.backbone._forward_pre_hooks.values()
    call = dict(n=[1, 3], reshape=True, return_class_token=True, norm=False)
    inner = SRTWrapper(DinoVisionTransformer(2).eval(), **keywords)
    inner.load_state_dict(twin.backbone.state_dict())
    with torch.no_grad():
        features = inner.get_intermediate_layers(padding(None, (image,)), **call)
    twin.backbone.forward = lambda x: features
    attach(depther, **keywords)
    ensembled = run(depther, image)
    assert torch.equal(ensembled, run(twin, image))
    assert not torch.allclose(ensembled, before, rtol=1e-3)
    for other in (copy.deepcopy(depther), pickle.loads(pickle.dumps(depther))):
        assert other.backbone.forward.func.__self__ is other.backbone
        assert torch.equal(run(other, image), ensembled)
        assert torch.equal(run(detach(other), image), before)
    assert torch.equal(run(depther, image), ensembled)
    assert torch.equal(run(detach(depther), image), before)
    assert type(depther.backbone) is DinoVisionTransformer
