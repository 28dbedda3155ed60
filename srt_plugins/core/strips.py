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

    def windows(self, grid: Tensor, beyond: float = 0, parts: int = 1) -> Tensor:
        """``(B, c, h * parts, w * parts)`` to the windows ``(B * count, h, c, K * parts ** 2)``,
        with ``beyond`` outside of the grid. Those of neighbouring rows share memory.
        """
        ry, rx = (reach * parts for reach in self.reach)
        width = self.width * parts
        surplus = self.count * width - self.shape[1] * parts
        across = width + 2 * rx
        padded = F.pad(grid, (rx, rx + surplus, ry, ry), value=beyond)
        strips = padded.unfold(3, across, width).permute(0, 3, 1, 2, 4).flatten(0, 1)
        runs = strips.flatten(2).unfold(2, (2 * ry + parts) * across, parts * across)
        return runs.transpose(1, 2)

    def merged(self, table: Tensor, parts: int) -> Tensor:
        """Add up weights ``(s, r, K * parts ** 2, M)`` of the parts of each input cell."""
        if parts == 1:
            return table
        rows, across = (n + 2 * reach for n, reach in zip((1, self.width), self.reach))
        each = table.unflatten(2, (rows, parts, across, parts))
        return each.sum((3, 5)).flatten(2, 3)

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

    def distances(
        self, cell: int, part: int, reach: int, dtype: torch.dtype
    ) -> tuple[Tensor, Tensor]:
        """Distance in pixels between the centres of the parts of input cells, of ``part`` pixels
        each, and output cells of ``cell`` pixels, ``(K * parts ** 2, M)``; and whether they are
        within ``reach`` parts of each other.
        """
        (dy, near_y), (dx, near_x) = (
            self._along(own, cells, cell, part, reach, dtype)
            for own, cells in zip(self.reach, (1, self.width))
        )
        square = dy[:, None, :, None] + dx[None, :, None]
        near = near_y[:, None, :, None] & near_x[None, :, None]
        return square.sqrt().flatten(2).flatten(0, 1), near.flatten(2).flatten(0, 1)

    def _along(
        self, own: int, cells: int, cell: int, part: int, reach: int, dtype: torch.dtype
    ) -> tuple[Tensor, Tensor]:
        """Squares of the same along one axis of ``cells`` input cells and ``own`` before and after
        them.
        """
        parts = self.u * cell // part
        inputs = torch.arange(-own * parts, (cells + own) * parts, device=self.device)
        outputs = torch.arange(cells * self.u, device=self.device)
        steps = inputs[:, None] - torch.div(outputs * cell, part, rounding_mode="floor")
        apart = (inputs.to(dtype)[:, None] + 0.5) * part - (outputs.to(dtype) + 0.5) * cell
        return apart.square(), steps.abs() <= reach

    def chunks(self, batch: int, channels: int, parts: int = 1) -> Iterator[tuple[slice, slice]]:
        """Which strips and rows to work on at a time."""
        (ry, rx), (height, _) = self.reach, self.shape
        window = (2 * ry + 1) * (self.width + 2 * rx) * parts**2
        row = self.width * self.u * self.u * max(window, channels)
        most = _CHUNK_CPU if self.device.type == "cpu" else band_size(self.device)
        rows = max(1, min(height, most // row))
        # On a CPU one strip at a time, whose windows then need not be copied.
        step = 1 if self.device.type == "cpu" else max(1, most // (row * rows))
        for start in range(0, batch * self.count, step):
            for top in range(0, height, rows):
                yield slice(start, start + step), slice(top, top + rows)
