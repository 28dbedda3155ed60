"""Smoothing that follows the image: a joint bilateral filter of token grids.

Each output cell is a weighted mean of the tokens around it; a token counts by how near it is and by
how much its colour is like the cell's (Kopf et al., Joint Bilateral Upsampling, SIGGRAPH 2007). It
stands where Lao et al. (Eq. 2) leave room for a map other than the plain mean over views. Weights
come from the image alone, are made once and serve all channels; output cells may be finer than the
tokens, and then follow edges inside them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from ..errors import ConfigError
from .cells import output_cell
from .product import band_size, no_autocast, operands
from .translate import pad

GUIDED_FORMS = "'guided', 'guided:SPACE' or 'guided:SPACE:COLOUR', such as 'guided:0.75:0.4'"
# Chosen on CamVid and on procedural scenes together, see docs/smoothing.md.
_SPACE, _COLOUR = 0.75, 0.4
# Tokens farther than this many times ``space`` are left out.
_REACH = 3.0
# Share of the mean variance that is added to each colour channel, so that an image with little
# colour is not told apart by its noise.
_SHRINKAGE = 0.03
# Columns of input cells per strip.
_STRIP = 10
_BAND = 1 << 20


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


class Guide:
    """The colours of a batch of images, to be asked for in cells of any size.

    They are whitened, image by image: their covariance over the image is the unit matrix (but for
    the share that is added to it), and distances are Mahalanobis distances. A common factor, an
    offset per channel and any orthogonal mix of the channels, such as their order, change nothing.
    Pixels that are not finite count for nothing beyond their cell.

    Args:
        images: ``(B, c, H, W)`` as the backbone gets them, any floating dtype. Gradients do not
            pass through.
    """

    def __init__(self, images: Tensor) -> None:
        with torch.no_grad(), no_autocast(images.device.type):
            detached = images.detach()
            # float32, or float64 for float64.
            self._images = detached if detached.dtype == torch.float64 else detached.float()
            self._centre, self._whitening = _whitening(self._images)
        self._cells: dict[tuple[int, int, int], Tensor] = {}

    def cells(self, size: int, shape: tuple[int, int]) -> Tensor:
        """Mean colour of ``shape`` cells of ``size`` pixels from the upper left corner on,
        ``(B, c, *shape)``; beyond the image its edge goes on.
        """
        key = (size, *shape)
        if key not in self._cells:
            with torch.no_grad(), no_autocast(self._images.device.type):
                self._cells[key] = self._whitened(size, shape)
        return self._cells[key]

    def _whitened(self, size: int, shape: tuple[int, int]) -> Tensor:
        height, width = shape[0] * size, shape[1] * size
        there = self._images[..., :height, :width]
        bottom, right = height - there.shape[-2], width - there.shape[-1]
        whole = pad(there, 0, bottom, 0, right, "replicate")
        # Means before whitening: both are linear, and cells are fewer than pixels.
        means = (F.avg_pool2d(whole, size) if size > 1 else whole) - self._centre[..., None, None]
        # A sum of products, not a matrix product, which could be rounded (TF32).
        columns = zip(self._whitening.unbind(2), means.unbind(1))
        return sum(column[..., None, None] * mean[:, None] for column, mean in columns)


def _whitening(images: Tensor) -> tuple[Tensor, Tensor]:
    """Mean colour ``(B, c)`` and the matrices ``(B, c, c)`` that give colours unit covariance."""
    channels = images.shape[1]
    flat = images.flatten(2)
    total = flat.sum(1)
    finite = (total - total == 0)[:, None]
    count = finite.sum(2).to(flat)
    centre = torch.where(finite, flat, 0).sum(2) / count
    apart = torch.where(finite, flat - centre[..., None], 0)
    rows = [(apart[:, : i + 1] * apart[:, i : i + 1]).sum(2) / count for i in range(channels)]
    lower = torch.stack([F.pad(row, (0, channels - row.shape[1])) for row in rows], 1)
    spread = lower + lower.tril(-1).mT
    own = spread.diagonal(dim1=1, dim2=2).mean(1)[:, None, None]
    eye = torch.eye(channels, dtype=flat.dtype, device=flat.device)
    # An image of one colour has no spread but for rounding; whatever replaces it, its colours are
    # all the same.
    least = (torch.finfo(flat.dtype).eps * centre).square().sum(1)[:, None, None]
    least = least + torch.finfo(flat.dtype).tiny
    own = torch.where(own > least, _SHRINKAGE * own, torch.ones_like(own))
    factor, _ = torch.linalg.cholesky_ex(spread + eye * own)
    return centre, torch.linalg.solve_triangular(factor, eye, upper=False)


class Smoother:
    """Smooths whatever grids an ensemble of some images gave.

    Args:
        how: strength.
        images: ``(B, c, H, W)``.
        stride: pixels per output cell that was asked for; None = each grid's own.
    """

    def __init__(self, how: Guided, images: Tensor, stride: int | None) -> None:
        self._how = how
        self._guide = Guide(images)
        self._stride = stride

    def __call__(self, features: Tensor, stride: int) -> Tensor:
        """Features ``(B, C, h, w)`` of a grid of ``stride`` pixels per token."""
        cell = output_cell(stride, self._stride)
        size = self._how.input_cell(stride, cell)
        return smooth(features, self._guide, self._how, stride, size, cell)


class Strips:
    """A grid cut into strips of a few columns of input cells.

    All output cells of a strip in one row of input cells are one matrix product: the features of
    their common window, ``ky`` rows of a few more input cells than the strip has columns, times
    weights that are zero where an input cell is out of reach. More numbers are multiplied than with
    a window for each input cell, but next to none are moved.

    Args:
        shape: ``(h, w)`` input cells.
        u: output cells per input cell and axis.
        reach: input cells that the window goes on beyond an output cell's own.

    Attributes:
        count: strips per image.
        width: input cells per strip and row; some of the last strip's may lie outside.
    """

    def __init__(self, shape: tuple[int, int], u: int, reach: int) -> None:
        self.shape, self.u = shape, u
        self.reach = (min(reach, shape[0] - 1), min(reach, shape[1] - 1))
        self.count = -(-shape[1] // _STRIP)
        self.width = -(-shape[1] // self.count)

    def windows(self, grid: Tensor) -> Tensor:
        """``(B, c, h, w)`` to the windows ``(B * count, h, c, K)``, zero beyond the grid. Those
        that lie above each other share memory.
        """
        (ry, rx), surplus = self.reach, self.count * self.width - self.shape[1]
        across = self.width + 2 * rx
        padded = F.pad(grid, (rx, rx + surplus, ry, ry))
        strips = padded.unfold(3, across, self.width).permute(0, 3, 1, 2, 4).flatten(0, 1)
        return strips.flatten(2).unfold(2, (2 * ry + 1) * across, across).transpose(1, 2)

    def cells(self, grid: Tensor) -> Tensor:
        """``(B, c, h * u, w * u)`` to the output cells ``(B * count, h, c, M)`` of each window."""
        surplus = self.count * self.width - self.shape[1]
        padded = F.pad(grid, (0, surplus * self.u))
        each = padded.unflatten(3, (self.count, -1)).unflatten(2, (-1, self.u))
        return each.permute(0, 4, 2, 1, 3, 5).flatten(4).flatten(0, 1)

    def apart(self, size: int, cell: int, like: Tensor) -> tuple[Tensor, Tensor]:
        """Squared distance in pixels between the centres of each input cell of ``size`` pixels and
        each output cell of ``cell`` pixels, ``(K, M)``, and whether it is within reach.
        """
        (ry, rx), u = self.reach, self.u
        axes = []
        for reach, extent in ((ry, 1), (rx, self.width)):
            inputs = torch.arange(-reach, extent + reach, device=like.device)[:, None]
            outputs = torch.arange(extent * u, device=like.device)
            away = (inputs + 0.5) * size - (outputs + 0.5) * cell
            near = (inputs - torch.div(outputs, u, rounding_mode="floor")).abs() <= reach
            axes.append((away.square().to(like.dtype), near))
        (dy, near_y), (dx, near_x) = axes
        square = dy[:, None, :, None] + dx[None, :, None]
        near = near_y[:, None, :, None] & near_x[None, :, None]
        return square.flatten(2).flatten(0, 1), near.flatten(2).flatten(0, 1)

    def chunks(self, batch: int, channels: int, device: torch.device) -> Iterator[tuple]:
        """Slices of strips and of rows to work on at a time."""
        (ry, rx), (h, _) = self.reach, self.shape
        window = (2 * ry + 1) * (self.width + 2 * rx)
        row = self.width * self.u * self.u * max(window, channels)
        rows = max(1, min(h, (_BAND if device.type == "cpu" else band_size(device)) // row))
        step = max(1, band_size(device) // (row * rows)) if device.type != "cpu" else 1
        for start in range(0, batch * self.count, step):
            for top in range(0, h, rows):
                yield slice(start, start + step), slice(top, top + rows)


class Weights:
    """How much each input cell of a window counts in the output cells that share it.

    Args:
        guide: colours of the images.
        how: strength.
        stride: pixels per token, the unit of ``how.space``.
        size: pixels per input cell.
        cell: pixels per output cell.
        shape: ``(h, w)`` input cells.
    """

    def __init__(
        self, guide: Guide, how: Guided, stride: int, size: int, cell: int, shape: tuple[int, int]
    ) -> None:
        space, u = how.space * stride, size // cell
        self.strips = strips = Strips(shape, u, max(1, math.ceil(_REACH * space / size - 0.5)))
        fine = guide.cells(cell, (shape[0] * u, shape[1] * u))
        coarse = F.avg_pool2d(fine, u) if u > 1 else fine
        self._colour = how.colour
        self._own, self._around = strips.cells(fine), strips.windows(coarse)
        square, self._near = strips.apart(size, cell, fine)
        self._far = square.sqrt() / -space
        inside = strips.windows(torch.ones_like(coarse[:, :1])) > 0
        self._inside = inside.transpose(2, 3)

    def __call__(self, some: slice, rows: slice) -> Tensor:
        """``(strips, rows, K, M)``, whose sums over K are one."""
        own, around = self._own[some, rows], self._around[some, rows]
        strips, height, channels = own.shape[:3]
        total = self._far.repeat(strips, height, 1, 1)
        if math.isfinite(self._colour):
            square = torch.zeros_like(total)
            for c in range(channels):
                apart = own[:, :, c, None] - around[:, :, c, :, None]
                square.addcmul_(apart, apart)
            total.sub_(square.sqrt_(), alpha=1 / self._colour)
        # The least number, not -inf: cells outside the grid are in reach of nothing, and not NaN.
        out = ~(self._inside[some, rows] & self._near)
        return total.masked_fill_(out, torch.finfo(total.dtype).min).softmax(2)


def smooth(
    features: Tensor, guide: Guide, how: Guided, stride: int, size: int, cell: int
) -> Tensor:
    """Smooth a grid of features along the image.

    Args:
        features: ``(B, C, h, w)``, one per input cell, float32 or float64.
        guide: of the same B images.
        how: strength.
        stride: pixels per token, the unit of ``how.space``.
        size: pixels per input cell.
        cell: pixels per output cell, a divisor of ``size``.

    Returns:
        ``(B, C, h * size // cell, w * size // cell)`` in the features' dtype, contiguous.
    """
    batch, channels, h, w = features.shape
    u = size // cell
    with no_autocast(features.device.type):
        with torch.no_grad():
            weights = Weights(guide, how, stride, size, cell, (h, w))
        strips = weights.strips
        windows = strips.windows(features)
        out = features.new_empty(batch, channels, h, u, w * u)
        for some, rows in strips.chunks(batch, channels, features.device):
            with torch.no_grad():
                table = weights(some, rows).to(features.dtype)
            left, right = operands(windows[some, rows].flatten(0, 1), table.flatten(0, 1))
            made = torch.bmm(left, right).unflatten(0, table.shape[:2]).unflatten(3, (u, -1))
            for strip, values in enumerate(made, some.start):
                image, place = divmod(strip, strips.count)
                start = place * strips.width * u
                into = out[image, :, rows, :, start : start + strips.width * u]
                into.copy_(values.transpose(0, 1)[..., : into.shape[-1]])
        return out.flatten(2, 3)
