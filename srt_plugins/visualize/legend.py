"""Legends: what each colour means."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .text import Canvas, line_height, shortened, text_width


@dataclass(frozen=True)
class Key:
    """A legend: what each colour means.

    Args:
        entries: names and RGB colours, in their order.
        title: before the first entry.
    """

    entries: Sequence[tuple[str, Sequence[int]]] = ()
    title: str = ""


def legend(key: Key, width: int, size: int = 14) -> np.ndarray:
    """The entries of a legend in as many lines as they need, ``(H, width, 3)`` uint8 on white.

    Args:
        key: names and colours.
        width: pixels.
        size: of the text, in pixels.
    """
    line, swatch = round(1.15 * line_height(size)), round(0.9 * size)
    spots: list[tuple[int, int, str, Any]] = []
    left = text_width(key.title, size, bold=True) + size if key.title else 0
    row = 0
    for name, colour in key.entries:
        name = shortened(name, size, width - 1.5 * swatch)
        wide = round(1.5 * swatch) + text_width(name, size)
        if left and left + wide > width:
            left, row = 0, row + 1
        spots.append((left, row, name, tuple(int(c) for c in colour)))
        left += wide + round(1.2 * size)
    canvas = Canvas((row + 1) * line, width)
    if key.title:
        canvas.text(0, (line - line_height(size)) / 2, key.title, size, bold=True)
    for left, row, name, colour in spots:
        top = row * line + (line - swatch) // 2
        canvas.draw.rectangle(
            (left, top, left + swatch - 1, top + swatch - 1), colour, outline=(120, 120, 120)
        )
        where = row * line + (line - line_height(size)) / 2
        canvas.text(left + round(1.5 * swatch), where, name, size)
    return canvas.picture()
