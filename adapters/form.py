"""How a tensor holds its token grid: the conversion to leaves of the engine, and the way back."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from srt_plugins.core.accumulator import Grid, Leaf, Vector

# Layouts that hold a token grid; "vector" is image-level tokens, "kept" is never averaged.
LAYOUTS = ("NCHW", "NHWC", "NLC")


@dataclass(frozen=True)
class Form:
    """How one tensor holds its token grid.

    Attributes:
        layout: ``"NCHW"``, ``"NHWC"``, ``"NLC"`` (tokens in raster order behind their prefix
            tokens), ``"vector"`` (image-level tokens, averaged but not aligned), or ``"kept"``
            (taken from the centre view as it is).
        stride: pixels per token (y, x); only where there is a grid.
        grid: ``(h, w)`` of the grid in tokens; needed for ``"NLC"``.
        prefix: class and register tokens in front of the grid's (``"NLC"``).
        crop: ``(h, w)`` to keep, the size that the image alone would give; None = all.
    """

    layout: str
    stride: tuple[int, int] = (0, 0)
    grid: tuple[int, int] = (0, 0)
    prefix: int = 0
    crop: tuple[int, int] | None = None

    @property
    def averaged(self) -> bool:
        """Whether views can be aggregated."""
        return self.layout != "kept"

    @property
    def count(self) -> int:
        """How many leaves :meth:`split` gives."""
        return 1 + (self.layout == "NLC" and self.prefix > 0)

    def split(self, tensor: Tensor) -> list[Leaf]:
        """The tensor ``(N, ...)`` as the leaves that the engine aggregates."""
        if self.layout not in LAYOUTS:
            return [Vector(tensor)]
        leaves: list[Leaf] = [Grid(self._maps(tensor), self.stride, self.crop)]
        return [*leaves, Vector(tensor[:, : self.prefix])] if self.prefix else leaves

    def join(self, results: list[Tensor]) -> Tensor:
        """Inverse of :meth:`split` on aggregated tensors, whose grids may have other sizes."""
        if self.layout == "NHWC":
            return results[0].permute(0, 2, 3, 1).contiguous()
        if self.layout != "NLC":
            return results[0]
        tokens = results[0].flatten(2).transpose(1, 2)
        if self.prefix:
            tokens = torch.cat([results[1], tokens], 1)
        return tokens.contiguous()

    def cropped(self, tensor: Tensor) -> Tensor:
        """The tensor in the size that the image alone would give."""
        if self.crop is None or self.layout not in LAYOUTS:
            return tensor
        maps = self._maps(tensor)[..., : self.crop[0], : self.crop[1]]
        return self.join([maps, tensor[:, : self.prefix]])

    def _maps(self, tensor: Tensor) -> Tensor:
        """The grid as ``(N, C, h, w)``."""
        if self.layout == "NHWC":
            return tensor.permute(0, 3, 1, 2)
        if self.layout == "NLC":
            return tensor[:, self.prefix :].transpose(1, 2).unflatten(2, self.grid)
        return tensor
