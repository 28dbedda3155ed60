"""Colours of numbers and of classes."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from ..errors import ConfigError, nearest
from .needs import matplotlib_maps
from .text import FAINT, Canvas, line_height, text_width

UNKNOWN = (150, 150, 150)
"""Colour of what is not finite."""

# Quantiles of more values than these are taken of a regular sample.
_SAMPLE = 2_000_000
# The first colours of classes: Okabe and Ito's, which the colour-blind can tell apart.
_FIRST = (
    (230, 159, 0),
    (86, 180, 233),
    (0, 158, 115),
    (240, 228, 66),
    (0, 114, 178),
    (213, 94, 0),
    (204, 121, 167),
)
_MOST = 1024


@dataclass(frozen=True)
class Scale:
    """What the colours of a picture stand for, for its colour bar.

    Args:
        low: value of the first colour.
        high: value of the last colour.
        name: matplotlib's name of the colour map.
        unit: behind the numbers, such as ``"m"``.
    """

    low: float
    high: float
    name: str = "magma"
    unit: str = ""


def heat(
    values: np.ndarray, low: float | None = None, high: float | None = None, name: str = "magma"
) -> np.ndarray:
    """Colours ``(h, w, 3)`` uint8 of values ``(h, w)``, clipped to ``low`` .. ``high``.

    What is not finite is grey; where ``low`` equals ``high``, only larger values have the last
    colour and all others the first.

    Args:
        values: any real dtype.
        low: value of the first colour; None = by :func:`robust_range`.
        high: value of the last colour; None = by :func:`robust_range`.
        name: matplotlib's name of the colour map.

    Raises:
        ConfigError: not ``(h, w)`` numbers, bounds that are not finite or crossed, or no such map.
        MissingDependencyError: matplotlib is not installed.
    """
    values, table = _plane(values), colour_table(name)
    if low is None or high is None:
        found = robust_range(values)
        low = found[0] if low is None else low
        # A bound that was given may lie beyond what is there.
        high = max(found[1], low) if high is None else high
        low = min(low, high)
    if not (np.isfinite(low) and np.isfinite(high) and low <= high):
        raise ConfigError(f"Expected finite low <= high, got {low} and {high}.")
    finite = np.isfinite(values)
    clipped = np.clip(np.where(finite, values, low), low, high) - low
    last = len(table) - 1
    if high > low:
        index = np.rint(clipped * (last / (high - low))).astype(np.intp)
    else:
        index = np.where(finite & (values > high), last, 0)
    return np.where(finite[..., None], table[index], np.asarray(UNKNOWN, np.uint8))


def signed(values: np.ndarray, limit: float | None = None, name: str = "RdBu_r") -> np.ndarray:
    """Colours ``(h, w, 3)`` uint8 of differences ``(h, w)``: zero is the middle of the map.

    Args:
        values: any real dtype; what is not finite is grey.
        limit: magnitude of the outermost colours; None = by :func:`signed_limit`.
        name: matplotlib's name of the colour map, a diverging one.

    Raises:
        ConfigError: as for :func:`heat`, or a limit that is negative or not finite.
    """
    values = _plane(values)
    limit = signed_limit(values) if limit is None else limit
    if not (np.isfinite(limit) and limit >= 0):
        raise ConfigError(f"Expected limit to be a finite number of at least 0, got {limit}.")
    # Nothing differs: any limit puts zero in the middle.
    limit = limit or 1.0
    return heat(values, -limit, limit, name)


def robust_range(values: np.ndarray, share: float = 0.02) -> tuple[float, float]:
    """The range of the finite values without the outer ``share`` at either end.

    Where that is a single number, least and most; (0, 1) without finite values.
    """
    values = np.asarray(values).reshape(-1)
    values = values[:: max(1, len(values) // _SAMPLE)].astype(np.float64)
    values = values[np.isfinite(values)]
    if not len(values):
        return 0.0, 1.0
    low, high = np.quantile(values, [share, 1 - share])
    if low == high:
        low, high = values.min(), values.max()
    return float(low), float(high)


def shared_range(*planes: np.ndarray, share: float = 0.02) -> tuple[float, float]:
    """The least and the most of the robust ranges of several planes."""
    ranges = [robust_range(plane, share) for plane in planes if np.isfinite(plane).any()]
    return (min(r[0] for r in ranges), max(r[1] for r in ranges)) if ranges else (0.0, 1.0)


def signed_limit(values: np.ndarray, share: float = 0.02) -> float:
    """The magnitude that all but ``share`` of the finite values stay within."""
    return robust_range(np.abs(np.asarray(values, np.float64)), share)[1]


@lru_cache(maxsize=32)
def colour_table(name: str) -> np.ndarray:
    """The colours ``(N, 3)`` uint8 of matplotlib's colour map ``name``."""
    colormaps = matplotlib_maps()
    if name not in colormaps:
        raise ConfigError(
            f"Expected the name of a colour map of matplotlib, got {name!r}; nearest: "
            f"{nearest(str(name), colormaps)}."
        )
    colours = colormaps[name]
    return np.ascontiguousarray(colours(np.arange(colours.N), bytes=True)[:, :3])


def palette(n: int) -> np.ndarray:
    """``(n, 3)`` uint8 colours, as unlike each other as can be; a larger n starts with the same.

    Beyond 1024 they repeat.
    """
    if isinstance(n, bool) or int(n) != n or n < 0:
        raise ConfigError(f"Expected the number of colours to be an integer >= 0, got {n!r}.")
    most = min(_MOST, 1 << max(6, int(n - 1).bit_length()))
    return np.resize(_apart(most)[: max(1, min(n, most))], (n, 3))


@lru_cache(maxsize=8)
def _apart(n: int) -> np.ndarray:
    """Each colour the one farthest, in OKLab, from those before it, white, black and grey."""
    steps = np.linspace(0, 255, 24).round()
    every = np.stack(np.meshgrid(steps, steps, steps, indexing="ij"), -1).reshape(-1, 3)
    lab = oklab(every)
    keep = (lab[:, 0] > 0.35) & (lab[:, 0] < 0.93) & (np.hypot(lab[:, 1], lab[:, 2]) > 0.05)
    every, lab = every[keep], lab[keep]
    chosen = [np.asarray(colour, float) for colour in _FIRST]
    distance = np.full(len(every), np.inf)
    for grey in (0, 128, 255):
        distance = np.minimum(distance, ((lab - oklab(np.full(3, float(grey)))) ** 2).sum(1))
    while True:
        for colour in chosen[-1:] if len(chosen) > len(_FIRST) else chosen:
            distance = np.minimum(distance, ((lab - oklab(colour)) ** 2).sum(1))
        if len(chosen) >= n:
            return np.stack(chosen).astype(np.uint8)
        chosen.append(every[distance.argmax()])


def oklab(rgb: np.ndarray) -> np.ndarray:
    """Colours ``(..., 3)``, sRGB of 0..255, in OKLab, where distances are as they are seen.

    Source: B. Ottosson, "A perceptual color space for image processing", 2020.
    """
    unit = np.asarray(rgb, np.float64) / 255
    linear = np.where(unit <= 0.04045, unit / 12.92, ((unit + 0.055) / 1.055) ** 2.4)
    cones = linear @ np.array(
        [
            [0.4122214708, 0.2119034982, 0.0883024619],
            [0.5363325363, 0.6806995451, 0.2817188376],
            [0.0514459929, 0.1073969566, 0.6299787005],
        ]
    )
    return np.cbrt(cones) @ np.array(
        [
            [0.2104542553, 1.9779984951, 0.0259040371],
            [0.7936177850, -2.4285922050, 0.7827717662],
            [-0.0040720468, 0.4505937099, -0.8086757660],
        ]
    )


def bar(scale: Scale, width: int = 256, size: int = 13) -> np.ndarray:
    """A colour bar ``(h, width, 3)`` uint8 on white with the numbers of its ends and its middle.

    Args:
        scale: what the colours stand for.
        width: pixels.
        size: of the numbers, in pixels.
    """
    table, thick = colour_table(scale.name), max(6, round(0.8 * size))
    canvas = Canvas(thick + line_height(size), width)
    across = np.rint(np.linspace(0, len(table) - 1, width)).astype(np.intp)
    canvas.paste(np.broadcast_to(table[across], (thick, width, 3)), 0, 0)
    texts = _numbers(scale)
    widths = [text_width(text, size) for text in texts]
    if sum(widths) + 2 * size > width:
        texts[1], widths[1] = "", 0
    for text, wide, place in zip(texts, widths, (0.0, 0.5, 1.0)):
        canvas.text((width - wide) * place, thick, text, size, FAINT)
    return canvas.picture()


def _numbers(scale: Scale) -> list[str]:
    middle = (scale.low + scale.high) / 2
    spread = max(abs(scale.low), abs(scale.high))
    # Rounding leaves a zero in the middle of a signed scale.
    values = (scale.low, 0.0 if abs(middle) < 1e-9 * spread else middle, scale.high)
    unit = f" {scale.unit}" if scale.unit else ""
    return [f"{_number(value)}{unit}" for value in values]


def _number(value: float) -> str:
    text = f"{value:.0f}" if 1000 <= abs(value) < 1e6 else f"{value:.3g}"
    return text.replace("-", "−")


def _plane(values: Any) -> np.ndarray:
    plane = np.asarray(values)
    if plane.ndim != 2 or plane.dtype.kind not in "buif" or not plane.size:
        raise ConfigError(f"Expected numbers (h, w), got {plane.dtype} {plane.shape}.")
    return plane if plane.dtype.kind == "f" else plane.astype(np.float64)
