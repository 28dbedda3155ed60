"""Strips of a grid whose output cells share a window: local weighted sums as matrix products."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn import functional as F

from .product import band_size

# Output cells per row of a strip. Narrow ones multiply less, wide ones write longer runs; where
# much is done at once, fewer strips are fewer kernels.
_CELLS_CPU, _CELLS = 24, 96
# Numbers to work on at a time on a CPU: tables and products of a chunk stay in cache.
_CHUNK_CPU = 1 << 19


class Strips:
    """An ``(h, w)`` grid of input cells, cut into strips of a few columns.

    All output cells of a strip in one row of input cells are one matrix product: their common
    window, ``K`` input cells in ``ky`` rows of a few more than the strip has columns, times weights
    that vanish where an input cell is out of an output cell's reach. More numbers are multiplied
    than with a window for each input cell, but hardly any are moved.

    Args:
        shape: ``(h, w)``.
        u: output cells per input cell and axis.
        reach: input cells that a window goes on beyond an output cell's own.

    Attributes:
        count: strips per image.
        width: input cells per row of a strip; some of the last strip's may lie outside the grid.
        reach: along y and x, no more than there are input cells.
    """

    def __init__(self, shape: tuple[int, int], u: int, reach: int, device: torch.device) -> None:
        self.shape, self.u, self.device = shape, u, device
        self.reach = (min(reach, shape[0] - 1), min(reach, shape[1] - 1))
        cells = _CELLS_CPU if device.type == "cpu" else _CELLS
        self.count = max(1, shape[1] * u // cells)
        self.width = -(-shape[1] // self.count)

    def windows(self, grid: Tensor, beyond: float = 0) -> Tensor:
        """``(B, c, h, w)`` to the windows ``(B * count, h, c, K)``, with ``beyond`` outside of the
        grid. Those of neighbouring rows share memory.
        """
        (ry, rx), surplus = self.reach, self.count * self.width - self.shape[1]
        across = self.width + 2 * rx
        padded = F.pad(grid, (rx, rx + surplus, ry, ry), value=beyond)
        strips = padded.unfold(3, across, self.width).permute(0, 3, 1, 2, 4).flatten(0, 1)
        return strips.flatten(2).unfold(2, (2 * ry + 1) * across, across).transpose(1, 2)

    def cells(self, grid: Tensor) -> Tensor:
        """``(B, c, h * u, w * u)`` to the output cells ``(B * count, h, c, M)`` of each window."""
        surplus = self.count * self.width - self.shape[1]
        padded = F.pad(grid, (0, surplus * self.u))
        each = padded.unflatten(3, (self.count, -1)).unflatten(2, (-1, self.u))
        return each.permute(0, 4, 2, 1, 3, 5).flatten(4).flatten(0, 1)

    def place(self, values: Tensor, out: Tensor, strips: slice, rows: slice) -> None:
        """Write ``(s, r, c, M)`` values of some strips and rows into ``(B, c, h, u, w * u)``."""
        step = self.width * self.u
        for strip, each in enumerate(values.unflatten(3, (self.u, step)), strips.start):
            image, place = divmod(strip, self.count)
            into = out[image, :, rows, :, place * step : (place + 1) * step]
            into.copy_(each.transpose(0, 1)[..., : into.shape[-1]])

    def distances(self, size: int, cell: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Squared distance in pixels between the centres of input cells of ``size`` pixels and
        output cells of ``cell`` pixels, ``(K, M)``, and whether they are within reach.
        """
        (dy, near_y), (dx, near_x) = (
            self._along(reach, cells, size, cell, dtype)
            for reach, cells in zip(self.reach, (1, self.width))
        )
        square = dy[:, None, :, None] + dx[None, :, None]
        near = near_y[:, None, :, None] & near_x[None, :, None]
        return square.flatten(2).flatten(0, 1), near.flatten(2).flatten(0, 1)

    def _along(
        self, reach: int, cells: int, size: int, cell: int, dtype: torch.dtype
    ) -> tuple[Tensor, Tensor]:
        """The same along one axis, ``(cells + 2 * reach, cells * u)``."""
        inputs = torch.arange(-reach, cells + reach, device=self.device)[:, None]
        outputs = torch.arange(cells * self.u, device=self.device)
        steps = inputs - torch.div(outputs, self.u, rounding_mode="floor")
        apart = (inputs + 0.5) * size - (outputs + 0.5) * cell
        return apart.to(dtype).square(), steps.abs() <= reach

    def chunks(self, batch: int, channels: int) -> Iterator[tuple[slice, slice]]:
        """Which strips and rows to work on at a time."""
        (ry, rx), (height, _) = self.reach, self.shape
        window = (2 * ry + 1) * (self.width + 2 * rx)
        row = self.width * self.u * self.u * max(window, channels)
        most = _CHUNK_CPU if self.device.type == "cpu" else band_size(self.device)
        rows = max(1, min(height, most // row))
        # On a CPU one strip at a time, whose windows then need not be copied.
        step = 1 if self.device.type == "cpu" else max(1, most // (row * rows))
        for start in range(0, batch * self.count, step):
            for top in range(0, height, rows):
                yield slice(start, start + step), slice(top, top + rows)
