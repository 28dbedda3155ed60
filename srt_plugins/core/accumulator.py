"""What the views' features are gathered in: leaves, how they are aggregated, running results.

Knows no framework and no backbone: an adapter turns whatever the backbone returns into leaves.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Union

import torch
from torch import Tensor

from .cells import output_cell
from .guided import Guided
from .resample import Smooth, alignment, smoothing_kernel
from .statistics import Mean, MeanDispersion, Median, accumulation_dtype
from .views import Views


@dataclass(frozen=True)
class Grid:
    """A token grid: ``tensor`` is ``(N, C, h, w)``, ``stride`` its pixels per token (y, x), and
    ``crop`` the ``(h, w)`` to keep (the unwrapped backbone's size), None for all.
    """

    tensor: Tensor
    stride: tuple[int, int]
    crop: tuple[int, int] | None = None


@dataclass(frozen=True)
class Vector:
    """Image-level tokens (class, register): ``tensor`` is ``(N, ...)``; averaged, not aligned."""

    tensor: Tensor


Leaf = Union[Grid, Vector]


@dataclass(frozen=True)
class Aggregation:
    """What to make of the views.

    Attributes:
        statistic: ``"mean"`` or ``"median"``.
        dispersion: also keep the standard deviation over views (with the mean).
        stride: pixels per output cell; None keeps each grid's own.
        kernel: normalised smoothing taps over tokens, or None.
        guided: smoothing along the image that follows, or None.
    """

    statistic: str = "mean"
    dispersion: bool = False
    stride: int | None = None
    kernel: tuple[float, ...] | None = None
    guided: Guided | None = None

    @classmethod
    def of(
        cls,
        statistic: str = "mean",
        dispersion: bool = False,
        stride: int | None = None,
        smooth: Smooth = None,
    ) -> Aggregation:
        """The same from user-level keywords."""
        if isinstance(smooth, str):
            return cls(statistic, dispersion, stride, guided=Guided.parse(smooth))
        return cls(statistic, dispersion, stride, smoothing_kernel(smooth))

    @property
    def smooths(self) -> bool:
        """True where even a single view is changed."""
        return self.kernel is not None or self.guided is not None

    def cell(self, grid_stride: int) -> int:
        """Pixels per cell that the views of a grid are aggregated in."""
        cell = output_cell(grid_stride, self.stride)
        return cell if self.guided is None else self.guided.input_cell(grid_stride, cell)


class Accumulator:
    """Aggregates the leaves of all views of one batch; created from the first chunk's leaves.

    Attributes:
        views_used: how many views each image has, once all were added.
    """

    def __init__(self, views: Views, how: Aggregation) -> None:
        self.views = views
        self.how = how
        self.views_used: tuple[int, ...] = ()
        self.leaves: list[Mean | MeanDispersion | Median | _VectorMean] = []
        self._device = "cpu"

    def add(self, leaves: Sequence[Leaf], views: slice) -> None:
        """Add a chunk; every call must bring the same leaves, in the same order."""
        self._device = leaves[0].tensor.device.type if leaves else "cpu"
        with _no_autocast(self._device):
            if not self.leaves:
                self.leaves = [self._statistic(leaf) for leaf in leaves]
            mirrored = self.views.mirrored[views]
            for statistic, leaf in zip(self.leaves, leaves):
                statistic.add(_as_seen(leaf, mirrored), views)

    def end(self, count: int) -> None:
        """Take the first ``count`` views, those that were added, for all (with ``dispersion``)."""
        for statistic in self.leaves:
            if isinstance(statistic, _VectorMean):
                statistic.weights = self.views.weights[:count]

    def results(self) -> list[Tensor]:
        """One aggregated tensor per leaf, batch B, in the accumulation dtype."""
        with _no_autocast(self._device):
            return [statistic.result() for statistic in self.leaves]

    def dispersions(self) -> list[Tensor]:
        """Standard deviation over views of each grid leaf, ``(B, C, h', w')``."""
        with _no_autocast(self._device):
            return [s.dispersion() for s in self.leaves if isinstance(s, MeanDispersion)]

    def _statistic(self, leaf: Leaf) -> Mean | MeanDispersion | Median | _VectorMean:
        if isinstance(leaf, Vector):
            return _VectorMean(self.views)
        how = self.how
        cell = tuple(how.cell(s) for s in leaf.stride)
        tokens = (leaf.tensor.shape[-2], leaf.tensor.shape[-1])
        kept = leaf.crop or tokens
        cells = tuple(k * s // c for k, s, c in zip(kept, leaf.stride, cell))
        aligned = alignment(
            self.views,
            tokens,
            leaf.stride,
            (cell[0], cell[1]),
            (cells[0], cells[1]),
            how.kernel,
            dtype=accumulation_dtype(leaf.tensor.dtype),
            device=leaf.tensor.device,
        )
        if how.statistic == "median":
            return Median(aligned)
        return MeanDispersion(aligned) if how.dispersion else Mean(aligned)


def _as_seen(leaf: Leaf, mirrored: Sequence[bool]) -> Tensor:
    """The leaf's tensor with the grids of mirrored views mirrored back."""
    if isinstance(leaf, Vector) or not any(mirrored):
        return leaf.tensor
    each = leaf.tensor.chunk(len(mirrored))
    return torch.cat([view.flip(-1) if m else view for view, m in zip(each, mirrored)])


class _VectorMean:
    """Weighted mean of image-level tokens over views."""

    def __init__(self, views: Views) -> None:
        self.weights = views.weights
        self.sum: Tensor | None = None

    def add(self, tokens: Tensor, views: slice) -> None:
        dtype = accumulation_dtype(tokens.dtype)
        weights = self.weights[views]
        every = tokens.to(dtype).unflatten(0, (len(weights), -1))
        # One by one: a matrix product may be rounded, and a device waits for weights to be copied.
        total = torch.stack([view * weight for view, weight in zip(every.unbind(), weights)]).sum(0)
        self.sum = total if self.sum is None else self.sum + total

    def result(self) -> Tensor:
        assert self.sum is not None
        return self.sum / sum(self.weights)


def _no_autocast(device: str) -> AbstractContextManager[Any]:
    """Autocast would run the alignment in half precision; the meta device has none."""
    return nullcontext() if device == "meta" else torch.autocast(device, enabled=False)
