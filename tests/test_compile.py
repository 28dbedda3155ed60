"""torch.compile is correct with SRT, in whatever order: never silently plain."""

from __future__ import annotations

import pytest
import torch

from srt_plugins import ConfigError, SRTWrapper, attach, detach, srt_enabled
from tests.toys import Model, PatchBackbone

IMAGES = torch.randn(1, 3, 24, 40, generator=torch.Generator().manual_seed(1))


@pytest.fixture(autouse=True)
def fresh():
    torch.compiler.reset()
    with torch.no_grad():
        yield


@pytest.fixture
def outputs():
    model = Model().eval()
    return model(IMAGES), attach(model)(IMAGES)


def same(got, expected):
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-6)


def test_compiling_a_wrapped_model(outputs):
    compiled = torch.compile(attach(Model().eval()), backend="eager")
    same(compiled(IMAGES), outputs[1])
    same(compiled(IMAGES), outputs[1])


def test_compiling_a_wrapped_model_in_place(outputs):
    model = attach(Model().eval())
    model.compile(backend="eager")
    same(model(IMAGES), outputs[1])


def test_a_wrapped_backbone_compiled_in_place(outputs):
    model = attach(Model().eval())
    model.backbone.compile(backend="eager")
    same(model(IMAGES), outputs[1])


@pytest.mark.parametrize("where", ["model", "backbone"])
def test_wrapping_and_unwrapping_after_compiled_code_has_run(outputs, where):
    plain, boosted = outputs
    model = Model().eval()
    (model if where == "model" else model.backbone).compile(backend="eager")
    same(model(IMAGES), plain)
    attach(model)
    same(model(IMAGES), boosted)
    detach(model)
    same(model(IMAGES), plain)


def test_attaching_through_a_compiled_model(outputs):
    plain, boosted = outputs
    compiled = torch.compile(Model().eval(), backend="eager")
    same(compiled(IMAGES), plain)
    attach(compiled)
    same(compiled(IMAGES), boosted)


def test_switching_compiled_code_on_and_off(outputs):
    plain, boosted = outputs
    compiled = torch.compile(attach(Model().eval()), backend="eager")
    same(compiled(IMAGES), boosted)
    with srt_enabled(compiled, enabled=False):
        same(compiled(IMAGES), plain)
    with srt_enabled(compiled, level=0):
        same(compiled(IMAGES), plain)
    same(compiled(IMAGES), boosted)
    same(compiled.train()(IMAGES), plain)


def test_one_whole_graph_is_refused():
    compiled = torch.compile(
        SRTWrapper(PatchBackbone().eval()).forward, backend="eager", fullgraph=True
    )
    with pytest.raises(torch._dynamo.exc.Unsupported):
        compiled(IMAGES)


def test_export_says_what_to_do(outputs):
    model = attach(Model().eval())
    with pytest.raises(ConfigError, match="without SRT for torch.export"):
        torch.export.export(model, (IMAGES,), strict=False)
    with srt_enabled(model, enabled=False):
        exported = torch.export.export(model, (IMAGES,), strict=False)
    same(exported.module()(IMAGES), outputs[0])
