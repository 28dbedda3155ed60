"""Statistics over aligned views: streaming mean, streaming mean and dispersion, median.

All arithmetic is in float32 (float64 for float64 features), whatever the features' dtype, autocast
and the precision that torch allows for matrix products. A view counts in an output cell with its
weight times the share of the cell that it shows, so that borders neither darken nor borrow. Every
``add`` takes a run of consecutive views, ``(v * B, C, h, w)`` with all images of a view side by
side, and the slice that says which they are. Alignment is a product with small matrices, so a token
that is not finite spoils its whole channel.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .align import add_views, aligned_views, gather, pick, shown
from .median import Hidden, median
from .product import band_size, bands, in_place, no_autocast
from .resample import Alignment

STATISTICS = ("mean", "median")
# Channels that a run of views should leave room for in one band.
_CHANNELS = 8


def accumulation_dtype(dtype: torch.dtype) -> torch.dtype:
    """float64 for float64 features, else float32."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def _running(name: str, meaning: str) -> property:
    """A running result in which every view that was added counts; None before the first one.

    Views that are added later may change the tensor in place.
    """

    def get(self: _Streaming) -> Any:
        self._flush()
        return getattr(self, name)

    def put(self: _Streaming, value: Any) -> None:
        self._flush()
        setattr(self, name, value)

    return property(get, put, doc=meaning)


class _Streaming:
    """Takes views together where the result is larger than they are, rather than pass over it for
    each of them. Until then they wait as token grids, which together never take more memory.
    """

    def __init__(self, alignment: Alignment) -> None:
        self.alignment = alignment
        self._images = (0, 0)  # B, C
        self._waiting: list[Tensor] = []
        self._views: list[int] = []

    def add(self, features: Tensor, views: slice) -> None:
        """Add the views of a slice: features ``(v * B, C, h, w)``."""
        each = features.unflatten(0, (views.stop - views.start, -1))
        self._images = (each.shape[1], each.shape[2])
        self._views += range(views.start, views.stop)
        full = len(self._views) >= self.alignment.together
        if not full:
            # A copy: a backbone may write its next output to the same place.
            each = each.clone(memory_format=torch.contiguous_format)
        self._waiting.append(each.flatten(1, 2))
        if full:
            self._flush()

    def _flush(self) -> None:
        """Take what waits into the result."""
        if self._views:
            features, views = self._waiting, self._views
            self._waiting, self._views = [], []
            with no_autocast(features[0].device.type):
                self._take(features, views)

    def _take(self, features: list[Tensor], views: list[int]) -> None:
        """Add ``(v, B * C, h, w)`` tensors, one view after the other."""
        raise NotImplementedError

    def _zeros(self, like: Tensor) -> Tensor:
        """``(B * C, R, Q)`` in the accumulation dtype."""
        cells = self.alignment.coverage
        return like.new_zeros((like.shape[1], *cells.shape), dtype=cells.dtype)


class Mean(_Streaming):
    """Weighted mean over views (Lao et al., Eq. 2): one running sum, no stored views."""

    sum = _running("_sum", "Aligned, weighted views added up at the distinct cells, (B, C, R, Q).")

    def __init__(self, alignment: Alignment) -> None:
        super().__init__(alignment)
        self._sum: Tensor | None = None

    def _take(self, features: list[Tensor], views: list[int]) -> None:
        total = self._zeros(features[0]) if self._sum is None else self._sum.flatten(0, 1)
        total = add_views(total, self.alignment, features, views)
        self._sum = total.unflatten(0, self._images)

    def result(self) -> Tensor:
        """``(B, C, h', w')`` in the accumulation dtype."""
        return self.alignment.expand(self.sum, self.alignment.coverage)


class MeanDispersion(_Streaming):
    """Mean and per-channel standard deviation over views (weighted, population form).

    Runs of views are merged with the parallel update of Chan et al. (1979), which stays accurate
    where the sum of squares would cancel.
    """

    mean = _running("_mean", "Mean over views at the distinct cells, (B, C, R, Q).")
    m2 = _running("_m2", "Summed weighted squares about the mean, (B, C, R, Q).")
    weight = _running("_weight", "Summed weight of the views that show each cell, (R, Q).")

    def __init__(self, alignment: Alignment) -> None:
        super().__init__(alignment)
        self._mean: Tensor | None = None
        self._m2: Tensor | None = None
        self._weight: Tensor | None = None

    def _take(self, features: list[Tensor], views: list[int]) -> None:
        a = self.alignment
        if self._mean is None or self._m2 is None or self._weight is None:
            mean, m2 = self._zeros(features[0]), self._zeros(features[0])
            weight = torch.zeros_like(a.coverage)
        else:
            mean, m2, weight = self._mean.flatten(0, 1), self._m2.flatten(0, 1), self._weight
        free = in_place(mean, m2, *features)
        cells, device = a.coverage.numel(), mean.device
        step = max(1, min(len(views), band_size(device) // (cells * _CHANNELS)))
        share = shown(a, views)
        weights = pick(a.weights, views)[:, None, None] * share
        runs = []
        for start in range(0, len(views), step):
            run = slice(start, min(start + step, len(views)))
            runs.append((run, weight))
            weight = weight + weights[run].sum(0)
        for band in bands(len(mean), step * cells, device) if free else [slice(None)]:
            of_band = mean[band], m2[band]
            for run, before in runs:
                found = gather(features, band, range(run.start, run.stop))
                aligned = aligned_views(a, found, views[run], share[run], free)
                of_band = _merged(*of_band, before, weights[run], aligned, free)
            if not free:
                mean, m2 = of_band
        self._mean, self._m2 = (t.unflatten(0, self._images) for t in (mean, m2))
        self._weight = weight

    def result(self) -> Tensor:
        """Mean, ``(B, C, h', w')``."""
        return self.alignment.expand(self.mean)

    def dispersion(self) -> Tensor:
        """Standard deviation over views, ``(B, C, h', w')``."""
        return self.alignment.expand((self.m2 / self.weight).clamp_min(0).sqrt())


def _merged(
    mean: Tensor, m2: Tensor, weight: Tensor, weights: Tensor, aligned: Tensor, free: bool
) -> tuple[Tensor, Tensor]:
    """Mean and m2, ``(c, R, Q)``, with a run of views.

    Args:
        weight: ``(R, Q)``, of the views before.
        weights: ``(v, R, Q)``, of the run's.
        aligned: ``(v, c, R, Q)``.
        free: change mean, m2 and aligned in place.
    """

    def place(tensor: Tensor) -> Tensor | None:
        return tensor if free else None

    tiny = torch.finfo(weights.dtype).tiny
    total = weights.sum(0)
    share = total / (weight + total).clamp_min(tiny)
    if len(aligned) == 1:
        run_mean = aligned[0]
    else:
        run_mean = ((weights / total.clamp_min(tiny))[:, None] * aligned).sum(0)
        spread = torch.sub(aligned, run_mean, out=place(aligned))
        spread = torch.mul(spread, spread, out=place(spread))
        spread = torch.mul(spread, weights[:, None], out=place(spread))
        m2 = torch.add(m2, spread.sum(0), out=place(m2))
    delta = torch.sub(run_mean, mean, out=place(run_mean))
    mean = torch.addcmul(mean, delta, share, out=place(mean))
    delta = torch.mul(delta, delta, out=place(delta))
    return mean, torch.addcmul(m2, delta, weight * share, out=place(m2))


class Median:
    """Median over the views that show a cell, channel by channel; weights are ignored.

    Keeps the views' token grids (small) and aligns them a band of channels at a time. The median of
    an even number of views is the mean of the two in the middle; NaN in a view gives NaN.

    Attributes:
        views: ``(v, B, C, h, w)`` tensors, one view after the other.
    """

    def __init__(self, alignment: Alignment) -> None:
        self.alignment = alignment
        self.views: list[Tensor] = []

    def add(self, features: Tensor, views: slice) -> None:
        """Add the views of a slice: features ``(v * B, C, h, w)``."""
        each = features.unflatten(0, (views.stop - views.start, -1))
        # A copy: a backbone may write its next output to the same place.
        self.views.append(each.clone(memory_format=torch.contiguous_format))

    def result(self) -> Tensor:
        """``(B, C, h', w')`` in the accumulation dtype."""
        a = self.alignment
        images = self.views[0].shape[1:3]
        features = [chunk.flatten(1, 2) for chunk in self.views]
        every = range(sum(map(len, features)))
        runs = bands(features[0].shape[1], len(every) * a.coverage.numel(), features[0].device)

        free = in_place(*features)
        share = shown(a, list(every))
        hidden = Hidden(share <= 0, share.dtype)

        def cells(band: slice) -> Tensor:
            found = gather(features, band, every)
            return median(aligned_views(a, found, list(every), share, free), hidden)

        if not free:
            return a.expand(torch.cat([cells(band) for band in runs])).unflatten(0, images)
        out = a.empty(features[0][0])
        for band in runs:
            a.place(cells(band), out[band])
        return out.unflatten(0, images)
