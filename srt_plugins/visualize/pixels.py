"""Pixels of any kind of number as uint8 RGB, and turning them."""

from __future__ import annotations

import numpy as np

from ..errors import ConfigError


def rgb_array(array: np.ndarray) -> np.ndarray:
    """An array ``(H, W)``, ``(H, W, 1)``, ``(H, W, 3)`` or ``(H, W, 4)`` as uint8 ``(H, W, 3)``.

    Numbers follow the rules of ``images.read_image``; the fourth channel is opacity over white.

    Raises:
        ConfigError: another shape, or no numbers.
    """
    channels = array.shape[2] if array.ndim == 3 else 1
    if array.ndim not in (2, 3) or channels not in (1, 3, 4) or not array.size:
        raise ConfigError(
            "Expected an image as an array (H, W), (H, W, 1), (H, W, 3) or (H, W, 4), got "
            f"{array.shape}."
        )
    if array.dtype.kind not in "buif":
        raise ConfigError(f"Expected an image of numbers, got an array of {array.dtype}.")
    eight = eight_bit(array).reshape(*array.shape[:2], channels)
    if channels == 4:
        alpha = eight[..., 3:].astype(np.uint16)
        eight = ((eight[..., :3] * alpha + 255 * (255 - alpha) + 127) // 255).astype(np.uint8)
    return np.array(np.broadcast_to(eight, (*array.shape[:2], 3)))


def eight_bit(values: np.ndarray) -> np.ndarray:
    """Numbers of any shape and range as uint8, by the rules of ``images.read_image``."""
    if values.dtype == bool:
        return values.astype(np.uint8) * 255
    if values.dtype == np.uint8:
        return values
    if values.dtype.kind == "u" and values.dtype.itemsize == 2:
        # Rounded: 257 is odd, so there are no halves.
        return ((values.astype(np.uint32) + 128) // 257).astype(np.uint8)
    finite = np.isfinite(values)
    if not finite.any():
        return np.zeros(values.shape, np.uint8)
    wide = np.where(finite, values, values[finite].flat[0]).astype(np.float64)
    low, high = _black_and_white(wide, whole=values.dtype.kind != "f")
    scaled = np.rint((wide - low) * (255 / (high - low)))
    return np.where(finite, scaled, 0).astype(np.uint8)


def _black_and_white(values: np.ndarray, whole: bool) -> tuple[float, float]:
    """The values that are drawn black and white."""
    low, high = float(values.min()), float(values.max())
    if low < 0 or high > (65535 if whole else 255):
        return low, max(high, np.nextafter(low, np.inf))
    if whole:
        return 0.0, 65535.0
    return 0.0, 1.0 if high <= 1 else 255.0


def turned(pixels: np.ndarray, swapped: bool, rows: bool, columns: bool) -> np.ndarray:
    """``(H, W, 3)`` with rows and columns swapped, then rows upside down, then columns reversed."""
    if swapped:
        pixels = pixels.swapaxes(0, 1)
    return np.ascontiguousarray(pixels[:: -1 if rows else 1, :: -1 if columns else 1])
