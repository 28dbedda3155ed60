"""What every backbone and base model of transformers must keep to once it is wrapped."""

from __future__ import annotations

import copy
import pickle
from functools import partial

import pytest

pytest.importorskip(
    "transformers", reason="needs transformers (pip install srt-plugins[transformers])"
)

import torch
from srt_plugins.adapters import describe, find_backbone

from srt_plugins import ConfigError, SRTWrapper, detach
from tests import contracts
from tests.contracts import VIEWS, same
from tests.transformers.backbones import BACKBONES, build
from tests.transformers.by_hand import at_layer, cells, ensemble, flat
from tests.transformers.tiny import images

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")


@pytest.fixture(scope="module")
def built():
    """Every backbone, made once; tests give them back as they were."""
    made = {}
    return lambda name: made.setdefault(name, build(BACKBONES[name]))


@pytest.fixture(params=BACKBONES)
def name(request):
    return request.param


@pytest.fixture
def case(name):
    return BACKBONES[name]


@pytest.fixture
def backbone(name, built):
    yield built(name)
    detach(built(name))


with_sizes = partial(contracts.with_sizes, BACKBONES)
with_blocks = contracts.with_sizes(BACKBONES, lambda case: case.blocks)


@torch.no_grad()
def run(backbone, image, **ask):
    return backbone(image, **ask)


def close(found, expected):
    assert found.shape == expected.shape
    assert (found - expected).abs().max() <= 1e-4 * expected.abs().max()


def test_declared_facts_are_the_actual_ones(case, backbone):
    adapter = describe(backbone)
    assert find_backbone(backbone) is backbone
    assert (adapter.patch, adapter.multiple) == (case.patch, None)
    assert len(adapter.blocks) == case.blocks
    assert adapter.taps == tuple(range(case.blocks))
    assert adapter.declares is case.declares
    if case.blocks:
        assert adapter.block_layout == case.layout
        assert adapter.prefix_tokens == (case.prefix if case.layout == "NLC" else 0)
    for size in case.sizes:
        output = run(backbone, images(size), **case.ask)
        assert {path[0] for path in flat(output)} - {"attentions"} == set(case.outputs)
        for path, tensor in flat(output).items():
            layout, strides = case.outputs.get(path[0], ("kept", ()))
            stride = strides[path[1] if len(path) > 1 else 0] if strides else 0
            h, w = cells(size, stride, case.completes) if stride else (0, 0)
            if layout == "NLC":
                assert tensor.shape[1] - h * w in (0, case.prefix)
            elif layout != "kept" and stride:
                assert (h, w) == tuple(tensor.shape[2:] if layout == "NCHW" else tensor.shape[1:3])


@with_sizes()
def test_ensemble_equals_the_oracle(name, size, built):
    case, backbone, image = BACKBONES[name], built(name), images(size)
    plain, expected = run(backbone, image, **case.ask), ensemble(backbone, case, image, **case.ask)
    found = run(SRTWrapper(backbone, views=VIEWS), image, **case.ask)
    detach(backbone)
    assert type(found) is type(plain) and list(flat(found)) == list(expected)
    for path, tensor in flat(found).items():
        assert tensor.dtype == torch.float32
        close(tensor, expected[path])
        # What is no feature comes from the centre view.
        assert torch.equal(tensor, flat(plain)[path]) is (path[0] not in case.outputs)


def test_level_zero_equals_the_unwrapped_backbone_to_the_bit(case, backbone):
    for size in case.sizes:
        before = run(backbone, images(size), **case.ask)
        for settings in (dict(level=0), dict(views=[(0, 0)])):
            after = run(SRTWrapper(backbone, **settings), images(size), **case.ask)
            assert same(after, before)


def test_batches_and_chunks_of_views_equal_single_ones(case, backbone):
    batch = images(case.sizes[0], batch=2)
    SRTWrapper(backbone, views=VIEWS, statistic="median", view_batch=2)
    both = flat(run(backbone, batch, **case.ask))
    SRTWrapper(backbone, views=VIEWS, statistic="median", view_batch=1)
    for i in range(2):
        for path, found in flat(run(backbone, batch[i : i + 1], **case.ask)).items():
            # Attention maps of windows come one after the other, image by image.
            per_image = both[path].shape[0] // 2
            part = both[path][i * per_image : (i + 1) * per_image]
            torch.testing.assert_close(found, part, rtol=1e-4, atol=1e-4)


def test_blocks_run_in_the_declared_order_with_the_declared_tokens(case, backbone):
    adapter, ran, size = describe(backbone), [], case.sizes[-1]
    hooks = [
        backbone.get_submodule(path).register_forward_hook(
            lambda m, a, o, path=path: ran.append((path, (o if torch.is_tensor(o) else o[0]).shape))
        )
        for path in adapter.blocks
    ]
    run(backbone, images(size))
    [hook.remove() for hook in hooks]
    assert [path for path, _ in ran] == list(adapter.blocks)
    for (_, shape), stride in zip(ran, adapter.block_strides):
        h, w = cells(size, stride, case.completes)
        if case.layout == "NLC":
            assert shape[1] == case.prefix + h * w
        else:
            assert tuple(shape[2:] if case.layout == "NCHW" else shape[1:3]) == (h, w)


@with_blocks
def test_layer_equals_an_independent_computation(name, size, built):
    case, backbone, image = BACKBONES[name], built(name), images(size)
    adapter = describe(backbone)
    index = adapter.blocks.index(case.middle)
    ask = case.ask
    blocks, strides = adapter.blocks, adapter.block_strides
    expected = flat(at_layer(backbone, case, blocks, strides, image, index, **ask))
    plain = flat(run(backbone, image, **ask))
    found = flat(run(SRTWrapper(backbone, views=VIEWS, layer=case.middle), image, **ask))
    detach(backbone)
    assert list(found) == list(plain)
    for path, tensor in found.items():
        # Attention maps come from the centre view, those of the blocks that did not run too.
        close(tensor, expected[path] if path[0] in case.outputs else plain[path])
    changed = [not torch.equal(found[p], plain[p]) for p in found if p[0] in case.outputs]
    assert any(changed)


def test_names_stay_and_detach_restores_everything(case, backbone):
    image = images(case.sizes[0])
    cls, before = type(backbone), run(backbone, image, **case.ask)
    keys, names = list(backbone.state_dict()), [n for n, _ in backbone.named_parameters()]
    attributes, settings = set(vars(backbone)), backbone.config.to_dict()
    wrapped = SRTWrapper(backbone, views=2)
    assert wrapped is backbone and isinstance(wrapped, cls) and type(wrapped) is not cls
    assert list(wrapped.state_dict()) == keys
    assert [n for n, _ in wrapped.named_parameters()] == names
    assert not same(run(wrapped, image, **case.ask), before)
    detach(wrapped)
    assert type(backbone) is cls and set(vars(backbone)) == attributes
    assert backbone.config.to_dict() == settings
    assert same(run(backbone, image, **case.ask), before)


def pickled(module):
    return pickle.loads(pickle.dumps(module))


def test_copies_and_pickles_are_wrapped_too(case):
    backbone, ways = build(case), [copy.deepcopy, pickled]
    try:
        pickled(backbone)
    except AttributeError:  # for the hooks that transformers puts on some of its backbones
        ways.remove(pickled)
    wrapped, image = SRTWrapper(backbone, views=2), images(case.sizes[0])
    others = [way(wrapped) for way in ways]
    expected = run(wrapped, image, **case.ask)
    for other in others:
        assert type(other) is type(wrapped) and other is not wrapped
        assert same(run(other, image, **case.ask), expected)


def test_training_mode_passes_through_to_the_bit(case, backbone):
    plain, image = copy.deepcopy(backbone).train(), images(case.sizes[0], batch=2)
    wrapped = SRTWrapper(copy.deepcopy(backbone), views=2).train()
    torch.manual_seed(0)  # dropout
    expected = plain(image, **case.ask)
    torch.manual_seed(0)
    assert same(wrapped(image, **case.ask), expected)


def test_a_failed_wrap_leaves_the_backbone_alone(case, backbone):
    cls, attributes = type(backbone), set(vars(backbone))
    for bad in (dict(level=case.patch), dict(stride=3), dict(layer="layer.99"), dict(levle=3)):
        with pytest.raises(ConfigError):
            SRTWrapper(backbone, **bad)
        assert type(backbone) is cls and set(vars(backbone)) == attributes
