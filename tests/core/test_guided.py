"""Smoothing along the image against the float64 loop oracle, and what follows from it."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from srt_plugins.core.guided import Guide, Guided, smooth
from srt_plugins.errors import ConfigError
from tests import reference
from tests.core.test_memory import LiveBytes

# stride, size, cell: pixels per token, per input cell and per output cell
SIZES = [(16, 16, 16), (16, 16, 4), (16, 8, 4), (8, 8, 8), (8, 8, 4), (14, 7, 7), (14, 14, 2)]


def photo(batch, height, width, channels=3, seed=0, dtype=torch.float64):
    """Smooth colours and noise, correlated channels, another contrast in each image."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    plain = []
    for _ in range(batch):
        waves = np.sin(
            rng.uniform(0.05, 0.4, (4, 1, 1)) * y + rng.uniform(0.05, 0.4, (4, 1, 1)) * x
        )
        mixed = np.tensordot(rng.normal(size=(channels, 4)), waves, 1)
        noise = 0.2 * rng.normal(size=(channels, height, width))
        plain.append(rng.uniform(0.5, 60) * (mixed + noise + rng.normal(size=(channels, 1, 1))))
    return torch.from_numpy(np.stack(plain)).to(dtype)


def tokens(*shape, seed=1, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def smoothed(features, images, how, stride, size, cell):
    return smooth(features, Guide(images), how, stride, size, cell)


def expected(features, images, how, stride, size, cell):
    pairs = zip(features.double().numpy(), images.double().numpy())
    each = [reference.guided(f, i, stride, size, cell, how.space, how.colour) for f, i in pairs]
    return torch.from_numpy(np.stack(each))


def same(got, wanted, tolerance=1e-10):
    assert got.shape == wanted.shape
    assert (got.double() - wanted).abs().max() <= tolerance * wanted.abs().max()


@pytest.mark.parametrize("sizes", SIZES, ids=str)
@pytest.mark.parametrize("how", [Guided(1.0, 0.7), Guided(0.5, 0.3), Guided(1.6, 2.0)], ids=str)
def test_equals_the_oracle(sizes, how):
    _, size, _ = sizes
    images = photo(2, 3 * size, 4 * size, seed=size)
    features = tokens(2, 2, 3, 4)
    wanted = expected(features, images, how, *sizes)
    got = smoothed(features, images, how, *sizes)
    assert got.dtype == torch.float64
    same(got, wanted)
    narrow = smoothed(features.float(), images.float(), how, *sizes)
    assert narrow.dtype == torch.float32
    same(narrow, wanted, 1e-5)


@pytest.mark.parametrize("size", [(45, 60), (35, 51), (48, 64), (50, 70), (3, 5)], ids=str)
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_any_image_size_and_number_of_channels(size, channels):
    """3 x 4 tokens of 16 pixels: partial patches may be completed, or dropped."""
    images = photo(2, *size, channels)
    features = tokens(2, 3, 3, 4)
    for cell in (16, 8):
        case = (Guided(1.0, 0.5), 16, 16, cell)
        same(smoothed(features, images, *case), expected(features, images, *case))


@pytest.mark.parametrize("shape", [(1, 1), (1, 5), (6, 1), (5, 37), (19, 3)], ids=str)
@pytest.mark.parametrize("space", [0.3, 1.0, 2.5, 40.0])
def test_any_grid_also_one_that_is_smaller_than_the_window(shape, space):
    images = photo(1, 4 * shape[0], 4 * shape[1])
    features = tokens(1, 2, *shape)
    case = (Guided(space, 0.8), 4, 4, 2)
    if space < 40 or shape[0] * shape[1] < 30:
        same(smoothed(features, images, *case), expected(features, images, *case))
    flat = smoothed(torch.ones_like(features), images, *case)
    torch.testing.assert_close(flat, torch.ones_like(flat))


@pytest.mark.parametrize(
    ("stride", "parts", "cell"), [(16, 2, 4), (16, 2, 8), (12, 3, 2), (8, 4, 1), (8, 2, 4)]
)
@pytest.mark.parametrize("how", [Guided(0.75, 0.4), Guided(0.5, 0.3), Guided(0.2, 1.0)], ids=str)
@pytest.mark.parametrize("shape", [(2, 9), (3, 4)], ids=str)
def test_parts_of_cells_are_as_good_as_cells_with_the_same_features(
    stride, parts, cell, how, shape
):
    images = photo(2, shape[0] * stride - 3, shape[1] * stride)
    features = tokens(2, 2, *shape)
    repeated = features.repeat_interleave(parts, 2).repeat_interleave(parts, 3)
    got = smooth(features, Guide(images), how, stride, stride, cell, parts)
    same(got, smoothed(repeated, images, how, stride, stride // parts, cell))


def by_distance(features, space, stride, size, cell):
    """By a colourless image, in the oracle."""
    images = torch.zeros(len(features), 1, 1, 1)
    return expected(features, images, Guided(space, 1.0), stride, size, cell)


@pytest.mark.parametrize("sizes", [(16, 16, 16), (16, 8, 4)], ids=str)
def test_without_colour_distance_decides(sizes):
    features = tokens(2, 2, 3, 4)
    size = sizes[1]
    images = photo(2, 3 * size, 4 * size)
    wanted = by_distance(features, 0.9, *sizes)
    same(smoothed(features, images, Guided(0.9, math.inf), *sizes), wanted)
    for colour in (0.0, 0.1, 255.0, -7e4):
        for dtype in (torch.float64, torch.float32, torch.bfloat16):
            one = torch.full_like(images, colour, dtype=dtype)
            narrow = features.to(torch.float64 if dtype == torch.float64 else torch.float32)
            same(smoothed(narrow, one, Guided(0.9, 0.01), *sizes), wanted, 1e-5)
    assert not torch.allclose(smoothed(features, images, Guided(0.9, 0.7), *sizes), wanted)


@pytest.mark.parametrize("cell", [16, 8, 4, 1])
def test_constant_features_stay_constant(cell):
    images = photo(2, 45, 64)
    got = smoothed(torch.full((2, 3, 3, 4), 7.0), images, Guided(1.0, 0.2), 16, 16, cell)
    torch.testing.assert_close(got, torch.full_like(got, 7.0), rtol=1e-6, atol=0)


def test_an_edge_is_not_smoothed_across():
    """Two halves of two colours that do not end at a token, and features that tell them apart."""
    images = torch.zeros(1, 3, 32, 64)
    images[..., 28:] = torch.tensor([0.9, 0.2, 0.4])[:, None, None]
    features = torch.tensor([0.0, 0.0, 1.0, 1.0]).expand(1, 1, 2, 4)
    got = smoothed(features, images, Guided(1.0, 0.3), 16, 16, 4)[0, 0]
    assert got[:, :7].max() < 0.01 and got[:, 7:].min() > 0.99
    blind = smoothed(features, images, Guided(1.0, math.inf), 16, 16, 4)[0, 0]
    assert blind[:, 6].min() > 0.2 and blind[:, 9].max() < 0.8


def rotation(channels):
    return torch.linalg.qr(tokens(channels, channels, seed=5))[0]


def test_what_the_weights_do_not_depend_on():
    """Exact up to rounding: a common factor, an offset per channel, any orthogonal mix (BGR for
    RGB among them)."""
    images = photo(2, 40, 50)
    features = tokens(2, 2, 5, 6)
    case = (Guided(1.0, 0.5), 8, 8, 4)
    wanted = smoothed(features, images, *case)
    offset = torch.tensor([3.0, -70.0, 0.4])[:, None, None]
    turned = torch.einsum("dc,bchw->bdhw", rotation(3), images)
    for other in (images * 0.013, -255 * images, images + offset, images.flip(1), turned):
        same(smoothed(features, other, *case), wanted, 1e-8)
    # Each image is whitened by itself.
    both = smoothed(features, torch.stack([images[0], images[1] * 9 + 4]), *case)
    same(both, wanted, 1e-8)


@pytest.mark.parametrize("scale", [(58.4, 57.1, 57.4), (1.0, 1.3, 0.8)], ids=str)
def test_a_factor_per_channel_changes_little(scale):
    """Where factors are different, only the share of the mean variance that is added tells them
    apart: those of a common normalisation by less than a hundredth of the features."""
    images = photo(1, 40, 50, seed=2)
    features = tokens(1, 2, 5, 6)
    case = (Guided(1.0, 0.5), 8, 8, 4)
    wanted = smoothed(features, images, *case)
    other = images / torch.tensor(scale, dtype=images.dtype)[:, None, None]
    got = smoothed(features, other, *case)
    assert 0 < (got - wanted).abs().max() < 0.1 * wanted.abs().max()
    assert (got - wanted).square().mean().sqrt() < 0.02 * wanted.square().mean().sqrt()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_half_precision_images_are_taken_as_they_are(dtype):
    images = (photo(1, 48, 64) / 50).to(dtype)
    features = tokens(1, 3, 3, 4, dtype=torch.float32)
    case = (Guided(1.0, 0.5), 16, 16, 4)
    same(smoothed(features, images, *case), expected(features, images.double(), *case), 1e-5)


def test_nothing_is_rounded_by_autocast_or_by_what_torch_allows():
    images, features = photo(1, 48, 64, dtype=torch.float32), tokens(1, 5, 3, 4).float()
    case = (Guided(1.0, 0.5), 16, 16, 4)
    wanted = expected(features, images, *case)
    before = torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision("medium")
        with torch.autocast("cpu", dtype=torch.bfloat16):
            got = smoothed(features, images, *case)
    finally:
        torch.set_float32_matmul_precision(before)
    assert got.dtype == torch.float32
    same(got, wanted, 1e-5)


@pytest.mark.parametrize("sizes", [(8, 8, 8), (8, 8, 4), (8, 4, 4)], ids=str)
def test_gradients_go_through_features_and_not_through_the_image(sizes):
    size = sizes[1]
    images = photo(2, 3 * size, 4 * size).requires_grad_()
    features = tokens(2, 2, 3, 4).requires_grad_()
    assert torch.autograd.gradcheck(
        lambda f: smoothed(f, images, Guided(0.9, 0.5), *sizes), (features,)
    )
    smoothed(features, images, Guided(0.9, 0.5), *sizes).sum().backward()
    assert images.grad is None
    # Weights sum to one over tokens, and each output cell gives them out once.
    assert features.grad.sum() == pytest.approx(2 * 2 * 3 * 4 * (size // sizes[2]) ** 2)


def test_the_result_with_gradients_is_that_without():
    images, features = photo(2, 48, 64), tokens(2, 2, 6, 8)
    case = (Guided(1.0, 0.5), 8, 8, 4)
    assert torch.equal(
        smoothed(features.clone().requires_grad_(), images, *case).detach(),
        smoothed(features, images, *case),
    )


@pytest.mark.parametrize("broken", [math.nan, math.inf])
def test_pixels_that_are_not_finite_stay_where_they_are(broken):
    images = photo(1, 32, 40)
    features = tokens(1, 2, 8, 10)
    case = (Guided(0.6, 0.7), 4, 4, 2)
    wanted = expected(features, images, *case)
    images[0, 1, 13, 22] = broken  # token (3, 5), output cell (6, 11)
    got = smoothed(features, images, *case)
    same(got, expected(features, images, *case))
    away = torch.ones(16, 20, dtype=torch.bool)
    away[2:12, 6:16] = False  # all whose window holds the token
    # Elsewhere one pixel less counts in the spread of colours, and nothing more.
    torch.testing.assert_close(got[..., away], wanted[..., away], rtol=0, atol=2e-3)
    assert not torch.allclose(got[..., 6, 11], wanted[..., 6, 11], atol=1e-2)


def test_an_image_without_finite_pixels_is_of_one_colour():
    images, features = torch.full((1, 3, 24, 32), math.nan), tokens(1, 2, 3, 4)
    case = (Guided(1.0, 0.7), 8, 8, 4)
    same(smoothed(features, images, *case), by_distance(features, 1.0, 8, 8, 4), 1e-6)


def test_a_token_that_is_not_finite_leaves_other_images_alone():
    images, features = photo(2, 48, 64), tokens(2, 2, 6, 8)
    features[0, 0, 3, 4] = math.nan
    got = smoothed(features, images, Guided(1.0, 0.7), 8, 8, 4)
    assert got[1].isfinite().all() and got[0, 1].isfinite().all()
    assert not got[0, 0, 6:8, 8:10].isfinite().any()


def test_extreme_colour_gives_no_nan():
    images, features = photo(1, 48, 64, dtype=torch.float32), tokens(1, 2, 6, 8).float()
    for colour in (1e-12, 1e-3, 1e9):
        got = smoothed(features, images, Guided(1.0, colour), 8, 8, 4)
        assert got.isfinite().all()
        assert got.abs().max() <= features.abs().max() * (1 + 1e-6)


@pytest.mark.parametrize(("space", "cell"), [(1.0, 4), (4.0, 16)])
def test_peak_memory_is_that_of_the_output_and_a_band(space, cell):
    """Windows of all tokens would take 25 and 289 times the features."""

    def peak(tall):
        images = torch.rand(1, 3, tall * 16, 24 * 16)
        features = torch.rand(1, 64, tall, 24)
        smoothed(features, images, Guided(space), 16, 16, cell)
        with LiveBytes() as counted, torch.no_grad():
            out = smoothed(features, images, Guided(space), 16, 16, cell)
        known = images.nbytes + features.nbytes + out.nbytes
        return counted.peak, known

    (few, known), (many, more) = peak(24), peak(96)
    assert few > known / 2  # the count sees what is there
    assert many - few < 3 * (more - known)


@pytest.mark.parametrize(
    ("text", "how"),
    [
        ("guided", Guided()),
        ("guided:1.5", Guided(1.5)),
        ("guided:0.75:0.4", Guided(0.75, 0.4)),
        ("guided:1:inf", Guided(1.0, math.inf)),
        ("guided: 2 :1e1", Guided(2.0, 10.0)),
    ],
)
def test_strengths(text, how):
    assert Guided.parse(text) == how


@pytest.mark.parametrize(
    "text",
    [
        "gided",
        "",
        "3",
        "Guided",
        "guided:",
        "guided:0",
        "guided:-1",
        "guided:a",
        "guided:inf",
        "guided:nan",
        "guided:1:0",
        "guided:1:nan",
        "guided:1:2:3",
        "guided,1",
    ],
)
def test_bad_strengths_are_refused(text):
    with pytest.raises(ConfigError, match="Expected smooth .*guided:0.75:0.4") as error:
        Guided.parse(text)
    assert repr(text) in str(error.value)


@pytest.mark.parametrize(
    ("space", "stride", "cell", "size"),
    [
        (1.0, 16, 16, 16),
        (0.5, 16, 16, 16),
        (1.0, 16, 4, 16),
        (0.9, 16, 4, 8),
        (0.9, 16, 8, 8),
        (0.9, 16, 1, 8),
        (0.9, 14, 7, 7),
        (0.9, 14, 2, 14),
        (0.9, 7, 1, 7),
        (0.9, 1, 1, 1),
    ],
)
def test_narrow_filters_smooth_half_tokens_into_finer_cells(space, stride, cell, size):
    assert Guided(space).input_cell(stride, cell) == size
