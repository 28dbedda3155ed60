"""The engine against the float64 loop oracle."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from srt_plugins.core.accumulator import Aggregation, Grid
from srt_plugins.core.ensemble import ensemble
from srt_plugins.core.views import explicit, grid, phases
from tests import reference


class PatchEmbedding(torch.nn.Module):
    """A patch grid and nothing else, with a nonlinearity and a position term, so that views differ
    and no symmetry hides a mistake."""

    def __init__(self, patch, channels=3, seed=0):
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.patch = patch
        self.weight = torch.randn(channels, 3, patch, patch, generator=generator) / patch
        self.position = torch.randn(channels, 64, 64, generator=generator)

    def forward(self, images):
        out = torch.nn.functional.conv2d(images, self.weight.to(images), stride=self.patch)
        return torch.tanh(out) + self.position[:, : out.shape[2], : out.shape[3]].to(images)

    def numpy(self, image):
        h, w = image.shape[1:]
        p = self.patch
        weight = self.weight.double().numpy()
        out = np.zeros((weight.shape[0], h // p, w // p))
        for y in range(h // p):
            for x in range(w // p):
                window = image[:, y * p : (y + 1) * p, x * p : (x + 1) * p]
                for k in range(weight.shape[0]):
                    out[k, y, x] = np.tanh((window * weight[k]).sum())
        return out + self.position.double().numpy()[:, : h // p, : w // p]


def relative_error(got, expected):
    return np.abs(got.numpy() - expected).max() / np.abs(expected).max()


def random_case(seed):
    rng = np.random.default_rng(seed)
    patch = int(rng.choice([8, 14, 16]))
    cell = [patch, patch // 2, 1][seed % 3]
    tokens = rng.integers(2, 4, size=2)
    size = tuple(int(t) * patch for t in tokens)
    level = patch // 2
    others = {(int(a), int(b)) for a, b in rng.integers(-level, level + 1, size=(4, 2))}
    views = [(0, 0), *sorted(others - {(0, 0)})]
    weights = [float(w) for w in rng.uniform(0.2, 3.0, size=len(views))]
    padding = ["replicate", "reflect", "zeros"][seed % 3]
    taps = [None, (0.25, 0.5, 0.25)][seed % 2]
    return patch, cell, size, views, weights, padding, taps


@pytest.mark.parametrize("seed", range(9))
@pytest.mark.parametrize("view_batch", [1, 3])
def test_engine_equals_the_oracle(seed, view_batch):
    patch, cell, size, views, weights, padding, taps = random_case(seed)
    backbone = PatchEmbedding(patch, seed=seed)
    images = torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(seed))
    chosen = explicit([(dy, dx, w) for (dy, dx), w in zip(views, weights)])

    def run(batch):
        return [Grid(backbone(batch), (patch, patch))]

    got = {}
    for name, how in {
        "mean": Aggregation("mean", False, cell, taps),
        "std": Aggregation("mean", True, cell, taps),
        "median": Aggregation("median", False, cell, taps),
    }.items():
        done = ensemble(
            lambda view, _: run(view), images, chosen, how, padding=padding, view_batch=view_batch
        )
        got[name] = done.dispersions()[0] if name == "std" else done.results()[0]
        if name == "std":
            torch.testing.assert_close(done.results()[0], got["mean"], rtol=1e-4, atol=1e-5)
    for i, image in enumerate(images.double().numpy()):
        expected = reference.srt(
            backbone.numpy, image, views, patch, padding, cell, weights=weights, taps=taps
        )
        for name in got:
            assert relative_error(got[name][i], expected[name]) < 1e-5, name


@pytest.mark.parametrize("cell", [1, 2, 4, 8])
def test_pixel_form_pooled_is_the_token_form(cell):
    """Pooling the finer field gives the coarser one: everywhere where its cells are weighted with
    how many views show them, and plainly away from the border, where all do."""
    views = grid(3, 16)
    backbone = PatchEmbedding(16)
    images = torch.randn(1, 3, 48, 64, dtype=torch.float64)

    def run(batch):
        return [Grid(backbone(batch), (16, 16))]

    fine = ensemble(lambda view, _: run(view), images, views, Aggregation(stride=cell)).results()[0]
    token = ensemble(lambda view, _: run(view), images, views, Aggregation()).results()[0]
    shown = torch.zeros(48, 64, dtype=torch.float64)
    for dy, dx in views.translations:
        shown[max(0, -dy) : 48 - max(0, dy), max(0, -dx) : 64 - max(0, dx)] += 1
    pool = torch.nn.functional.avg_pool2d
    weight = pool(shown[None, None], cell)
    weighted = pool(fine * weight, 16 // cell) / pool(weight, 16 // cell)
    torch.testing.assert_close(weighted, token, rtol=1e-10, atol=1e-12)
    inner = (..., slice(1, -1), slice(1, -1))
    pooled = pool(fine, 16 // cell)
    torch.testing.assert_close(pooled[inner], token[inner], rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("padding", ["replicate", "reflect", "zeros"])
@pytest.mark.parametrize("statistic", ["mean", "median"])
@pytest.mark.parametrize("stride", [None, 4, 1])
def test_constant_features_stay_constant_up_to_the_border(padding, statistic, stride):
    def run(batch):
        return [Grid(torch.full((len(batch), 2, 3, 4), 7.0), (16, 16))]

    how = Aggregation(statistic, False, stride, (0.25, 0.5, 0.25))
    done = ensemble(
        lambda view, _: run(view), torch.rand(2, 3, 48, 64), grid(7, 16), how, padding=padding
    )
    torch.testing.assert_close(done.results()[0], torch.full_like(done.results()[0], 7.0))


def test_constant_features_have_no_dispersion():
    def run(batch):
        return [Grid(torch.full((len(batch), 2, 3, 4), 7.0), (16, 16))]

    done = ensemble(
        lambda view, _: run(view),
        torch.rand(1, 3, 48, 64),
        grid(3, 16),
        Aggregation(dispersion=True),
    )
    assert done.dispersions()[0].abs().max() < 1e-5


@pytest.mark.parametrize("views", [grid(3), phases(8, 2), explicit([(-2, 3), (0, 0), (1, -4)])])
def test_shift_equivariant_backbone_is_unchanged_away_from_the_border(views):
    """Stride 1 makes a convolution equivariant: every view, put back, is the plain output."""
    weight = torch.randn(4, 3, 3, 3, dtype=torch.float64)
    images = torch.randn(2, 3, 20, 24, dtype=torch.float64)

    def run(batch):
        out = torch.nn.functional.conv2d(batch, weight, padding=1)
        return [Grid(out, (1, 1))]

    plain = run(images)[0].tensor
    for statistic in ("mean", "median"):
        got = ensemble(lambda view, _: run(view), images, views, Aggregation(statistic)).results()[
            0
        ]
        inner = (..., slice(5, -5), slice(5, -5))
        torch.testing.assert_close(got[inner], plain[inner])


def test_float16_features_are_accumulated_in_float32_under_autocast():
    views = grid(3, 16)
    backbone = PatchEmbedding(16)
    images = torch.randn(1, 3, 48, 64)

    def run(dtype):
        def call(batch):
            with torch.autocast("cpu", enabled=False):
                features = backbone(batch).to(torch.bfloat16)
            return [Grid(features.to(dtype), (16, 16))]

        return call

    exact = ensemble(
        lambda view, _: run(torch.float64)(view), images, views, Aggregation()
    ).results()[0]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        got = ensemble(
            lambda view, _: run(torch.bfloat16)(view), images, views, Aggregation()
        ).results()[0]
    assert got.dtype == torch.float32
    torch.testing.assert_close(got.double(), exact, rtol=1e-5, atol=1e-6)


def test_gradients_flow_through_the_ensemble():
    views = phases(4, 2)
    backbone = PatchEmbedding(4)
    images = torch.randn(1, 3, 8, 8, dtype=torch.float64, requires_grad=True)
    for how in (Aggregation(), Aggregation(dispersion=True), Aggregation("median")):

        def run(x, how=how):
            return ensemble(
                lambda b, _: [Grid(backbone(b), (4, 4))], x, views, how, view_batch=2
            ).results()[0]

        assert torch.autograd.gradcheck(run, (images,))


def test_gradients_after_inference_mode_of_the_same_sizes():
    backbone = PatchEmbedding(4)
    images = torch.randn(1, 3, 12, 20)

    def run(x):
        return ensemble(
            lambda b, _: [Grid(backbone(b), (4, 4))], x, phases(4, 2), Aggregation(stride=2)
        ).results()[0]

    with torch.inference_mode():
        plain = run(images)
    images.requires_grad_()
    got = run(images)
    got.sum().backward()
    torch.testing.assert_close(got, plain)
    assert images.grad.abs().sum() > 0
