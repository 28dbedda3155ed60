"""Noise and surface patterns: everything that gives a face more than one flat colour.

Patterns are functions of surface coordinates in metres, so they stick to their surface and shrink
with distance as the surface does.
"""

from __future__ import annotations

import numpy as np

_TILE = 256


def _interpolation(n: int, size: int) -> np.ndarray:
    """Periodic linear interpolation from n cells to `size` samples, as a (size, n) matrix."""
    at = np.arange(size, dtype=np.float32) * (n / size)
    low = at.astype(np.int64)
    share = at - low
    matrix = np.zeros((size, n), dtype=np.float32)
    matrix[np.arange(size), low % n] += 1 - share
    matrix[np.arange(size), (low + 1) % n] += share
    return matrix


def noise_tile(rng: np.random.Generator, cells: tuple[int, ...]) -> np.ndarray:
    """Periodic value noise, (256, 256) float32 in [0, 1].

    Args:
        rng: source of the cell values.
        cells: number of cells per side of each octave; each octave weighs 0.65 of the one before.
    """
    tile = np.zeros((_TILE, _TILE), dtype=np.float32)
    weight = 1.0
    for n in cells:
        grid = rng.random((n, n), dtype=np.float32)
        matrix = _interpolation(n, _TILE)
        tile += np.float32(weight) * (matrix @ grid @ matrix.T)
        weight *= 0.65
    low, high = tile.min(), tile.max()
    return (tile - low) / (high - low)


class Noise:
    """Two periodic noise tiles, looked up by surface coordinates.

    Args:
        rng: source of randomness; two draws with the same state give the same tiles.
    """

    def __init__(self, rng: np.random.Generator) -> None:
        self.smooth = noise_tile(rng, (4, 8, 16, 32))
        self.rough = noise_tile(rng, (16, 64, 128, 256))

    def __call__(
        self, v: np.ndarray | np.floating, u: np.ndarray, period: float, rough: bool = False
    ) -> np.ndarray:
        """Noise at surface coordinates (v, u), which broadcast, as float32 in [0, 1].

        Args:
            v, u: coordinates in metres.
            period: metres after which the noise repeats.
            rough: fine grain instead of smooth blotches.
        """
        scale = np.float32(_TILE / period)
        rows = (v * scale).astype(np.int32) & (_TILE - 1)
        cols = (u * scale).astype(np.int32) & (_TILE - 1)
        return (self.rough if rough else self.smooth)[rows, cols]


def hashed(a: np.ndarray, b: np.ndarray, salt: int) -> np.ndarray:
    """A repeatable pseudo-random number in [0, 1) for every pair of integer cells."""
    mixed = (a.astype(np.int64) * 73856093) ^ (b.astype(np.int64) * 19349663) ^ (salt * 83492791)
    mixed = (mixed ^ (mixed >> 13)) * 1274126177
    return ((mixed >> 7) & 0xFFFF).astype(np.float32) / 65536


def tinted(colour: np.ndarray, light: np.ndarray) -> np.ndarray:
    """Colour (3,) times brightness (R, C) -> (R, C, 3) float32."""
    return light[..., None] * np.asarray(colour, dtype=np.float32)


def windows(
    s: np.ndarray, h: np.ndarray, step: tuple[float, float], fill: tuple[float, float]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A grid of windows on a wall.

    Args:
        s: metres along the wall, (C,).
        h: metres above the ground, (R, C).
        step: metres between windows (along, up).
        fill: share of each step that is window (along, up).

    Returns:
        Mask (R, C) of the window panes, and the integer cell (along (C,), up (R, C)) of each pixel.
    """
    along, up = s / step[0], h / step[1]
    cell_s, cell_h = np.floor(along), np.floor(up)
    inside_s = np.abs(along - cell_s - 0.5) < fill[0] / 2
    inside_h = np.abs(up - cell_h - 0.5) < fill[1] / 2
    return inside_s[None, :] & inside_h, cell_s, cell_h


def comb(at: np.ndarray, step: float, half: np.ndarray | float) -> np.ndarray:
    """True where `at` lies within `half` of a multiple of `step` (all in metres)."""
    return np.abs(at - np.round(at / step) * step) < half
