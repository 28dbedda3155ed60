"""The engine against the float64 loop oracle."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from srt_plugins.core.accumulator import Accumulator, Aggregation, Grid, Vector
from srt_plugins.core.ensemble import ensemble
from srt_plugins.core.median import Hidden, median
from srt_plugins.core.product import operands
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


def every_statistic(features, views, patch, stride, view_batch=2, autocast=False):
    """Mean, standard deviation and median of ``(B, C, h, w)`` features per view, and the mean of
    their first column as image-level tokens."""
    found = {}
    for name, how in {
        "mean": Aggregation(stride=stride),
        "std": Aggregation(dispersion=True, stride=stride),
        "median": Aggregation("median", stride=stride),
    }.items():
        gathered = Accumulator(views, how)
        for start in range(0, len(views), view_batch):
            some = torch.cat(features[start : start + view_batch])
            leaves = [Grid(some, (patch, patch)), Vector(some[..., 0])]
            with torch.autocast("cpu", torch.bfloat16, autocast):
                gathered.add(leaves, slice(start, min(start + view_batch, len(views))))
        with torch.autocast("cpu", torch.bfloat16, autocast):
            results = gathered.results()
            found[name] = gathered.dispersions()[0] if name == "std" else results[0]
        found["vector"] = results[1]
    return found


def expected_statistics(features, views, patch, stride):
    """The same by the oracle, in float64."""
    exact = [f.double().numpy() for f in features]
    each = [
        reference.aggregate([f[b] for f in exact], views.translations, patch, stride)
        for b in range(len(exact[0]))
    ]
    found = {name: np.stack([e[name] for e in each]) for name in ("mean", "std", "median")}
    return {**found, "vector": np.mean([f[..., 0] for f in exact], 0)}


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("stride", [None, 2, 1])
def test_every_path_computes_in_float32_under_autocast(dtype, stride):
    views = grid(1, 4)
    generator = torch.Generator().manual_seed(stride or 4)
    features = [(torch.randn(2, 3, 3, 4, generator=generator) + 3).to(dtype) for _ in range(9)]
    expected = expected_statistics(features, views, 4, stride)
    got = every_statistic(features, views, 4, stride, autocast=True)
    for name, value in got.items():
        assert value.dtype == torch.float32
        assert relative_error(value, expected[name]) < 1e-6, name


@pytest.mark.parametrize(
    "views", [grid(1, 2), explicit([(0, 0, 2), (1, -1), (0, 1, 0.5), (-1, 0)])]
)
@pytest.mark.parametrize("view_batch", [1, 2, 4, 9])
def test_a_pixel_field_of_many_tokens_equals_the_oracle(views, view_batch):
    """More tokens than one block of the matrices, and views that wait for each other."""
    features = [torch.randn(1, 2, 13, 14) for _ in range(len(views))]
    got = every_statistic(features, views, 2, 1, view_batch)
    expected = reference.aggregate(
        [f[0].double().numpy() for f in features],
        views.translations,
        2,
        1,
        weights=list(views.weights),
    )
    for name in ("mean", "std", "median"):
        assert relative_error(got[name][0], expected[name]) < 1e-6, name


@pytest.mark.parametrize("how", [{}, {"dispersion": True}, {"statistic": "median"}])
@pytest.mark.parametrize("stride", [None, 1])
def test_no_images_give_no_features(how, stride):
    def run(view, _):
        return [Grid(torch.nn.functional.avg_pool2d(view, 4), (4, 4))]

    done = ensemble(run, torch.zeros(0, 3, 8, 12), grid(1, 4), Aggregation.of(**how, stride=stride))
    assert done.results()[0].shape == ((0, 3, 8, 12) if stride else (0, 3, 2, 3))


@pytest.mark.parametrize("dispersion", [False, True])
def test_running_results_count_every_view_added(dispersion):
    """Also in the middle, and where they are put back."""
    views = grid(1, 4)
    features = [torch.randn(1, 2, 3, 4, dtype=torch.float64) for _ in range(9)]
    how = Aggregation(dispersion=dispersion, stride=1)
    plain, looked = Accumulator(views, how), Accumulator(views, how)
    names = ("mean", "m2", "weight") if dispersion else ("sum",)
    for i, f in enumerate(features):
        for gathered in (plain, looked):
            gathered.add([Grid(f, (4, 4))], slice(i, i + 1))
        statistic = looked.leaves[0]
        for name in names:
            setattr(statistic, name, getattr(statistic, name).clone())
        if dispersion:
            cells = statistic.mean[..., 5, 5] * statistic.weight[5, 5]
        else:
            cells = statistic.sum[..., 5, 5]
        assert cells.shape == (1, 2) and bool((cells != 0).all())
    torch.testing.assert_close(looked.results()[0], plain.results()[0])
    torch.testing.assert_close(looked.dispersions(), plain.dispersions())


@pytest.mark.parametrize("statistic", ["mean", "median"])
@pytest.mark.parametrize("stride", [None, 1])
def test_a_backbone_may_write_every_output_to_the_same_place(statistic, stride):
    views = grid(1, 4)
    features = [torch.randn(1, 2, 3, 4) for _ in range(9)]
    fresh, reused = (Accumulator(views, Aggregation(statistic, stride=stride)) for _ in range(2))
    place = torch.empty(1, 2, 3, 4)
    for i, f in enumerate(features):
        fresh.add([Grid(f, (4, 4))], slice(i, i + 1))
        reused.add([Grid(place.copy_(f), (4, 4))], slice(i, i + 1))
    torch.testing.assert_close(reused.results()[0], fresh.results()[0])


class RoundedProducts(TorchDispatchMode):
    """Rounds the operands of every float32 product to bfloat16, as some devices are allowed to."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func._overloadname == "default" and "mm" in func._schema.name.split("::")[1]:
            first = len(args) - 2  # what is added comes before the operands
            rounded = [a.bfloat16().to(a.dtype) for a in args[first:]]
            args = (*args[:first], *rounded)
        return func(*args, **(kwargs or {}))


@pytest.fixture(params=["high", "medium"])
def allowed_precision(request):
    before = torch.get_float32_matmul_precision()
    yield request.param
    torch.set_float32_matmul_precision(before)


@pytest.mark.parametrize("stride", [None, 1])
def test_products_that_may_be_rounded_are_not(allowed_precision, stride):
    """TF32 on CUDA, bfloat16 on some CPUs."""
    views = grid(1, 4)
    features = [torch.randn(1, 3, 3, 4) + 3 for _ in range(9)]
    expected = expected_statistics(features, views, 4, stride)
    with RoundedProducts():
        coarse = every_statistic(features, views, 4, stride)
        torch.set_float32_matmul_precision(allowed_precision)
        got = every_statistic(features, views, 4, stride)
    assert torch.get_float32_matmul_precision() == allowed_precision
    for name in ("mean", "std", "median"):
        assert relative_error(coarse[name], expected[name]) > 1e-4, name
    for name in got:
        assert relative_error(got[name], expected[name]) < 1e-6, name


def test_operands_hold_what_rounding_leaves(allowed_precision):
    left, right = torch.randn(5, 7) * 1e3, torch.randn(3, 7, 4).exp()
    torch.set_float32_matmul_precision(allowed_precision)
    a, b = operands(left, right)
    for split in (a, b):
        assert torch.equal(split, split.bfloat16().float())
    exact = left.double() @ right.double()
    assert ((a.double() @ b.double() - exact).abs() <= 1e-6 * exact.abs().max()).all()
    wide = operands(left.double(), right.double())
    assert wide[0].shape == left.shape


@pytest.mark.parametrize("n", [1, 2, 3, 4, 5, 8, 9, 16, 25, 49])
def test_the_median_is_that_of_what_is_shown(n):
    rng = np.random.default_rng(n)
    values = rng.integers(-3, 4, size=(n, 2, 30, 40)) + rng.choice([0, 0.25], size=(n, 2, 30, 40))
    hidden = rng.random((n, 30, 40)) < rng.choice([0, 0.2, 0.6], size=(30, 40))
    hidden[rng.integers(n), :, :] = False
    shown = np.where(hidden[:, None], np.nan, values)
    broken = torch.from_numpy(np.where(hidden[:, None], np.nan, values))
    got = median(broken, Hidden(torch.from_numpy(hidden), torch.float64))
    np.testing.assert_array_equal(got.numpy(), np.nanmedian(shown, 0))


def test_the_median_of_a_broken_view_is_broken_where_it_is_shown():
    values = torch.randn(4, 1, 2, 3)
    values[2, 0, 0, 0] = values[2, 0, 1, 1] = float("nan")
    hidden = torch.zeros(4, 2, 3, dtype=torch.bool)
    hidden[2, 1, 1] = True
    got = median(values, Hidden(hidden, torch.float32))
    assert got.isnan().nonzero().tolist() == [[0, 0, 0]]


def test_gradients_flow_through_the_ensemble():
    views = phases(4, 2)
    backbone = PatchEmbedding(4)
    images = torch.randn(1, 3, 8, 8, dtype=torch.float64, requires_grad=True)
    for statistic, stride in itertools.product(("mean", "spread", "median"), (None, 1)):
        how = Aggregation("median", stride=stride)
        if statistic != "median":
            how = Aggregation(dispersion=statistic == "spread", stride=stride)

        def run(x, how=how):
            return ensemble(
                lambda b, _: [Grid(backbone(b), (4, 4))], x, views, how, view_batch=2
            ).results()[0]

        assert torch.autograd.gradcheck(run, (images,), fast_mode=True)


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
