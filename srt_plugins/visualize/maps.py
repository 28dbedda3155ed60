"""Features over images, in cells of any size."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

Size = tuple[int, int]


@dataclass(frozen=True, eq=False)
class Map:
    """Features over images. Cell (i, j) covers the pixels from ``(i * sy, j * sx)`` on; there are
    as many cells as begin inside the images, of which the last may reach beyond.

    Attributes:
        values: ``(B, K, h, w)`` float32 on the CPU.
        stride: pixels per cell, (sy, sx).
        dispersion: how much views disagree, ``(B, 1, h', w')`` per token: the root mean square over
            all channels of the standard deviation over views; None where it was not asked for.
        size: ``(H, W)`` of the images.
        token_stride: pixels per token, (y, x), also those of ``dispersion``.
        foreground: ``(B, h, w)`` bool where the basis tells it, else None.
        views_used: how many views each image has; 1 for plain features.
    """

    values: Tensor
    stride: Size
    dispersion: Tensor | None
    size: Size
    token_stride: Size
    foreground: Tensor | None = None
    views_used: tuple[int, ...] = ()

    def at_pixels(self) -> Map:
        """The same with a cell for every pixel, exactly as large as the images."""
        front, spread = self.foreground, self.dispersion
        return replace(
            self,
            values=_repeated(self.values, self.stride, self.size),
            stride=(1, 1),
            dispersion=None if spread is None else _repeated(spread, self.token_stride, self.size),
            token_stride=(1, 1),
            foreground=None if front is None else _repeated(front, self.stride, self.size),
        )


def size_of(images: Tensor) -> Size:
    """``(H, W)`` of images."""
    return (int(images.shape[-2]), int(images.shape[-1]))


def cells_of(size: Size, stride: Size) -> Size:
    """How many cells of a size begin inside images of ``size``."""
    return (-(-size[0] // stride[0]), -(-size[1] // stride[1]))


def joined(maps: Sequence[Map]) -> Map:
    """Maps of images of one size as one."""
    if len(maps) == 1:
        return maps[0]
    return replace(
        maps[0],
        values=torch.cat([m.values for m in maps]),
        dispersion=_every([m.dispersion for m in maps]),
        foreground=_every([m.foreground for m in maps]),
        views_used=tuple(n for m in maps for n in m.views_used),
    )


def _every(parts: Sequence[Tensor | None]) -> Tensor | None:
    found = [part for part in parts if part is not None]
    return torch.cat(found) if found else None


def _repeated(cells: Tensor, stride: Size, size: Size) -> Tensor:
    """Each cell at all its pixels, as far as the images go."""
    if stride == (1, 1):
        return cells
    rows, columns = (
        torch.arange(pixels).div(step, rounding_mode="floor") for pixels, step in zip(size, stride)
    )
    return cells.index_select(-1, columns).index_select(-2, rows)
