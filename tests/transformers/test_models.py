"""Whole models of transformers, with SRT on the backbone inside."""

from __future__ import annotations

import copy

import pytest

pytest.importorskip(
    "transformers", reason="needs transformers (pip install srt-plugins[transformers])"
)

import torch
from srt_plugins.adapters import find_backbone

from srt_plugins import ConfigError, attach, detach, srt_enabled
from tests.contracts import VIEWS, same
from tests.transformers.by_hand import flat, mean_of, view_inputs
from tests.transformers.models import MODELS
from tests.transformers.tiny import images

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")


@pytest.fixture(scope="module")
def built():
    made = {}
    return lambda name: made.setdefault(name, MODELS[name].make())


@pytest.fixture(params=MODELS)
def name(request):
    return request.param


@pytest.fixture
def case(name):
    return MODELS[name]


@pytest.fixture
def model(name, built):
    yield built(name)
    detach(built(name))


@torch.no_grad()
def run(model, image, **ask):
    if "task_encoder" in dict(model.model.named_children() if hasattr(model, "model") else ()):
        ask["task_inputs"] = torch.arange(8)[None].repeat(len(image), 1)
    return model(image, **ask)


def test_the_backbone_is_found_and_nothing_else_changes(case, model):
    image = images(case.size, batch=2)
    before, settings = run(model, image), model.config.to_dict()
    keys, cls = list(model.state_dict()), type(model)
    assert find_backbone(model) is model.get_submodule(case.backbone)
    assert attach(model, level=0) is model
    assert same(run(model, image), before)
    attach(model, views=2)
    found = run(model, image)
    assert type(found) is type(before) and list(found) == list(before)
    for path, tensor in flat(before).items():
        assert (flat(found)[path].shape, flat(found)[path].dtype) == (tensor.shape, tensor.dtype)
    assert not torch.equal(found[case.output], before[case.output])
    assert found[case.output].isfinite().all()
    assert type(model) is cls and list(model.state_dict()) == keys
    assert model.config.to_dict() == settings
    assert same(run(detach(model), image), before)


def test_a_batch_is_what_its_images_are(case, model):
    batch = images(case.size, batch=2)
    attach(model, views=2)
    both = run(model, batch)[case.output]
    for i in range(2):
        one = run(model, batch[i : i + 1])[case.output]
        torch.testing.assert_close(one[0], both[i], rtol=1e-3, atol=1e-4)


# By the backbone's class: what its maps are, as (layout, strides, prefix tokens, padded).
OUTPUTS = {
    "Dinov2Backbone": {"feature_maps": ("NLC", (14,) * 4, 1, False)},
    "Dinov2Model": {"last_hidden_state": ("NLC", (14,), 1, False)},
    "DPTModel": {"hidden_states": ("NLC", (16,) * 5, 1, False)},
    "BeitBackbone": {"feature_maps": ("NLC", (8,) * 4, 1, False)},
    "BeitModel": {"hidden_states": ("NLC", (8,) * 5, 1, False)},
    "SwinBackbone": {"feature_maps": ("NCHW", (4, 8, 16, 32), 0, True)},
    "SegformerModel": {"hidden_states": ("NCHW", (4, 8, 16, 32), 0, True)},
    "GLPNModel": {"hidden_states": ("NCHW", (4, 8, 16, 32), 0, True)},
    "MaskFormerSwinBackbone": {"feature_maps": ("NCHW", (4, 8, 16, 32), 0, True)},
    "ConvNextBackbone": {"feature_maps": ("NCHW", (4, 8, 16, 32), 0, False)},
}


def test_the_head_reads_the_ensemble_by_the_oracle(case, model):
    image, backbone = images(case.size), model.get_submodule(case.backbone)
    outputs = []
    hook = backbone.register_forward_hook(lambda m, a, output: outputs.append(output))
    for view in view_inputs(image):
        run(model, view)
    hook.remove()
    # The model with its backbone's output put in from outside.
    told = told_by_oracle(outputs, OUTPUTS[type(backbone).__name__], case.size)
    hook = backbone.register_forward_hook(lambda m, a, output: told)
    expected = run(model, image)[case.output]
    hook.remove()
    found = run(attach(model, views=VIEWS), image)[case.output]
    assert (found - expected).abs().max() <= 1e-3 * expected.abs().max()


def told_by_oracle(outputs, facts, size):
    told = copy.copy(outputs[0])
    if "intermediate_activations" in told:  # of the stem of a hybrid
        facts = {**facts, "intermediate_activations": ("NCHW", (4, 8), 0, True)}
    for key, (layout, strides, prefix, padded) in facts.items():
        if torch.is_tensor(told[key]):
            parts = [output[key] for output in outputs]
            told[key] = mean_of(parts, layout, strides[0], size, prefix, padded)
        else:
            told[key] = [
                mean_of(
                    [output[key][i] for output in outputs], layout, stride, size, prefix, padded
                )
                for i, stride in enumerate(strides)
            ]
    return told


@pytest.mark.parametrize("name", ["depth-anything", "dpt", "segformer", "mask2former"])
def test_a_layer_inside_a_whole_model(name, built):
    model, case = built(name), MODELS[name]
    image = images(case.size)
    before = run(model, image)
    attach(model, views=2)
    outputs = run(model, image)
    detach(model)
    attach(model, views=2, layer=1)
    found = run(model, image)
    detach(model)
    for other in (before, outputs):
        assert found[case.output].shape == other[case.output].shape
        assert not torch.equal(found[case.output], other[case.output])
    assert same(run(model, image), before)


@pytest.mark.parametrize("name", ["depth-anything", "upernet-swin", "segformer"])
def test_what_is_asked_for_comes_with_the_ensemble(name, built):
    model, case = built(name), MODELS[name]
    image, ask = images(case.size), dict(output_hidden_states=True, output_attentions=True)
    before = run(model, image, **ask)
    with srt_enabled(model, views=2):
        found = run(model, image, **ask)
        bare = run(model, image, return_dict=False, **ask)
    assert list(found) == list(before) and type(found) is type(before)
    for path, tensor in flat(found).items():
        assert torch.equal(tensor, flat(before)[path]) is (path[0] == "attentions")
    assert isinstance(bare, tuple) and same(bare, found.to_tuple())


@pytest.mark.parametrize("name", ["depth-anything", "dpt", "zoedepth", "beit", "glpn"])
def test_a_finer_stride_is_refused_where_heads_count_tokens(name, built):
    model = built(name)
    with pytest.raises(ConfigError, match=r"stride=None, got 2.*declares"):
        attach(model, views=2, stride=2)
    backbone = find_backbone(model)
    image = images(MODELS[name].size)
    with torch.no_grad():
        before = flat(backbone(image))
        found = flat(attach(backbone, views=2, stride=2)(image))  # alone it can be finer
    detach(backbone)
    assert all(found[p].numel() > 3.5 * t.numel() for p, t in before.items() if t.ndim > 2)


def test_a_finer_stride_where_heads_resize(built):
    model, image = built("upernet-swin"), images((64, 96))
    before = run(model, image)
    with srt_enabled(model, views=4, stride=2):
        found = run(model, image)
    assert found.logits.shape == before.logits.shape
    assert not torch.equal(found.logits, before.logits)
