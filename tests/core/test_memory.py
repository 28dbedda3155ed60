"""Peak memory of the engine: views are not kept."""

from __future__ import annotations

import weakref

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from srt_plugins.core.accumulator import Aggregation, Grid
from srt_plugins.core.ensemble import ensemble
from srt_plugins.core.views import grid


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
