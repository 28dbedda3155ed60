"""Maps over what a backbone got of an image, brought to where the image is."""

from __future__ import annotations

import numpy as np
from torch import Tensor

from .maps import Map
from .pictures import resize_smooth
from .subject import Inputs


def placed(
    picture: np.ndarray, stride: tuple[int, int], given: Inputs, size: tuple[int, int]
) -> np.ndarray:
    """A picture of what the backbone got, without padding, in the size of the image.

    Args:
        picture: ``(h, w, 3)``, of all of ``given.images``.
        stride: pixels per cell of the picture.
        given: what the backbone got.
        size: ``(H, W)`` of the image, pixels.
    """
    top, left, height, width = given.shown
    rows = np.arange(top, top + height) // stride[0]
    columns = np.arange(left, left + width) // stride[1]
    shown = picture[rows][:, columns]
    return shown if shown.shape[:2] == size else resize_smooth(shown, size)


def within(values: Tensor, stride: tuple[int, int], given: Inputs) -> Tensor:
    """The cells ``(..., h, w)`` of what the backbone got that show the image."""
    top, left, height, width = given.shown
    y, x = stride
    rows = slice(top // y, -(-(top + height) // y))
    return values[..., rows, slice(left // x, -(-(left + width) // x))]


def cells_in_words(found: Map, given: Inputs, size: tuple[int, int]) -> str:
    """How fine a map is, for a caption.

    Args:
        found: over what the backbone got.
        given: what it got.
        size: ``(H, W)`` of the image, pixels.
    """
    y, x = found.stride
    text = "every pixel" if (y, x) == (1, 1) else f"cells of {y} x {x} pixels"
    # Pixels are those of what the backbone gets.
    height, width = given.shown[2:]
    return text if (height, width) == size else f"{text}, image made {height} x {width}"
