"""The other ways to spend forwards, against loops written out by hand."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from srt_plugins.core.accumulator import Accumulator, Aggregation, Grid
from srt_plugins.core.translate import pad
from srt_plugins.core.views import explicit, grid
from srt_plugins.errors import ConfigError
from srt_plugins.evaluation.methods import (
    flip,
    inference_by,
    larger_input,
    larger_size,
    matching_scale,
    output_ensemble,
)


class Segmentor(nn.Module):
    """Tokens of 4 pixels that depend on their position, upsampled to what the metas ask for."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embed = nn.Conv2d(3, 5, 4, stride=4)
        self.sizes: list[tuple[int, ...]] = []

    def inference(self, inputs, batch_img_metas):
        assert len(batch_img_metas) == len(inputs)
        self.sizes.append(tuple(inputs.shape))
        tokens = self.embed(inputs)
        tokens = tokens + torch.linspace(0, 1, tokens.shape[-1]).to(tokens)
        return F.interpolate(tokens, batch_img_metas[0]["img_shape"], mode="bilinear")


@pytest.fixture
def model():
    with torch.no_grad():
        yield Segmentor()


def images(batch: int = 2) -> torch.Tensor:
    return torch.randn(batch, 3, 12, 16, generator=torch.Generator().manual_seed(1))


METAS = [{"ori_shape": (10, 15), "img_shape": (12, 16), "flip": None}] * 2


def logits(model, inputs):
    shape = torch.Size(inputs.shape[-2:])
    return Segmentor.inference(model, inputs, [{"img_shape": shape}] * len(inputs))


@pytest.mark.parametrize("view_batch", [1, 3, "auto"])
@pytest.mark.parametrize("views", [[(0, 0), (2, 0, 3.0), (-1, 2)], [(1, 1), (-1, -1), (0, 0)]])
def test_output_ensemble_is_a_loop_over_pixels(model, views, view_batch):
    inputs, chosen = images(), explicit(views)
    with inference_by(model, output_ensemble(chosen, "replicate", view_batch)):
        found = model.inference(inputs, METAS)
    expected = torch.zeros(found.shape, dtype=torch.float64)
    weight = torch.zeros(12, 16, dtype=torch.float64)
    for (dy, dx), w in zip(chosen.translations, chosen.weights):
        wide = pad(inputs, 4, 4, 4, 4, "replicate")
        view = wide[..., 4 - dy : 16 - dy, 4 - dx : 20 - dx]
        out = logits(model, view)
        for y in range(12):
            for x in range(16):
                if 0 <= y + dy < 12 and 0 <= x + dx < 16:
                    expected[..., y, x] += w * out[..., y + dy, x + dx].double()
                    weight[y, x] += w
    torch.testing.assert_close(found.double(), expected / weight, atol=1e-5, rtol=1e-5)


def test_output_ensemble_is_the_engine_at_pixel_stride(model):
    inputs, chosen = images(), grid(2, 4)
    with inference_by(model, output_ensemble(chosen, "reflect")):
        found = model.inference(inputs, METAS)
    wide = pad(inputs, 2, 2, 2, 2, "reflect")
    engine = Accumulator(chosen, Aggregation.of())
    for i, (dy, dx) in enumerate(chosen.translations):
        view = wide[..., 2 - dy : 14 - dy, 2 - dx : 18 - dx]
        engine.add([Grid(logits(model, view), (1, 1))], slice(i, i + 1))
    torch.testing.assert_close(found, engine.results()[0], atol=1e-5, rtol=1e-5)


def test_output_ensemble_of_the_image_alone_is_the_model(model):
    with inference_by(model, output_ensemble(explicit([(0, 0)]))):
        found = model.inference(images(), METAS)
    assert torch.equal(found, logits(model, images()))


def test_output_ensemble_keeps_half_precision(model):
    half = images().to(torch.bfloat16)
    model.to(torch.bfloat16)
    with inference_by(model, output_ensemble(explicit([(0, 0), (1, 1)]))):
        assert model.inference(half, METAS).dtype == torch.bfloat16


def test_views_that_show_no_border_are_refused(model):
    with (
        inference_by(model, output_ensemble(explicit([(2, 2)]))),
        pytest.raises(ConfigError, match="whole image"),
    ):
        model.inference(images(), METAS)


def test_flip_is_the_mean_of_both(model):
    with inference_by(model, flip):
        found = model.inference(images(), METAS)
    mirrored = logits(model, images().flip(3)).flip(3)
    assert torch.equal(found, (logits(model, images()) + mirrored) / 2)
    assert not torch.allclose(found, logits(model, images()), atol=1e-3)


def test_larger_input(model):
    model.sizes.clear()
    with inference_by(model, larger_input(2**0.5, 4)):
        found = model.inference(images(), METAS)
    assert model.sizes == [(2, 3, 16, 24)]  # 12 and 16 times 1.41, in whole patches
    enlarged = F.interpolate(images(), (16, 24), mode="bilinear")
    assert torch.equal(found, F.interpolate(logits(model, enlarged), (12, 16), mode="bilinear"))


@pytest.mark.parametrize("constant", [0.0, 0.3, 0.8])
@pytest.mark.parametrize(("linear", "quadratic"), [(1.0, 0.0), (0.7, 0.3), (0.0, 2.0)])
@pytest.mark.parametrize("share", [1.0, 1.7, 4.0, 49.0])
def test_matching_scale(constant, linear, quadratic, share):
    """Costs with a part that no image size changes, as a detector's heads have."""

    def cost(scale: float) -> int:
        return round(1e9 * (constant + linear * scale**2 + quadratic * scale**4))

    wanted = round(share * cost(1.0))
    assert cost(matching_scale(cost, cost(1.0), wanted)) == pytest.approx(wanted, rel=0.1)


def test_larger_size_never_shrinks():
    assert larger_size((13, 20), 1.0, 8) == (16, 20)
    assert larger_size((368, 480), 2.0, 16) == (736, 960)


def test_metas_are_left_alone_and_everything_is_put_back(model):
    before = [dict(meta) for meta in METAS]
    with inference_by(model, flip):
        assert "inference" in vars(model)
        model.inference(images(), METAS)
    assert before == METAS
    assert "inference" not in vars(model)
    with pytest.raises(RuntimeError), inference_by(model, flip):
        model.inference(torch.zeros(2, 4, 12, 16), METAS)
    assert "inference" not in vars(model)


def test_an_inference_of_the_instance_comes_back(model):
    own = model.inference
    model.inference = own
    with inference_by(model, flip):
        assert model.inference is not own
    assert model.inference is own


def test_a_model_without_inference_is_refused():
    with pytest.raises(ConfigError, match="Linear without it.*--skip"):
        inference_by(nn.Linear(1, 1), flip)
