"""Alignment and accumulation alone, on stored features."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..core.accumulator import Accumulator, Grid
from ..core.views import Views
from ..settings import Settings
from . import naive


@dataclass(frozen=True)
class Stored:
    """Features of all views of an image.

    Attributes:
        views: translations in pixels.
        chunks: ``(v, C, h, w)`` each, as the backbone gives them.
        stride: pixels per token.
    """

    views: Views
    chunks: list[Tensor]
    stride: int

    @classmethod
    def like(cls, features: Tensor, views: Views, chunk: int, stride: int) -> Stored:
        """Random features of the shape, dtype and memory layout of one view's ``(1, C, h, w)``."""
        sizes = [min(chunk, len(views) - i) for i in range(0, len(views), chunk)]
        # Of its own memory each: one that stays in the cache would be read faster than forwards'.
        return cls(views, [torch.randn_like(features.expand(s, -1, -1, -1)) for s in sizes], stride)

    def aggregate(self, settings: Settings) -> list[Tensor]:
        """Our statistic, ``(1, C, h', w')``, and the dispersion where it is asked for."""
        accumulator = Accumulator(self.views, settings.aggregation())
        start = 0
        for chunk in self.chunks:
            chosen = slice(start, start + len(chunk))
            accumulator.add([Grid(chunk, (self.stride, self.stride))], chosen)
            start = chosen.stop
        return [*accumulator.results(), *accumulator.dispersions()]

    def aggregate_naively(self) -> Tensor:
        """The naive pixel mean ``(1, C, H, W)``."""
        each = (view for chunk in self.chunks for view in chunk.split(1))
        return naive.mean_of(zip(each, self.views.translations), self.stride)
