"""Statistics over aligned views: streaming mean, streaming mean and dispersion, median.

All arithmetic is in float32 (float64 for float64 features), whatever the features' dtype and
autocast. A view counts in an output cell with its weight times the share of the cell that it shows,
so that borders neither darken nor borrow. Every ``add`` takes a run of consecutive views,
``(v * B, C, h, w)`` with all images of a view side by side, and the slice that says which they are.
Alignment is a product with small matrices, so a token that is not finite spoils its whole channel.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .resample import Alignment

STATISTICS = ("mean", "median")
# Aligned views are made for at most this many elements at a time (64 MiB of float32).
_BAND = 1 << 24


class Mean:
    """Weighted mean over views (Lao et al., Eq. 2): one running sum, no stored views."""

    def __init__(self, alignment: Alignment) -> None:
        self.alignment = alignment
        self.sum: Tensor | None = None

    def add(self, features: Tensor, views: slice) -> None:
        """Add the views of a slice: features ``(v * B, C, h, w)``."""
        a = self.alignment
        columns = _align_columns(a, features, views)
        rows = a.a_y[views] * a.weights[views, None, None]
        v, batch_channels, h, q = columns.shape
        # Contract over views and token rows in one product: no aligned view is ever stored.
        stacked = columns.transpose(0, 1).reshape(batch_channels, v * h, q)
        total = rows.transpose(0, 1).reshape(-1, v * h) @ stacked
        total = total.view(-1, features.shape[1], *total.shape[1:])
        self.sum = total if self.sum is None else self.sum + total

    def result(self) -> Tensor:
        """``(B, C, h', w')`` in the accumulation dtype."""
        assert self.sum is not None
        return self.alignment.expand(self.sum / self.alignment.coverage)


class MeanDispersion:
    """Mean and per-channel standard deviation over views (weighted, population form).

    Runs of views are merged with the parallel update of Chan et al. (1979), which stays accurate
    where the sum of squares would cancel.
    """

    def __init__(self, alignment: Alignment) -> None:
        self.alignment = alignment
        self.mean: Tensor | None = None
        self.m2: Tensor | None = None
        self.weight: Tensor | None = None

    def add(self, features: Tensor, views: slice) -> None:
        """Add the views of a slice: features ``(v * B, C, h, w)``."""
        a = self.alignment
        columns = _align_columns(a, features, views)
        step = max(1, _BAND // (columns.shape[1] * a.a_y.shape[1] * a.a_x.shape[1]))
        for start in range(0, columns.shape[0], step):
            run = slice(views.start + start, min(views.start + start + step, views.stop))
            aligned, cover = _align_rows(a, columns[start : start + step], run)
            aligned = aligned.unflatten(1, (-1, features.shape[1]))
            self._merge(a.weights[run, None, None] * cover, aligned)

    def _merge(self, weight: Tensor, aligned: Tensor) -> None:
        """Merge a run: weight ``(v, R, Q)``, aligned ``(v, B, C, R, Q)``."""
        tiny = torch.finfo(weight.dtype).tiny
        total = weight.sum(0)
        mean = ((weight / total.clamp_min(tiny))[:, None, None] * aligned).sum(0)
        m2 = (weight[:, None, None] * (aligned - mean).square()).sum(0)
        if self.mean is None or self.m2 is None or self.weight is None:
            self.mean, self.m2, self.weight = mean, m2, total
            return
        both = self.weight + total
        share = total / both.clamp_min(tiny)
        delta = mean - self.mean
        self.mean = self.mean + delta * share
        self.m2 = self.m2 + m2 + delta.square() * (self.weight * share)
        self.weight = both

    def result(self) -> Tensor:
        """Mean, ``(B, C, h', w')``."""
        assert self.mean is not None
        return self.alignment.expand(self.mean)

    def dispersion(self) -> Tensor:
        """Standard deviation over views, ``(B, C, h', w')``."""
        assert self.m2 is not None and self.weight is not None
        return self.alignment.expand((self.m2 / self.weight).clamp_min(0).sqrt())


class Median:
    """Median over the views that show a cell, channel by channel; weights are ignored.

    Keeps the views' token grids (small) and aligns them a band of channels at a time. The median of
    an even number of views is the mean of the two in the middle; NaN in a view gives NaN.
    """

    def __init__(self, alignment: Alignment) -> None:
        self.alignment = alignment
        self.views: list[Tensor] = []

    def add(self, features: Tensor, views: slice) -> None:
        """Add the views of a slice: features ``(v * B, C, h, w)``."""
        self.views.append(features.unflatten(0, (views.stop - views.start, -1)))

    def result(self) -> Tensor:
        """``(B, C, h', w')`` in the accumulation dtype."""
        a = self.alignment
        every = torch.cat(self.views)
        n, batch, channels = every.shape[:3]
        step = max(1, _BAND // (n * batch * a.a_y.shape[1] * a.a_x.shape[1]))
        bands = [self._band(every[:, :, c : c + step]) for c in range(0, channels, step)]
        return a.expand(torch.cat(bands, 1))

    def _band(self, features: Tensor) -> Tensor:
        """Median of ``(n, B, c, h, w)`` as ``(B, c, R, Q)``."""
        a = self.alignment
        n, batch, channels = features.shape[:3]
        whole = slice(0, n)
        aligned, cover = _align_rows(a, _align_columns(a, features.flatten(0, 1), whole), whole)
        hidden = (cover <= 0)[:, None]
        broken = (aligned.isnan() & ~hidden).any(0)
        ordered = aligned.masked_fill(hidden, float("inf")).sort(0).values
        count = (cover > 0).sum(0)
        middle = [
            ordered.gather(0, k.expand(1, *ordered.shape[1:]))[0]
            for k in (((count - 1) // 2), (count // 2))
        ]
        median = torch.where(broken, float("nan"), (middle[0] + middle[1]) / 2)
        return median.unflatten(0, (batch, channels))


def accumulation_dtype(dtype: torch.dtype) -> torch.dtype:
    """float64 for float64 features, else float32."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def _align_columns(a: Alignment, features: Tensor, views: slice) -> Tensor:
    """``(v * B, C, h, w)`` to ``(v, B * C, h, Q)`` in the accumulation dtype."""
    v = views.stop - views.start
    h, w = features.shape[-2:]
    flat = features.to(a.a_x.dtype).reshape(v, -1, w)
    return torch.bmm(flat, a.a_x[views].mT).view(v, -1, h, a.a_x.shape[1])


def _align_rows(a: Alignment, columns: Tensor, views: slice) -> tuple[Tensor, Tensor]:
    """``(v, B * C, h, Q)`` to aligned cells ``(v, B * C, R, Q)``, each the mean of what the view
    shows of it, and the shown share ``(v, R, Q)``.
    """
    cover = a.cover_y[views, :, None] * a.cover_x[views, None]
    aligned = a.a_y[views, None] @ columns
    return aligned / torch.where(cover > 0, cover, 1)[:, None], cover
