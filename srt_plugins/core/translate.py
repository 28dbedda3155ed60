"""Translated copies of an image, in the size of the image (or completed to whole patches)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from ..errors import ConfigError
from .product import in_place

PADDINGS = ("replicate", "reflect", "zeros")


def check_padding(padding: str) -> str:
    """``padding``, or a :class:`ConfigError` that lists the choices."""
    if padding not in PADDINGS:
        raise ConfigError(f"Expected padding to be one of {', '.join(PADDINGS)}, got {padding!r}.")
    return padding


def pad(
    images: Tensor, top: int, bottom: int, left: int, right: int, padding: str = "replicate"
) -> Tensor:
    """Pad the last two axes of ``images`` by the given numbers of pixels; negative ones cut off.

    Works for every dtype and for padding wider than the image (``reflect`` then folds back and
    forth, without repeating the edge pixel), which ``torch.nn.functional.pad`` does not. What is
    only cut is not copied.

    Args:
        images: ``(..., H, W)``.
        padding: ``"replicate"``, ``"reflect"`` or ``"zeros"``.
    """
    check_padding(padding)
    if _is_plain(images, (top, bottom, left, right), padding):
        inside = _cut(images, (top, bottom, left, right))
        wider = tuple(max(0, edge) for edge in (left, right, top, bottom))
        if not any(wider):
            return inside
        mode = "constant" if padding == "zeros" else padding
        return functional.pad(inside, wider, mode).contiguous()
    for axis, before, after in ((-2, top, bottom), (-1, left, right)):
        size = images.shape[axis]
        if not before and not after:
            continue
        index = torch.arange(-before, size + after, device=images.device)
        source = index.clamp(0, size - 1)
        if padding == "reflect" and size > 1:
            source = index.remainder(2 * (size - 1))
            source = torch.minimum(source, 2 * (size - 1) - source)
        padded = images.index_select(axis, source)
        if padding == "zeros":
            # Fill rather than multiply: 0 * NaN would leak the edge pixels of a broken image.
            outside = (index < 0) | (index >= size)
            outside = outside[:, None] if axis == -2 else outside
            padded = padded.masked_fill(outside, 0)
        images = padded
    return images


def _is_plain(images: Tensor, edges: tuple[int, int, int, int], padding: str) -> bool:
    """True where torch's own padding, which is faster, does the same."""
    if images.ndim != 4 or images.dtype not in (torch.float32, torch.float64):
        return False
    if not in_place(images):  # its gradient is not deterministic on CUDA
        return False
    inside = _cut(images, edges).shape[-2:]
    widest = max(edges[:2]), max(edges[2:])
    room = (size - (padding == "reflect") for size in inside)
    return min(inside) > 0 and all(wide <= most for wide, most in zip(widest, room))


def _cut(images: Tensor, edges: tuple[int, int, int, int]) -> Tensor:
    """Images without what the negative ones of (top, bottom, left, right) cut off."""
    top, bottom, left, right = (max(0, -edge) for edge in edges)
    height, width = images.shape[-2:]
    return images[..., top : height - bottom, left : width - right]


class Canvas:
    """The images, of which every view is a window.

    Args:
        images: ``(B, C, H, W)``, any dtype.
        translations: all views that will be asked for, in pixels.
        size: ``(H', W')`` of each view, at least ``(H, W)``: partial patches at the bottom and the
            right are completed by ``padding``. A view that moves the content towards such a partial
            patch fills it with real pixels.
        padding: how pixels outside the image are made.
        once: pad the images once for all views, which takes the memory of a copy of them but only
            one operation for any number of views. None = not on a CPU.
    """

    def __init__(
        self,
        images: Tensor,
        translations: Sequence[tuple[int, int]],
        size: tuple[int, int] | None = None,
        padding: str = "replicate",
        once: bool | None = None,
    ) -> None:
        height, width = images.shape[-2:]
        self.size = size or (height, width)
        self._images, self._padding = images, check_padding(padding)
        self._top = self._left = 0
        if images.device.type != "cpu" if once is None else once:
            dys = [dy for dy, _ in translations]
            dxs = [dx for _, dx in translations]
            self._top, self._left = max(0, *dys, 0), max(0, *dxs, 0)
            bottom = max(0, -min(dys)) + self.size[0] - height
            right = max(0, -min(dxs)) + self.size[1] - width
            self._images = pad(images, self._top, bottom, self._left, right, padding)

    def views(
        self, translations: Sequence[tuple[int, int]], mirrored: Sequence[bool] = ()
    ) -> Tensor:
        """Views as ``(len(translations) * B, C, H', W')``, all images of a view side by side.

        Args:
            translations: ``(dy, dx)`` in pixels.
            mirrored: which of them are mirrored left to right after the translation; empty = none.
        """
        edges = [self._edges(dy, dx) for dy, dx in translations]
        windows = [pad(self._images, *each, self._padding) for each in edges]
        if any(mirrored):
            windows = [w.flip(-1) if m else w for w, m in zip(windows, mirrored)]
        if len(windows) == 1 and max(edges[0]) > 0:
            return windows[0]
        # Copies, also of a single window: a backbone may work in place on its input.
        return torch.cat(windows)

    def _edges(self, dy: int, dx: int) -> tuple[int, int, int, int]:
        """Pixels that a view has more than the images at the top, bottom, left and right."""
        height, width = self._images.shape[-2:]
        top, left = dy - self._top, dx - self._left
        return top, self.size[0] - height - top, left, self.size[1] - width - left
