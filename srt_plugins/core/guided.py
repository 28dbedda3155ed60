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
from .product import band_size, no_autocast, operands
from .translate import pad

GUIDED_FORMS = "'guided', 'guided:SPACE' or 'guided:SPACE:COLOUR', such as 'guided:1:0.7'"
# Chosen on CamVid and on procedural scenes together, see docs/smoothing.md.
_SPACE, _COLOUR = 0.9, 0.5
# Tokens farther than this many standard deviations in space are left out.
_REACH = 2.0
# Share of the mean variance that is added to each colour channel, so that an image with little
# colour is not told apart by its noise.
_SHRINKAGE = 0.03


@dataclass(frozen=True)
class Guided:
    """Strength of the filter.

    Attributes:
        space: standard deviation in space, in tokens of the grid that is smoothed.
        colour: standard deviation in colour, in standard deviations of the image's own colours
            (Mahalanobis distance); infinite for a plain Gaussian.
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


def colours(images: Tensor) -> Tensor:
    """Images whose colours have unit covariance: distances are then Mahalanobis distances, the same
    under every scale, offset and order of the channels, and so under every normalisation.

    Args:
        images: ``(B, c, H, W)``, any floating dtype.

    Returns:
        ``(B, c, H, W)``, float32 (float64 for float64).
    """
    wide = images if images.dtype == torch.float64 else images.float()
    flat = wide.flatten(2)
    flat = flat - flat.mean(2, keepdim=True)
    # Sums of products, not a matrix product, which could be rounded (autocast, TF32).
    spread = (flat[:, :, None] * flat[:, None]).mean(3)
    channels = spread.shape[1]
    own = spread.diagonal(dim1=1, dim2=2).mean(1)[:, None, None]
    eye = torch.eye(channels, dtype=flat.dtype, device=flat.device)
    tiny = torch.finfo(flat.dtype).tiny
    # An image of one colour has no spread; whatever replaces it, its colours are all the same.
    spread = spread + eye * torch.where(own > tiny, _SHRINKAGE * own, torch.ones_like(own))
    factor, _ = torch.linalg.cholesky_ex(spread)
    return torch.linalg.solve_triangular(factor, flat, upper=False).view_as(wide)


class Guide:
    """The colours of a batch of images, to be asked for in cells of any size.

    Args:
        images: ``(B, c, H, W)`` as the backbone gets them. Gradients do not pass through.
    """

    def __init__(self, images: Tensor) -> None:
        with torch.no_grad(), no_autocast(images.device.type):
            self._colours = colours(images.detach())
        self._cells: dict[tuple[int, int, int], Tensor] = {}

    def cells(self, size: int, shape: tuple[int, int]) -> Tensor:
        """Mean colour of ``shape`` cells of ``size`` pixels from the upper left corner on,
        ``(B, c, *shape)``; beyond the image its edge goes on.
        """
        key = (size, *shape)
        if key not in self._cells:
            height, width = shape[0] * size, shape[1] * size
            there = self._colours[..., :height, :width]
            bottom, right = height - there.shape[-2], width - there.shape[-1]
            whole = pad(there, 0, bottom, 0, right, "replicate")
            self._cells[key] = F.avg_pool2d(whole, size) if size > 1 else whole
        return self._cells[key]


def weights(guide: Guide, how: Guided, stride: int, size: int, cell: int, shape: tuple) -> Tensor:
    """How much each input cell around an output cell counts.

    Args:
        stride: pixels per token, the unit of ``how.space``.
        size: pixels per input cell; ``shape`` is ``(h, w)`` of the input cells.
        cell: pixels per output cell, a divisor of ``size``.

    Returns:
        ``(B, h, w, u * u, k * k)``, rows that sum to one: ``u = size // cell`` output cells per
        input cell and axis in raster order, and a window of ``k`` input cells around it per axis.
    """
    u = size // cell
    sigma = how.space * stride
    reach = max(1, math.ceil(_REACH * sigma / size - 0.5))
    k = 2 * reach + 1
    h, w = shape
    fine = guide.cells(cell, (h * u, w * u))
    coarse = guide.cells(size, shape)
    device, dtype = fine.device, fine.dtype
    # Distance in pixels between the centres, along one axis: (u, k).
    steps = torch.arange(-reach, reach + 1, device=device, dtype=dtype) * size
    own = (torch.arange(u, device=device, dtype=dtype) + 0.5) * cell - size / 2
    along = (steps[None] - own[:, None]).square()
    far = (along[:, None, :, None] + along[None, :, None, :]).reshape(u * u, k * k)
    log = -far / (2 * sigma * sigma)
    # (B, c, h, w, u * u) and (B, c, h, w, k * k)
    cells = fine.unflatten(3, (w, u)).unflatten(2, (h, u)).permute(0, 1, 2, 4, 3, 5).flatten(4)
    around = _windows(F.pad(coarse, (reach,) * 4), k)
    batch, channels = coarse.shape[:2]
    total = log.expand(batch, h, w, u * u, k * k)
    if math.isfinite(how.colour):
        apart = torch.zeros((), device=device, dtype=dtype)
        for c in range(channels):
            apart = apart + (cells[:, c, ..., :, None] - around[:, c, ..., None, :]).square()
        total = total - apart / (2 * how.colour * how.colour)
    inside = _windows(F.pad(coarse.new_ones(1, 1, h, w), (reach,) * 4), k)[:, 0] > 0
    return total.masked_fill(~inside[..., None, :], -math.inf).softmax(-1)


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


def _windows(padded: Tensor, k: int) -> Tensor:
    """The ``k * k`` values around each place, ``(B, c, h, w, k * k)``, of a grid padded for it."""
    return padded.unfold(2, k, 1).unfold(3, k, 1).flatten(4)


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
        ``(B, C, h * size // cell, w * size // cell)`` in the features' dtype.
    """
    batch, channels, h, w = features.shape
    u = size // cell
    with no_autocast(features.device.type):
        with torch.no_grad():
            table = weights(guide, how, stride, size, cell, (h, w)).to(features.dtype)
        k = math.isqrt(table.shape[-1])
        reach = k // 2
        # Channels last: a window is then k * k runs of memory, gathered a band of rows at a time.
        padded = F.pad(features, (reach,) * 4).permute(0, 2, 3, 1).contiguous()
        step = max(1, band_size(features.device) // max(1, batch * w * k * k * channels))
        rows = []
        for top in range(0, h, step):
            stop = min(top + step, h)
            around = padded[:, top : stop + 2 * reach].unfold(1, k, 1).unfold(2, k, 1)
            around = around.permute(0, 1, 2, 4, 5, 3).reshape(-1, k * k, channels)
            left, right = operands(table[:, top:stop].reshape(-1, u * u, k * k), around)
            rows.append(torch.bmm(left, right).view(batch, stop - top, w, u, u, channels))
        out = torch.cat(rows, 1)
        return out.permute(0, 5, 1, 3, 2, 4).reshape(batch, channels, h * u, w * u)
