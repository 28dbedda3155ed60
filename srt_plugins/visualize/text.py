"""Text in pictures: one scalable font, its measures, and text that is fitted to a width."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from .needs import pillow

INK = (32, 32, 32)
FAINT = (105, 105, 105)
WHITE = (255, 255, 255)


@lru_cache(maxsize=64)
def font(size: int, bold: bool = False) -> Any:
    """DejaVu Sans as matplotlib has it, else Pillow's own font; ``size`` in pixels."""
    pillow()
    from PIL import ImageFont

    try:
        import matplotlib
    except ImportError:
        return ImageFont.load_default(size)
    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    return ImageFont.truetype(str(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / name), size)


def line_height(size: int) -> int:
    """Pixels from one line to the next."""
    return round(1.35 * size)


def text_width(text: str, size: int, bold: bool = False) -> int:
    """Pixels that a line takes."""
    return int(np.ceil(font(size, bold).getlength(text)))


def shortened(text: str, size: int, width: float, bold: bool = False) -> str:
    """``text`` on one line, cut with an ellipsis if it is wider than ``width`` pixels."""
    text = " ".join(text.split())
    if text_width(text, size, bold) <= width:
        return text
    low, high = 0, len(text)
    while low < high:
        middle = (low + high + 1) // 2
        fits = text_width(text[:middle].rstrip() + "…", size, bold) <= width
        low, high = (middle, high) if fits else (low, middle - 1)
    return text[:low].rstrip() + "…" if low else ""


def wrapped(text: str, size: int, width: float, most: int) -> list[str]:
    """``text`` in at most ``most`` lines of ``width`` pixels, the last one cut if need be."""
    words = text.split()
    lines: list[str] = []
    while words and len(lines) < most - 1:
        n = len(words)
        while n > 1 and text_width(" ".join(words[:n]), size) > width:
            n -= 1
        lines.append(shortened(" ".join(words[:n]), size, width))
        words = words[n:]
    return [*lines, shortened(" ".join(words), size, width)] if words else lines


class Canvas:
    """A white picture, or a copy of one, to write and draw on.

    Args:
        height: in pixels, or the picture ``(H, W, 3)`` uint8 itself.
        width: in pixels.
    """

    def __init__(self, height: int | np.ndarray, width: int = 0) -> None:
        Image = pillow()
        from PIL import ImageDraw

        if isinstance(height, np.ndarray):
            self._image = Image.fromarray(height)
        else:
            self._image = Image.new("RGB", (max(1, width), max(1, height)), WHITE)
        self.draw = ImageDraw.Draw(self._image)

    def text(
        self,
        left: float,
        top: float,
        text: str,
        size: int,
        colour: tuple[int, int, int] = INK,
        bold: bool = False,
    ) -> None:
        """One line whose upper left corner is at (top, left)."""
        baseline = top + (line_height(size) + 0.72 * size) / 2
        self.draw.text((left, baseline), text, colour, font(size, bold), anchor="ls")

    def paste(self, picture: np.ndarray, left: int, top: int) -> None:
        """Put a picture at (top, left)."""
        self._image.paste(pillow().fromarray(np.ascontiguousarray(picture)), (left, top))

    def picture(self) -> np.ndarray:
        """What was drawn, ``(H, W, 3)`` uint8."""
        return np.array(self._image)
