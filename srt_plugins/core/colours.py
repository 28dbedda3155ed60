"""Colours of images that are measured in their own spread."""

from __future__ import annotations

import torch
from torch import Tensor

from .product import no_autocast
from .translate import pad

# Share of the mean variance that is added to each colour channel, so that an image with little
# colour is not told apart by its noise.
_SHRINKAGE = 0.03


class Guide:
    """The colours of a batch of images, to be asked for in cells of any size.

    They are whitened, image by image: distances are Mahalanobis distances, by the covariance of the
    image's own pixels with 3 % of its mean variance added to the diagonal. A common factor, an
    offset per channel and any orthogonal mix of the channels, such as their order, change nothing.

    Args:
        images: ``(B, c, H, W)`` as the backbone gets them, any floating dtype. Gradients do not
            pass through. Pixels that are not finite count as the mean colour of the others.
    """

    def __init__(self, images: Tensor) -> None:
        with torch.no_grad(), no_autocast(images.device.type):
            given = images.detach()
            wide = given if given.dtype == torch.float64 else given.float()
            self._pixels, self._whitening = _centred(wide)
        self._cells: dict[tuple[int, int, int], Tensor] = {}

    def cells(self, size: int, shape: tuple[int, int]) -> Tensor:
        """Mean colour of ``shape`` cells of ``size`` pixels from the upper left corner on,
        ``(B, c, *shape)`` in float32 (float64 for float64); beyond the image its edge goes on.
        """
        key = (size, *shape)
        if key not in self._cells:
            with torch.no_grad(), no_autocast(self._pixels.device.type):
                self._cells[key] = self._whitened(size, shape)
        return self._cells[key]

    def _whitened(self, size: int, shape: tuple[int, int]) -> Tensor:
        height, width = shape[0] * size, shape[1] * size
        there = self._pixels[..., :height, :width]
        bottom, right = height - there.shape[-2], width - there.shape[-1]
        cells = pad(there, 0, bottom, 0, right, "replicate")
        # Means before whitening: both are linear, and cells are fewer than pixels.
        if size > 1:
            rows = cells.unflatten(2, (-1, size)).sum(3)
            cells = rows.unflatten(3, (-1, size)).sum(4) / size**2
        # A sum of products, not a matrix product, which could be rounded (TF32).
        white = torch.zeros_like(cells)
        for column, channel in zip(self._whitening.unbind(2), cells.unbind(1)):
            white.addcmul_(column[..., None, None], channel[:, None])
        return white


def _centred(pixels: Tensor) -> tuple[Tensor, Tensor]:
    """``(B, c, H, W)`` without the mean colour of the pixels that are finite, zero where they are
    not; and the matrices ``(B, c, c)`` that then give them unit covariance.
    """
    channels, dtype = pixels.shape[1], pixels.dtype
    total = pixels.sum(1, keepdim=True)
    nothing = total - total  # NaN where a channel is not finite
    count = (nothing == 0).sum((2, 3)).clamp_min(1).to(dtype)
    centre = (pixels + nothing).nan_to_num_(0).sum((2, 3)) / count
    apart = (pixels - centre[..., None, None]).add_(nothing).nan_to_num_(0)
    spread = pixels.new_empty(len(pixels), channels, channels)
    for i in range(channels):
        # Sums of products for the same reason.
        row = (apart[:, : i + 1] * apart[:, i : i + 1]).sum((2, 3)) / count
        spread[:, i, : i + 1] = spread[:, : i + 1, i] = row
    own = spread.diagonal(dim1=1, dim2=2).mean(1)
    # An image of one colour has no spread but for rounding. Whatever replaces it, its colours are
    # all the same.
    least = (torch.finfo(dtype).eps * centre).square().mean(1).clamp_min(torch.finfo(dtype).tiny)
    added = torch.where(own > least, _SHRINKAGE * own, 1.0)
    unit = torch.eye(channels, dtype=dtype, device=pixels.device)
    factor, _ = torch.linalg.cholesky_ex(spread + added[:, None, None] * unit)
    return apart, torch.linalg.solve_triangular(factor, unit, upper=False)
