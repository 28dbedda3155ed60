"""Mean and covariance of tokens as they come, and a sample of them, in bounded memory."""

from __future__ import annotations

import torch
from torch import Tensor

from ..core.statistics import accumulation_dtype

# Elements of tokens in float64 at a time.
_BAND = 1 << 21
# Bytes, and number, of tokens that a sample keeps.
_KEPT_BYTES, _KEPT = 1 << 28, 1 << 20
# Variance below this share of the mean square is rounding: features have float32's precision.
_NOTHING = 1e-12


class Moments:
    """Count, mean and summed outer products about the mean, float64 on the CPU.

    Runs of tokens are merged with the parallel update of Chan et al. (1979), which stays accurate
    where sums of squares would cancel.

    Attributes:
        mean: ``(D,)``.
        outer: ``(D, D)``.
    """

    def __init__(self) -> None:
        self.count = 0
        self.channels: int | None = None
        self.mean = torch.zeros(0, dtype=torch.float64)
        self.outer = torch.zeros(0, 0, dtype=torch.float64)

    def add(self, tokens: Tensor) -> None:
        """Add ``(n, D)`` tokens of any dtype."""
        if self.channels is None:
            self.channels = tokens.shape[1]
            self.mean = torch.zeros(self.channels, dtype=torch.float64)
            self.outer = torch.zeros(self.channels, self.channels, dtype=torch.float64)
        for band in tokens.split(max(1, _BAND // max(1, self.channels))):
            if len(band):
                self._merge(band.cpu().to(torch.float64))  # some devices have no float64

    def _merge(self, band: Tensor) -> None:
        mean = band.mean(0)
        centred = band - mean
        self.outer.addmm_(centred.T, centred)
        delta = mean - self.mean
        total = self.count + len(band)
        self.outer.addr_(delta, delta, alpha=self.count * len(band) / total)
        self.mean += delta * (len(band) / total)
        self.count = total


class Sample:
    """Some tokens of many grids: all of them while they fit, else a uniform random choice, the same
    in every run.
    """

    def __init__(self) -> None:
        self._random = torch.Generator().manual_seed(0)
        self._tokens: list[Tensor] = []
        self._border: list[Tensor] = []
        self._keys: list[Tensor] = []

    def add(self, grid: Tensor) -> None:
        """Add the tokens of ``(D, h, w)``."""
        channels, h, w = grid.shape
        keys = torch.rand(h * w, generator=self._random, dtype=torch.float64)
        border = torch.ones(h, w, dtype=torch.bool)
        border[1:-1, 1:-1] = False
        dtype = accumulation_dtype(grid.dtype)
        # A copy, which does not keep the caller's tensor alive.
        flat = grid.detach().flatten(1).T
        tokens = torch.empty(flat.shape, dtype=dtype).copy_(flat)
        self._tokens.append(tokens)
        self._border.append(border.flatten())
        self._keys.append(keys)
        most = max(1, min(_KEPT, _KEPT_BYTES // max(1, channels * dtype.itemsize)))
        if sum(map(len, self._keys)) > most:
            self._thin(most)

    def _thin(self, most: int) -> None:
        """Keep the tokens of the ``most`` least keys, in their order."""
        bound = torch.cat(self._keys).kthvalue(most).values
        for i, keys in enumerate(self._keys):
            kept = keys <= bound
            for every in (self._tokens, self._border, self._keys):
                every[i] = every[i][kept]

    def tokens(self) -> Tensor:
        """``(n, D)`` float32, float64 where grids were; the sample is emptied of them."""
        found, self._tokens = torch.cat(self._tokens), []
        return found

    def border(self) -> Tensor:
        """``(n,)`` bool, whether each token lay at the border of its grid."""
        return torch.cat(self._border)


def leading(moments: Moments, count: int) -> Tensor:
    """``(count, D)`` float64 orthonormal directions of the largest variances, in that order; zero
    where there is no variance left.
    """
    values, vectors = torch.linalg.eigh(moments.outer)
    found = vectors.new_zeros(count, len(values))
    size = float(moments.outer.trace() + moments.count * moments.mean.square().sum())
    for row, column in zip(range(count), reversed(range(len(values)))):
        if float(values[column]) > _NOTHING * size:
            found[row] = vectors[:, column]
    return found


def otsu(values: Tensor) -> float:
    """The threshold that splits ``(n,)`` values into the two parts whose means lie farthest apart,
    weighted with their sizes (Otsu 1979): in the middle of a gap, the largest value where there is
    none.
    """
    ordered = values.sort().values
    n = len(ordered)
    if n < 2 or bool(ordered[0] == ordered[-1]):
        return float(ordered[-1])
    ordered = ordered - ordered.mean()
    below = ordered.cumsum(0)[:-1]
    size = torch.arange(1, n, dtype=values.dtype, device=values.device)
    between = below.square() / (size * (n - size))
    between[ordered[1:] == ordered[:-1]] = -1
    i = int(between.argmax())
    exact = values.sort().values
    return float((exact[i] + exact[i + 1]) / 2)


def projected(tokens: Tensor, mean: Tensor, rows: Tensor) -> Tensor:
    """``(n, K)`` float64, in bands: all tokens in float64 would take twice their memory."""
    bands = tokens.split(max(1, _BAND // max(1, tokens.shape[1])))
    return torch.cat([(band.to(torch.float64) - mean) @ rows.T for band in bands])


def is_background(above: Tensor, border: Tensor) -> bool:
    """Whether the tokens ``above`` are the more frequent kind at the border, not inside."""
    if bool(border.any()) and not bool(border.all()):
        at_border, inside = (float(above[at].double().mean()) for at in (border, ~border))
        if at_border != inside:
            return at_border > inside
    return float(above.double().mean()) > 0.5
