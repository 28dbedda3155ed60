"""Smoothing kernels, coverage and the errors of the alignment."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from srt_plugins.core.accumulator import Aggregation, Grid, Vector
from srt_plugins.core.cells import output_cell
from srt_plugins.core.ensemble import ensemble
from srt_plugins.core.resample import alignment, smoothing_kernel
from srt_plugins.core.views import explicit, grid
from srt_plugins.errors import ConfigError
from tests import reference


@pytest.mark.parametrize(
    ("smooth", "taps"),
    [
        (None, None),
        (1, None),
        ([5], None),
        (3, (0.25, 0.5, 0.25)),
        (5, (1 / 16, 4 / 16, 6 / 16, 4 / 16, 1 / 16)),
        ([1, 1, 2], (0.25, 0.25, 0.5)),
    ],
)
def test_kernels(smooth, taps):
    assert smoothing_kernel(smooth) == taps


@pytest.mark.parametrize(
    "smooth", [0, 2, -3, 2.5, "3", [1, 2], [0, 0, 0], [1, -1, 1], [1, "a", 1], [], True]
)
def test_bad_kernels_are_refused(smooth):
    with pytest.raises(ConfigError, match="smooth"):
        smoothing_kernel(smooth)


@pytest.mark.parametrize("taps", [(0.25, 0.5, 0.25), (0.1, 0.2, 0.4, 0.2, 0.1), (0.7, 0.2, 0.1)])
@pytest.mark.parametrize("size", [(1, 1), (2, 3), (5, 4)])
def test_smoothing_a_single_view_is_a_blur_of_its_tokens(taps, size):
    tokens = torch.randn(1, 2, *size, dtype=torch.float64)
    got = ensemble(
        lambda *_: [Grid(tokens, (16, 16))],
        torch.zeros(1, 3, 16 * size[0], 16 * size[1]),
        explicit([(0, 0)]),
        Aggregation(kernel=taps),
    ).results()[0]
    np.testing.assert_allclose(got[0].numpy(), reference.blur(tokens[0].numpy(), taps), atol=1e-12)


def test_one_sided_views_that_leave_cells_unseen_are_refused():
    with pytest.raises(ConfigError, match="output cells"):
        alignment(explicit([(4, 4)]), (2, 2), (16, 16), (1, 1), (32, 32))
    alignment(explicit([(4, 4)]), (2, 2), (16, 16), (16, 16), (2, 2))


@pytest.mark.parametrize(("stride", "cell"), [(None, 16), (16, 16), (32, 16), (8, 8), (1, 1)])
def test_output_cell(stride, cell):
    assert output_cell(16, stride) == cell


def test_a_stride_that_does_not_divide_the_patch_lists_those_that_do():
    with pytest.raises(ConfigError, match=r"\[1, 2, 7, 14\]"):
        output_cell(14, 4)


def test_cells_with_the_same_sources_are_computed_once():
    """A pixel field of the paper's grid has few distinct rows per token, and expands exactly."""
    made = alignment(grid(3, 16), (4, 6), (16, 16), (1, 1), (64, 96))
    assert made.a_y.shape[1] <= 4 * 8 and made.rows.shape == (64,)
    full = made.a_y.index_select(1, made.rows)
    for v, (dy, _) in enumerate(grid(3, 16).translations):
        for y in range(64):
            token = (y + dy) // 16
            row = full[v, y].tolist()
            assert row == [1.0 if t == token else 0.0 for t in range(4)]


def test_image_level_tokens_are_averaged_with_the_weights():
    values = [1.0, 2.0, 6.0]
    seen = []

    def run(batch):
        start = len(seen)
        seen.extend([None] * (len(batch) // 2))
        rows = [[v, 10 * v] for v in values[start : len(seen)] for _ in range(2)]
        return [Vector(torch.tensor(rows))]

    views = explicit([(0, 0, 1), (1, 0, 1), (0, 1, 2)])
    got = ensemble(
        lambda view, _: run(view), torch.zeros(2, 3, 4, 4), views, Aggregation(), view_batch=2
    )
    torch.testing.assert_close(got.results()[0], torch.tensor([[3.75, 37.5]] * 2))
