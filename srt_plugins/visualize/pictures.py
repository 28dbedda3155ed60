"""Pictures: resizing and saving."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from ..errors import ConfigError, nearest
from ..evaluation.files import replacing
from .needs import pillow

_SUFFIXES = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG"}


def resize_nearest(picture: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """An array ``(H, W, ...)`` of any dtype at ``size`` (height, width), by nearest neighbour."""
    height, width = _size(size)
    rows = ((2 * np.arange(height) + 1) * picture.shape[0]) // (2 * height)
    columns = ((2 * np.arange(width) + 1) * picture.shape[1]) // (2 * width)
    return picture[rows[:, None], columns]


def resize_smooth(picture: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """A picture ``(H, W, 3)`` uint8 at ``size`` (height, width), with antialiasing."""
    height, width = _size(size)
    if picture.shape[:2] == (height, width):
        return picture
    Image = pillow()
    smaller = height * width < picture.shape[0] * picture.shape[1]
    kind = Image.Resampling.HAMMING if smaller else Image.Resampling.BICUBIC
    return np.array(Image.fromarray(np.ascontiguousarray(picture)).resize((width, height), kind))


def save_picture(path: str | Path, picture: np.ndarray, quality: int = 92) -> Path:
    """Write a picture ``(H, W, 3)`` uint8 as PNG or JPEG by the path's ending, whole or not at all.

    Args:
        path: ends in ``.png``, ``.jpg`` or ``.jpeg``.
        picture: RGB.
        quality: of a JPEG.

    Raises:
        ConfigError: another ending, no such folder, or an array that is no picture.
    """
    path = Path(path)
    kind = _SUFFIXES.get(path.suffix.lower())
    if kind is None:
        raise ConfigError(
            f"Expected a picture's path to end in {', '.join(_SUFFIXES)}, got {path}; nearest: "
            f"{nearest(path.suffix.lower(), _SUFFIXES, limit=1)}."
        )
    if not path.parent.is_dir():
        raise ConfigError(f"Expected {path.parent} to be a folder for {path.name}; make it first.")
    height, width = size_of(picture)
    if kind == "JPEG" and max(height, width) > 65535:
        raise ConfigError(f"Expected at most 65535 pixels a side for JPEG, got {width} x {height}.")
    image = pillow().fromarray(np.ascontiguousarray(picture))
    options = {"quality": quality, "subsampling": 0} if kind == "JPEG" else {"compress_level": 6}
    with replacing(path) as part:
        image.save(part, kind, **options)
    return path


def size_of(picture: np.ndarray, title: str = "") -> tuple[int, int]:
    """Height and width of a picture ``(H, W, 3)`` uint8.

    Args:
        picture: what should be one.
        title: what to call it in the error.

    Raises:
        ConfigError: it is none.
    """
    good = isinstance(picture, np.ndarray) and picture.dtype == np.uint8 and picture.ndim == 3
    if not good or picture.shape[2] != 3 or not picture.size:
        given = (
            f"{picture.dtype} {picture.shape}"
            if isinstance(picture, np.ndarray)
            else type(picture).__name__
        )
        of = f" of panel {title!r}" if title else ""
        raise ConfigError(f"Expected the picture{of} to be uint8 (H, W, 3), got {given}.")
    return picture.shape[0], picture.shape[1]


def _size(size: tuple[int, int]) -> tuple[int, int]:
    return whole("height", size[0]), whole("width", size[1])


def whole(name: str, value: Any) -> int:
    """An integer of at least one.

    Raises:
        ConfigError: it is none.
    """
    if isinstance(value, bool) or int(value) != value or value < 1:
        raise ConfigError(f"Expected {name} to be an integer of at least 1, got {value!r}.")
    return int(value)
