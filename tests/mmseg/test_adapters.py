"""What every backbone of MMSegmentation must keep to once it is wrapped."""

from __future__ import annotations

import copy
import math
import pickle
from functools import partial

import numpy as np
import pytest
import torch
from srt_plugins.adapters import describe
from srt_plugins.adapters.structure import tensors

from srt_plugins import AdapterError, ConfigError, SRTWrapper, detach
from tests import contracts, reference
from tests.contracts import VIEWS, close, layer_by_hand, run, same, view_inputs
from tests.mmseg.tiny import BACKBONES, FIXED, build, images

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")


@pytest.fixture(params=BACKBONES)
def case(request):
    return BACKBONES[request.param]


@pytest.fixture
def backbone(case):
    return build(case.config)


with_sizes = partial(contracts.with_sizes, BACKBONES)
with_cases = partial(contracts.with_cases, BACKBONES)


def kept(case, stride, size, tokens):
    """Tokens of the output: those that the image alone would give."""
    return tuple(-(-n // stride) for n in size) if case.multiple else tuple(tokens)


@with_sizes()
def test_level_zero_equals_the_unwrapped_backbone_to_the_bit(name, size):
    backbone = build(BACKBONES[name].config)
    before = run(backbone, images(size))
    assert same(run(SRTWrapper(backbone, level=0), images(size)), before)


@with_sizes()
def test_ensemble_equals_the_oracle(name, size):
    case = BACKBONES[name]
    backbone, image = build(case.config), images(size)
    plain = tensors(run(backbone, image))
    every = [tensors(run(backbone, view)) for view in view_inputs(image, case.multiple)]
    found = run(SRTWrapper(backbone, views=VIEWS), image)
    strides = iter(case.strides)
    for i, (path, tensor) in enumerate(tensors(found)):
        parts = [outputs[i][1][0].double().numpy() for outputs in every]
        assert (path, tensor.shape, tensor.dtype) == (plain[i][0], plain[i][1].shape, torch.float32)
        if tensor.ndim == 4:
            s = next(strides)
            cells = kept(case, s, size, parts[0].shape[1:])
            close(tensor, reference.aggregate(parts, VIEWS, s, cells=cells)["mean"])
        else:
            close(tensor, np.mean(parts, 0))
    assert next(strides, None) is None, "an output is missing"


@with_sizes()
def test_outputs_have_the_structure_of_the_unwrapped_ones(name, size):
    backbone, image = build(BACKBONES[name].config), images(size, batch=2)

    def structure(output):
        if isinstance(output, torch.Tensor):
            return output.shape, output.dtype
        return type(output), [structure(o) for o in output]

    before = run(backbone, image)
    after = run(SRTWrapper(backbone, views=2, statistic="median"), image)
    assert structure(after) == structure(before)
    assert not same(after, before)


def test_declared_facts_are_the_actual_ones(case, backbone):
    adapter = describe(backbone)
    assert (adapter.patch, adapter.multiple) == (case.patch, case.multiple)
    assert (adapter.taps, adapter.prefix_tokens) == (case.taps, case.prefix)
    assert len(adapter.blocks) == case.blocks
    if case.patch is not None:
        assert adapter.strides == case.strides
    output = [t for _, t in tensors(run(backbone, images(case.sizes[0]))) if t.ndim == 4]
    for tensor, stride in zip(output, case.strides):
        assert tensor.shape[-2:] == tuple(math.ceil(n / stride) for n in case.sizes[0])


@with_cases(lambda case: case.blocks)
def test_blocks_run_in_the_declared_order_with_the_declared_tokens(case, backbone):
    adapter = describe(backbone)
    ran = []
    for path in adapter.blocks:

        def note(module, args, output, path=path):
            ran.append((path, output.shape))

        backbone.get_submodule(path).register_forward_hook(note)
    run(backbone, images(case.sizes[0]))
    assert [path for path, _ in ran] == list(adapter.blocks)
    for (_, shape), stride in zip(ran, adapter.block_strides):
        h, w = FIXED[0] // stride, FIXED[1] // stride
        if adapter.block_layout == "NLC":
            assert shape[1] == case.prefix + h * w
        else:
            assert shape[2:] == (h, w)


@with_sizes(lambda case: case.blocks)
def test_layer_equals_an_independent_computation(name, size):
    case = BACKBONES[name]
    backbone, image = build(case.config), images(size)
    adapter = describe(backbone)
    index = adapter.blocks.index(case.middle)
    expected = layer_by_hand(adapter, backbone, image, index, case is BACKBONES["vit-floors"])
    found = run(SRTWrapper(backbone, views=VIEWS, layer=case.middle), image)
    strides = iter(case.strides)
    for (path, a), (other, b) in zip(tensors(found), tensors(expected)):
        assert path == other
        if a.ndim == 4:
            h, w = kept(case, next(strides), size, b.shape[-2:])
            b = b[..., :h, :w]
        assert a.shape == b.shape
        assert (a - b).abs().max() <= 1e-4 * b.abs().max()


@with_cases(lambda case: case.raw)
def test_last_layer_is_the_output_where_nothing_follows_it(case, backbone):
    outputs = run(SRTWrapper(backbone, views=VIEWS), images(case.sizes[0]))
    tokens = run(SRTWrapper(backbone, views=VIEWS, layer=-1), images(case.sizes[0]))
    for (_, a), (_, b) in zip(tensors(outputs), tensors(tokens)):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)


def test_names_stay_and_detach_restores_everything(case, backbone):
    image = images(case.sizes[0])
    cls, before = type(backbone), run(backbone, image)
    keys, names = list(backbone.state_dict()), [n for n, _ in backbone.named_parameters()]
    attributes = set(vars(backbone))
    wrapped = SRTWrapper(backbone, views=2)
    assert wrapped is backbone and isinstance(wrapped, cls) and type(wrapped) is not cls
    assert list(wrapped.state_dict()) == keys
    assert [n for n, _ in wrapped.named_parameters()] == names
    assert not same(run(wrapped, image), before)
    detach(wrapped)
    assert type(backbone) is cls and set(vars(backbone)) == attributes
    assert same(run(backbone, image), before)


def test_copies_and_pickles_are_wrapped_too(case, backbone):
    SRTWrapper(backbone, views=2, statistic="median")
    expected = run(backbone, images(case.sizes[0]))
    for other in (copy.deepcopy(backbone), pickle.loads(pickle.dumps(backbone))):
        assert type(other) is type(backbone) and other is not backbone
        assert same(run(other, images(case.sizes[0])), expected)
        detach(other)
        assert not same(run(other, images(case.sizes[0])), expected)


def test_a_failed_wrap_leaves_the_backbone_alone(case, backbone):
    bad = [dict(layer="layers.99"), dict(layer=99), dict(levle=3), dict(padding="mirror")]
    if case.patch is not None:
        bad += [dict(level=case.patch), dict(stride=3), dict(views=[(0, case.patch)])]
    cls, attributes = type(backbone), set(vars(backbone))
    for keywords in bad:
        with pytest.raises(ConfigError):
            SRTWrapper(backbone, **keywords)
        assert type(backbone) is cls and set(vars(backbone)) == attributes


def test_training_mode_passes_through_to_the_bit(case, backbone):
    plain, image = copy.deepcopy(backbone), images(case.sizes[0], batch=2)
    SRTWrapper(backbone, views=2)
    plain.train()
    backbone.train()
    assert same(backbone(image), plain(image))
    for a, b in zip(plain.buffers(), backbone.buffers()):
        assert torch.equal(a, b)


@pytest.mark.parametrize("size", [(21, 35), (24, 36), (45, 75)])
def test_strides_of_small_grids_are_not_mistaken_for_a_divisor_of_the_size(size):
    # 3 x 5 tokens of 21 x 35 pixels look like a stride of 7, and are a padded stride of 8.
    backbone = SRTWrapper(build(BACKBONES["mscan"].config), views=2)
    run(backbone, images(size))
    assert backbone._srt.adapter.strides == BACKBONES["mscan"].strides


def test_autocast_keeps_the_dtypes_of_the_unwrapped_backbone(case, backbone):
    image = images(case.sizes[0])
    with torch.autocast("cpu", torch.bfloat16):
        plain = run(backbone, image)
        found = run(SRTWrapper(backbone, views=2), image)
    for (_, a), (_, b) in zip(tensors(found), tensors(plain)):
        assert (a.dtype, a.shape) == (b.dtype, b.shape)
        assert a.isfinite().all()


class Pooling(torch.nn.Module):
    """Mean of every 4 x 4 patch."""

    def forward(self, x):
        return (torch.nn.functional.avg_pool2d(x, 4),)


def test_an_equivariant_backbone_is_unchanged_up_to_the_border():
    # The mean over a patch of a plane moves with the plane, and alignment of a plane is exact.
    y, x = torch.arange(32.0)[:, None], torch.arange(40.0)
    plane = (y - 3 * x + torch.zeros(3, 1, 1))[None]
    (before,) = run(Pooling(), plane)
    (after,) = run(SRTWrapper(Pooling().eval(), views=[(0, 0), (1, -2), (-2, 1), (2, 2)]), plane)
    inside = (..., slice(1, -1), slice(1, -1))
    torch.testing.assert_close(after[inside], before[inside], rtol=0, atol=1e-4)
    assert not torch.allclose(after, before, atol=0.1), "the border shows that views were run"


class Tokens(torch.nn.Module):
    """Returns (N, L, C) tokens, of which no grid can be made without their shape."""

    def forward(self, x):
        return torch.nn.functional.avg_pool2d(x, 8).flatten(2).transpose(1, 2)


def test_tokens_as_outputs_are_refused_with_what_was_seen():
    wrapped = SRTWrapper(Tokens().eval(), views=2)
    with pytest.raises(AdapterError, match=r"output: \(1, 12, 3\) torch.float32"):
        run(wrapped, images(FIXED))


def test_outputs_of_two_strides_per_axis_are_refused_with_what_was_seen():
    wrapped = SRTWrapper(torch.nn.AvgPool2d((4, 8)).eval(), views=2)
    with pytest.raises(AdapterError, match=r"\(1, 3, 6, 4\).*24x32"):
        run(wrapped, images(FIXED))
