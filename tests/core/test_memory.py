"""Peak memory of the engine: views are not kept, and fine outputs are made in place."""

from __future__ import annotations

import weakref

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from srt_plugins.core import product
from srt_plugins.core.accumulator import Aggregation, Grid
from srt_plugins.core.ensemble import ensemble
from srt_plugins.core.views import best, grid


class LiveBytes(TorchDispatchMode):
    """Counts the bytes of tensor storages that are alive, and their peak."""

    def __init__(self):
        super().__init__()
        self.live = self.peak = 0
        self.known = {}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(out):
            if isinstance(tensor, torch.Tensor):
                storage = tensor.untyped_storage()
                key = storage._cdata
                if key not in self.known:
                    self.live += storage.nbytes()
                    self.known[key] = weakref.ref(storage, self.forget(key, storage.nbytes()))
        self.peak = max(self.peak, self.live)
        return out

    def forget(self, key, size):
        def gone(_):
            del self.known[key]
            self.live -= size

        return gone


def peak(level, how):
    """Peak bytes while views of 4x6 tokens and 1200 channels run one at a time."""
    images = torch.zeros(1, 3, 64, 96)

    def run(view):
        features = torch.nn.functional.avg_pool2d(view, 16).repeat(1, 400, 1, 1)
        return [Grid(features, (16, 16))]

    def whole():
        return ensemble(
            lambda view, _: run(view), images, grid(level, 16), how, view_batch=1
        ).results()

    whole()  # the small matrices are made once and kept
    with LiveBytes() as counted, torch.no_grad():
        whole()
    return counted.peak


@pytest.mark.parametrize("how", [Aggregation(), Aggregation(dispersion=True)])
def test_peak_memory_does_not_grow_with_the_number_of_views(how):
    few, many = peak(1, how), peak(3, how)
    view = 1200 * 4 * 6 * 4
    assert few > 2 * view  # the count sees what is there
    assert many < few + view


def test_the_count_sees_kept_views():
    median = Aggregation("median")
    assert peak(3, median) - peak(1, median) > 30 * 1200 * 4 * 6 * 4


@pytest.mark.parametrize(("how", "grids"), [(Aggregation(), 1), (Aggregation(dispersion=True), 2)])
def test_beyond_a_forward_there_are_the_running_sums_and_what_the_chunk_before_returned(how, grids):
    """The forward takes most, as a ViT's does: its features are a hundredth of its activations."""
    images = torch.zeros(1, 3, 64, 96)
    view = 50 * 4 * 6 * 4

    def run(chunk, _):
        activations = torch.zeros(100 * view // 4)
        return [Grid(activations[: view // 4].clone().view(1, 50, 4, 6), (16, 16))]

    def whole():
        ensemble(run, images, grid(2, 16), how, view_batch=1).results()

    whole()
    with LiveBytes() as plain, torch.no_grad():
        run(images.clone(), None)
    with LiveBytes() as counted, torch.no_grad():
        whole()
    small = 8192  # the alignment's matrices and weights
    assert counted.peak - plain.peak <= images.nbytes + (grids + 1) * view + small


@pytest.mark.parametrize(
    ("how", "outputs"),
    [
        (Aggregation(stride=1), 1),
        (Aggregation("median", stride=1), 1),
        (Aggregation(dispersion=True, stride=1), 2),
    ],
)
@pytest.mark.parametrize("views", [grid(1, 8), grid(2, 8), best(12, 8)])
def test_a_pixel_field_takes_little_more_than_itself(monkeypatch, how, outputs, views):
    """Few distinct cells, many, and almost every pixel; the mean and its dispersion are two."""
    monkeypatch.setattr(product, "_BAND_CPU", 1 << 15)
    images = torch.zeros(1, 3, 64, 96)
    size = 64 * 64 * 96 * 4

    def run(view, _):
        return [Grid(torch.zeros(1, 64, 8, 12), (8, 8))]

    def whole():
        gathered = ensemble(run, images, views, how, view_batch=1)
        return gathered.results() + gathered.dispersions()

    whole()
    with LiveBytes() as counted, torch.no_grad():
        results = whole()
    assert sum(r.nbytes for r in results) == outputs * size
    distinct = size * min(1.0, len({dy for dy, _ in views.translations}) ** 2 / 64)
    kept = len(views) * 64 * 8 * 12 * 4  # token grids that wait
    channel = len(views) * distinct / 64  # aligned views of one, of which the median takes a few
    assert counted.peak <= outputs * (size + 2 * distinct) + kept + 6 * channel + 0.2 * size
