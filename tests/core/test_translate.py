"""Views of an image against pixel-by-pixel translation."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from srt_plugins.core.chunks import run_views
from srt_plugins.core.translate import Canvas, pad
from srt_plugins.core.views import explicit
from srt_plugins.errors import ConfigError
from tests import reference

SHIFTS = [(0, 0), (3, -2), (-4, 4), (1, 0), (0, -5)]


@pytest.mark.parametrize("padding", ["replicate", "reflect", "zeros"])
@pytest.mark.parametrize("size", [(7, 9), (16, 16), (3, 2), (1, 1)])
@pytest.mark.parametrize("grow", [(0, 0), (5, 7)])
@pytest.mark.parametrize("once", [True, False])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float16])
def test_views_equal_the_oracle(padding, size, grow, once, dtype):
    """Also for translations wider than the image, and for completed canvases."""
    images = torch.randn(2, 3, *size).to(dtype)
    target = (size[0] + grow[0], size[1] + grow[1])
    got = Canvas(images, SHIFTS, target, padding, once).views(SHIFTS)
    assert got.dtype == dtype
    assert got.shape == (len(SHIFTS) * 2, 3, *target)
    for i, (dy, dx) in enumerate(SHIFTS):
        for b in range(2):
            expected = reference.translate(images[b].double().numpy(), dy, dx, padding, target)
            np.testing.assert_array_equal(got[2 * i + b].numpy(), expected)


@pytest.mark.parametrize("once", [True, False])
@pytest.mark.parametrize("views", [[(0, 0)], [(2, -1)], SHIFTS])
def test_views_are_copies(once, views):
    """A backbone may work in place on its input."""
    images = torch.randn(1, 3, 8, 8)
    kept = images.clone()
    canvas = Canvas(images, SHIFTS, None, "replicate", once)
    first = canvas.views(views).clone()
    canvas.views(views).zero_()
    torch.testing.assert_close(images, kept)
    torch.testing.assert_close(canvas.views(views), first)


@pytest.mark.parametrize("padding", ["replicate", "reflect", "zeros"])
def test_gradients_of_views_are_those_of_their_pixels(padding):
    images = torch.randn(1, 1, 5, 6, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(
        lambda x: Canvas(x, SHIFTS, None, padding).views(SHIFTS), images
    )


def test_a_positive_view_moves_content_down_and_right():
    image = torch.zeros(1, 1, 6, 6)
    image[..., 2, 2] = 1
    view = Canvas(image, [(1, 3)]).views([(1, 3)])
    assert view[0, 0].nonzero().tolist() == [[3, 5]]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.uint8, torch.float64])
def test_every_dtype_is_padded(dtype):
    images = torch.arange(12).reshape(1, 1, 3, 4).to(dtype)
    for mode in ("replicate", "reflect", "zeros"):
        assert pad(images, 1, 2, 3, 4, mode).dtype == dtype
        assert pad(images, 1, 2, 3, 4, mode).shape == (1, 1, 6, 11)


def test_zero_padding_does_not_leak_broken_pixels():
    images = torch.full((1, 1, 2, 2), float("nan"))
    padded = pad(images, 1, 1, 1, 1, "zeros")
    assert padded.isnan().sum() == 4


def test_negative_padding_cuts_off():
    images = torch.randn(1, 1, 5, 6)
    torch.testing.assert_close(pad(images, -1, -2, -3, 0), images[..., 1:3, 3:])
    wider = torch.cat([images[..., 2:, :1], images[..., 2:, :]], -1)
    torch.testing.assert_close(pad(images, -2, 0, 1, 0), wider)
    torch.testing.assert_close(pad(images.half(), -2, 0, 1, 0), wider.half())


def test_unknown_padding_lists_the_choices():
    with pytest.raises(ConfigError, match="replicate, reflect, zeros"):
        Canvas(torch.zeros(1, 1, 2, 2), [(0, 0)], None, "mirror")


@pytest.mark.parametrize("view_batch", [1, 2, 4, 100])
def test_chunks_cover_every_view_once_and_in_order(view_batch):
    images = torch.randn(2, 3, 8, 8)
    views = explicit(SHIFTS)
    whole = Canvas(images, SHIFTS).views(SHIFTS)
    chunks = list(run_views(lambda chunk, _: chunk, images, views, view_batch=view_batch))
    assert max(len(c) for c, _ in chunks) <= 2 * view_batch
    torch.testing.assert_close(torch.cat([c for c, _ in chunks]), whole)
    assert [i for _, s in chunks for i in range(s.start, s.stop)] == list(range(len(views)))
