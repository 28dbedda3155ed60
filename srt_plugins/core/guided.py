"""Smoothing that follows the image: a joint bilateral filter of token grids.

Each output cell is a weighted mean of the tokens around it; a token counts by how near it is and by
how much its colour is like the cell's (Kopf et al., Joint Bilateral Upsampling, SIGGRAPH 2007). It
stands where Lao et al. (Eq. 2) leave room for a map other than the plain mean over views. Weights
come from the image alone, are made once and serve all channels; output cells may be finer than the
tokens, and then follow edges inside them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from ..errors import ConfigError
from .cells import output_cell
from .colours import Guide
from .product import no_autocast, operands
from .strips import Strips

GUIDED_FORMS = "'guided', 'guided:SPACE' or 'guided:SPACE:COLOUR', such as 'guided:0.75:0.4'"
# Chosen on CamVid and on procedural scenes together, see docs/smoothing.md.
_SPACE, _COLOUR = 0.75, 0.4
# Tokens farther than this many times ``space`` are left out.
_REACH = 3.0


@dataclass(frozen=True)
class Guided:
    """Strength of the filter: a token counts with ``exp(-distance / space) * exp(-difference /
    colour)``. (Tails that fall off like this gained more than Gaussian ones, on every set.)

    Attributes:
        space: in tokens of the grid that is smoothed.
        colour: in standard deviations of the image's own colours (Mahalanobis distance); infinite
            where colours should not count.
    """

    space: float = _SPACE
    colour: float = _COLOUR

    @classmethod
    def parse(cls, text: str) -> Guided:
        """From ``"guided[:SPACE[:COLOUR]]"``.

        Raises:
            ConfigError: anything else, or numbers that are not positive.
        """
        kind, *numbers = text.split(":")
        try:
            values = [float(number) for number in numbers]
        except ValueError:
            values = [math.nan]
        good = all(v > 0 for v in values) and not any(math.isinf(v) for v in values[:1])
        if kind != "guided" or len(values) > 2 or not good:
            raise ConfigError(f"Expected smooth to be {GUIDED_FORMS}, got {text!r}.")
        return cls(*values)

    def input_cell(self, stride: int, cell: int) -> int:
        """Pixels per cell of what is smoothed into cells of ``cell`` pixels: half tokens where the
        output is finer than tokens and the filter too narrow to pass for whole ones.

        Args:
            stride: pixels per token.
        """
        half = stride // 2
        fine = cell < stride and stride % 2 == 0 and half % cell == 0
        return half if fine and self.space < 1 else stride


class Smoother:
    """Smooths whatever grids an ensemble of some images gave.

    Args:
        how: strength.
        images: ``(B, c, H, W)``.
        stride: pixels per output cell that was asked for; None = each grid's own.
        single: the grids come from the untranslated view alone, so that parts of a token are alike.
    """

    def __init__(
        self, how: Guided, images: Tensor, stride: int | None, single: bool = False
    ) -> None:
        self._how = how
        self._guide = Guide(images)
        self._stride = stride
        self._single = single

    def __call__(self, features: Tensor, stride: int) -> Tensor:
        """Features ``(B, C, h, w)`` of a grid of ``stride`` pixels per token."""
        cell = output_cell(stride, self._stride)
        size = self._how.input_cell(stride, cell)
        parts = stride // size if self._single else 1
        alike = features[..., ::parts, ::parts]
        return smooth(alike, self._guide, self._how, stride, size * parts, cell, parts)


class _Weights:
    """How much each input cell of a window counts in the output cells that share it.

    Arguments as those of :func:`smooth`; ``shape`` is ``(h, w)``.
    """

    def __init__(
        self,
        guide: Guide,
        how: Guided,
        stride: int,
        size: int,
        cell: int,
        parts: int,
        shape: tuple[int, int],
    ) -> None:
        space, u, part = how.space * stride, size // cell, size // parts
        fine = guide.cells(cell, (shape[0] * u, shape[1] * u))
        coarse = F.avg_pool2d(fine, part // cell) if part > cell else fine
        reach = max(1, math.ceil(_REACH * space / part - 0.5))
        self.strips = strips = Strips(shape, u, -(-reach // parts), fine.device)
        self._colour, self._parts = how.colour, parts
        self._own, self._around = strips.cells(fine), strips.windows(coarse, parts=parts)
        # Finite, so that cells outside the grid, which have nothing in reach, are not NaN; what is
        # out of reach by both comes to half the least number.
        never = torch.finfo(fine.dtype).min / 4
        apart, near = strips.distances(cell, part, reach, fine.dtype)
        self._far = (apart / -space).masked_fill(~near, never)
        inside = torch.zeros_like(coarse[:, :1])
        self._outside = strips.windows(inside, never, parts).transpose(2, 3)

    def __call__(self, some: slice, rows: slice) -> Tensor:
        """Of some strips and rows: ``(s, r, K, M)``, whose sums over K are one."""
        total = self._far + self._outside[some, rows]
        if math.isfinite(self._colour):
            own, around = self._own[some, rows], self._around[some, rows]
            square = torch.zeros_like(total)
            for c in range(own.shape[2]):
                apart = own[:, :, c, None] - around[:, :, c, :, None]
                square.addcmul_(apart, apart)
            total.sub_(square.sqrt_(), alpha=1 / self._colour)
        return self.strips.merged(total.softmax(2), self._parts)


def smooth(
    features: Tensor,
    guide: Guide,
    how: Guided,
    stride: int,
    size: int,
    cell: int,
    parts: int = 1,
) -> Tensor:
    """Smooth a grid of features along the image.

    Args:
        features: ``(B, C, h, w)``, one per input cell, float32 or float64.
        guide: of the same B images.
        how: strength.
        stride: pixels per token, the unit of ``how.space``.
        size: pixels per input cell.
        cell: pixels per output cell, a divisor of ``size``.
        parts: parts per axis that an input cell has for its distances and colours, all with the
            cell's features: the same as repeated features in cells of ``size // parts`` pixels,
            which ``cell`` divides, in less time.

    Returns:
        ``(B, C, h * size // cell, w * size // cell)`` in the features' dtype, contiguous.
    """
    batch, channels, h, w = features.shape
    u = size // cell
    with no_autocast(features.device.type):
        with torch.no_grad():
            weights = _Weights(guide, how, stride, size, cell, parts, (h, w))
        windows = weights.strips.windows(features)
        out = features.new_empty(batch, channels, h, u, w * u)
        for some, rows in weights.strips.chunks(batch, channels, parts):
            with torch.no_grad():
                table = weights(some, rows).to(features.dtype)
            left, right = operands(windows[some, rows].flatten(0, 1), table.flatten(0, 1))
            made = torch.bmm(left, right).unflatten(0, table.shape[:2])
            weights.strips.place(made, out, some, rows)
        return out.flatten(2, 3)
