"""Translated copies of an image, in the size of the image (or completed to whole patches).

One padded canvas is made per batch; each view is a window of it, so a view costs one copy.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..errors import ConfigError

PADDINGS = ("replicate", "reflect", "zeros")


def check_padding(padding: str) -> str:
    """``padding``, or a :class:`ConfigError` that lists the choices."""
    if padding not in PADDINGS:
        raise ConfigError(f"Expected padding to be one of {', '.join(PADDINGS)}, got {padding!r}.")
    return padding


def pad(
    images: Tensor, top: int, bottom: int, left: int, right: int, padding: str = "replicate"
) -> Tensor:
    """Pad the last two axes of ``images`` by the given numbers of pixels.

    Works for every dtype and for padding wider than the image (``reflect`` then folds back and
    forth, without repeating the edge pixel), which ``torch.nn.functional.pad`` does not.

    Args:
        images: ``(..., H, W)``.
        padding: ``"replicate"``, ``"reflect"`` or ``"zeros"``.
    """
    check_padding(padding)
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


class Canvas:
    """The images padded once, so that every view is a window.

    Args:
        images: ``(B, C, H, W)``, any dtype.
        translations: all views that will be asked for, in pixels.
        size: ``(H', W')`` of each view, at least ``(H, W)``: partial patches at the bottom and the
            right are completed by ``padding``. A view that moves the content towards such a partial
            patch fills it with real pixels.
        padding: how pixels outside the image are made.
    """

    def __init__(
        self,
        images: Tensor,
        translations: Sequence[tuple[int, int]],
        size: tuple[int, int] | None = None,
        padding: str = "replicate",
    ) -> None:
        height, width = images.shape[-2:]
        self.size = size or (height, width)
        dys = [dy for dy, _ in translations]
        dxs = [dx for _, dx in translations]
        self._top, self._left = max(0, *dys, 0), max(0, *dxs, 0)
        bottom = max(0, -min(dys)) + self.size[0] - height
        right = max(0, -min(dxs)) + self.size[1] - width
        self._padded = pad(images, self._top, bottom, self._left, right, padding)

    def views(self, translations: Sequence[tuple[int, int]]) -> Tensor:
        """Views as ``(len(translations) * B, C, H', W')``, all images of a view side by side."""
        height, width = self.size
        windows = [
            self._padded[
                ...,
                self._top - dy : self._top - dy + height,
                self._left - dx : self._left - dx + width,
            ]
            for dy, dx in translations
        ]
        # Copies, also of a single window: a backbone may work in place on its input.
        return torch.cat(windows)
