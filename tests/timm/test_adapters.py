"""What every model of timm must keep to once it is wrapped."""

from __future__ import annotations

import copy
import pickle
from functools import partial

import pytest

pytest.importorskip("timm", reason="needs timm")

import torch
from srt_plugins.adapters import describe, find_backbone
from srt_plugins.adapters.structure import tensors

from srt_plugins import ConfigError, SRTWrapper, attach, detach
from srt_plugins.swap import SRTModule
from tests import contracts, readings
from tests.contracts import VIEWS, layer_by_hand, run, same
from tests.timm.models import MODELS, build, images

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")

with_sizes = partial(contracts.with_sizes, MODELS)
with_cases = partial(contracts.with_cases, MODELS)


@pytest.fixture(params=MODELS)
def case(request):
    return MODELS[request.param]


@pytest.fixture
def model(case):
    return build(case)


@with_sizes()
def test_every_way_to_ask_is_ensembled_as_by_the_oracle(name, size):
    case = MODELS[name]
    model, image = build(case), images(size)
    wrapped = SRTWrapper(copy.deepcopy(model), views=VIEWS)
    facts = (case.prefix, case.multiple, case.floors)
    for call in case.calls:
        readings.check(call, wrapped, model, image, call.readings, *facts)


@with_sizes()
def test_level_zero_equals_the_unwrapped_model_to_the_bit(name, size):
    case = MODELS[name]
    model, image = build(case), images(size, batch=2)
    wrapped = SRTWrapper(copy.deepcopy(model), level=0)
    for call in case.calls:
        assert same(call(wrapped, image), call(model, image))
    assert same(run(wrapped, image), run(model, image))


def test_logits_come_from_ensembled_features(case, model):
    wrapped, image = SRTWrapper(copy.deepcopy(model), views=VIEWS), images(case.sizes[0], batch=2)
    with torch.no_grad():
        expected = model.forward_head(wrapped.forward_features(image))
    found = run(wrapped, image)
    assert same(found, expected)
    assert not torch.allclose(found, run(model, image), rtol=1e-4, atol=1e-6)


def test_declared_facts_are_the_actual_ones(case, model):
    adapter = describe(model)
    assert find_backbone(model) is model
    assert (adapter.patch, adapter.multiple) == (max(case.strides), case.multiple)
    assert adapter.by_size.strides == case.strides
    assert adapter.prefix_tokens == case.prefix
    assert (len(adapter.blocks), adapter.taps) == (case.blocks, tuple(range(case.blocks)))
    every = ("forward_features", "forward_intermediates", "get_intermediate_layers")
    assert adapter.entries == tuple(name for name in every if hasattr(model, name))


@with_cases(lambda case: case.blocks)
def test_blocks_run_in_the_declared_order_with_the_declared_tokens(case):
    model = build(case)
    adapter = describe(model)
    ran = []
    for path in adapter.blocks:

        def note(module, args, output, path=path):
            ran.append((path, (output[0] if isinstance(output, tuple) else output).shape))

        model.get_submodule(path).register_forward_hook(note)
    height, width = case.sizes[0]
    case.calls[0](model, images(case.sizes[0]))
    assert adapter.block_layout == case.layout
    assert [path for path, _ in ran] == list(adapter.blocks)
    for (_, shape), s in zip(ran, adapter.block_strides):
        h, w = -(-height // s), -(-width // s)
        grids = {"NLC": (case.prefix + h * w,), "NHWC": (h, w), "NCHW": (shape[1], h, w)}
        assert tuple(shape[1:])[: len(grids[case.layout])] == grids[case.layout]
        assert len(shape) == (3 if case.layout == "NLC" else 4)


@with_sizes(lambda case: case.middle)
def test_layer_equals_an_independent_computation(name, size):
    case = MODELS[name]
    model, image = build(case), images(size)
    adapter = describe(model)
    index = adapter.blocks.index(case.middle)
    wrapped = SRTWrapper(copy.deepcopy(model), views=VIEWS, layer=case.middle)
    call = case.calls[1]  # the final features, and those of every stage or block
    expected = tensors(layer_by_hand(adapter, model, image, index, case.floors, call))
    plain, found = tensors(call(model, image)), tensors(call(wrapped, image))
    views = adapter.view_size(size)
    for reading, (path, a), (other, b), (_, c) in zip(call.readings, found, expected, plain):
        if case.multiple:
            b = readings.cropped(b, reading, case.prefix, views, size)
        assert path == other and a.shape == b.shape == c.shape
        assert (a - b).abs().max() <= 1e-4 * b.abs().max()
    # The final features; a ResNet's first map comes before its blocks.
    assert not torch.allclose(found[0][1], plain[0][1], rtol=1e-4, atol=1e-6)


def test_batches_and_chunks_of_views_equal_single_ones(case, model):
    batch, call = images(case.sizes[0], batch=2), case.calls[1]
    both = tensors(call(SRTWrapper(model, views=VIEWS, view_batch=2), batch))
    SRTWrapper(model, views=VIEWS, view_batch=1)
    for i in range(2):
        for (_, found), (_, every) in zip(tensors(call(model, batch[i : i + 1])), both):
            torch.testing.assert_close(found[0], every[i], rtol=1e-3, atol=1e-4)


def test_the_model_stays_what_it_was(case, model):
    image, call = images(case.sizes[0]), case.calls[1]
    cls, before = type(model), call(model, image)
    keys, names = list(model.state_dict()), [n for n, _ in model.named_parameters()]
    attributes = set(vars(model))
    wrapped = attach(model, views=2)
    assert wrapped is model and isinstance(wrapped, cls) and type(wrapped) is not cls
    assert list(wrapped.state_dict()) == keys
    assert [n for n, _ in wrapped.named_parameters()] == names
    ensembled = call(wrapped, image)
    assert not same(ensembled, before)
    for other in (copy.deepcopy(wrapped), pickle.loads(pickle.dumps(wrapped))):
        assert type(other) is type(wrapped) and other is not wrapped
        assert same(call(other, image), ensembled)
        assert same(call(detach(other), image), before)
    SRTWrapper(wrapped, views=3)
    assert type(wrapped).__mro__.count(SRTModule) == 1
    assert not same(call(wrapped, image), ensembled)
    detach(wrapped)
    assert type(model) is cls and set(vars(model)) == attributes
    assert same(call(model, image), before)


def test_training_mode_passes_through_to_the_bit(case, model):
    wrapped, image = SRTWrapper(copy.deepcopy(model), views=2).train(), images(case.sizes[0], 2)
    model.train()
    torch.manual_seed(0)  # drop path
    expected = model(image)
    torch.manual_seed(0)
    assert same(wrapped(image), expected)


def test_a_failed_wrap_leaves_the_model_alone(case, model):
    cls, attributes = type(model), set(vars(model))
    bad = [
        dict(level=max(case.strides)),
        dict(stride=max(case.strides) - 1),
        dict(layer="blocks.99"),
        dict(levle=3),
    ]
    for keywords in bad:
        with pytest.raises(ConfigError):
            SRTWrapper(model, **keywords)
        assert type(model) is cls and set(vars(model)) == attributes
