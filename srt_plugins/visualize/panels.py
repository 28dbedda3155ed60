"""Pictures side by side with captions, contact sheets, resizing, and saving."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..errors import ConfigError
from .colours import Scale, bar
from .legend import Key, legend
from .pictures import resize_nearest, resize_smooth, save_picture, size_of, whole
from .text import FAINT, INK, Canvas, line_height, shortened, wrapped

__all__ = [
    "MOST_WIDTH",
    "Key",
    "Panel",
    "legend",
    "resize_nearest",
    "resize_smooth",
    "save_picture",
    "sheet",
    "strip",
]

Colour = tuple[int, int, int]

MOST_WIDTH = 2400
"""Pixels that a strip is wide at most if no width is given."""

_LOWEST, _HIGHEST = 240, 1000
_NARROWEST = 96
# Enlarged pictures are so many times as high as their column is wide, at most.
_TALLEST = 3
_NOTE_LINES = 3
# Pictures that are enlarged so many times or more keep their pixels.
_COARSE = 3


@dataclass(frozen=True)
class Panel:
    """A picture with its captions.

    Args:
        picture: ``(H, W, 3)`` uint8 RGB.
        title: above it, one line.
        note: below it, up to three lines.
        scale: what its colours stand for: gives it a colour bar.
    """

    picture: np.ndarray
    title: str = ""
    note: str = ""
    scale: Scale | None = None


def strip(
    panels: Sequence[Panel],
    width: int | None = None,
    columns: int | None = None,
    key: Key | None = None,
    title: str = "",
) -> np.ndarray:
    """Panels side by side, all of one height, ``(H, W, 3)`` uint8 on white.

    Args:
        panels: pictures of any sizes.
        width: pixels in all, which pictures are shrunk or enlarged to; None = as the highest
            picture has it, at most ``MOST_WIDTH``.
        columns: so many in a row; None = all.
        key: a legend below them.
        title: above all.

    Raises:
        ConfigError: no panels, a picture that is not RGB, or a width or columns below one.
    """
    if not panels:
        raise ConfigError("Expected panels to draw, got none.")
    columns = len(panels) if columns is None else min(whole("columns", columns), len(panels))
    rows = [list(panels[i : i + columns]) for i in range(0, len(panels), columns)]
    return _drawn(rows, _Header(title=title), width, key)


def sheet(
    rows: Sequence[Sequence[Panel]],
    width: int | None = None,
    header: Sequence[str] | None = None,
    labels: Sequence[str] | None = None,
    key: Key | None = None,
    title: str = "",
) -> np.ndarray:
    """A contact sheet: a row for each image under one header, ``(H, W, 3)`` uint8 on white.

    Args:
        rows: panels of each row; rows may be of different lengths.
        width: pixels in all; None as for :func:`strip`.
        header: titles of the columns; None = those of the longest row.
        labels: a line above each row, such as the file's name.
        key: a legend below.
        title: above all.

    Raises:
        ConfigError: as for :func:`strip`, or not a label for each row.
    """
    rows = [list(row) for row in rows]
    if not any(rows):
        raise ConfigError("Expected rows of panels to draw, got none.")
    if labels is not None and len(labels) != len(rows):
        raise ConfigError(f"Expected a label for each of {len(rows)} rows, got {len(labels)}.")
    longest = max(rows, key=len)
    titles = list(header) if header is not None else [panel.title for panel in longest]
    titles = (titles + [""] * len(longest))[: len(longest)]
    return _drawn(rows, _Header(title, titles, list(labels or [])), width, key)


@dataclass(frozen=True)
class _Header:
    title: str = ""
    columns: Sequence[str] | None = None
    labels: Sequence[str] = ()


@dataclass(frozen=True)
class _Layout:
    """Sizes in pixels: of text, of the gaps, of the columns, and of each picture."""

    text: int
    gap: int
    columns: list[int]
    sizes: list[list[tuple[int, int]]]

    @property
    def width(self) -> int:
        return sum(self.columns) + self.gap * (len(self.columns) + 1)


def _layout(rows: Sequence[Sequence[Panel]], width: int | None) -> _Layout:
    """Every picture of a row gets one height, and every row of one shape of picture too."""
    count = max(map(len, rows))
    shapes = [[size_of(panel.picture, panel.title) for panel in row] for row in rows]
    # Width over height of the widest picture of each column sets the columns.
    ratios = [max(r[i][1] / r[i][0] for r in shapes if i < len(r)) for i in range(count)]
    tallest = max(h for row in shapes for h, _ in row)
    height = float(min(max(tallest, _LOWEST), _HIGHEST))
    most = MOST_WIDTH if width is None else whole("width", width)
    text = min(28, max(13, round(min(most, sum(ratios) * height) / 95)))
    gap = max(8, round(0.7 * text))
    room = max(count * 8, most - gap * (count + 1))
    if width is not None or sum(max(_NARROWEST, height * r) for r in ratios) > room:
        # A picture of a few columns of pixels would become a tower of them.
        height = min(_fitting(ratios, room), max(tallest, _TALLEST * room / count))
    columns = [max(_least(room, count), round(height * ratio)) for ratio in ratios]
    if width is not None:
        # Rounding, and columns at their least width: the last one takes what is left.
        columns[-1] = max(8, columns[-1] + room - sum(columns))
    sizes = [[_fit(shape, height, columns[i]) for i, shape in enumerate(row)] for row in shapes]
    return _Layout(text, gap, columns, sizes)


def _least(room: float, count: int) -> int:
    return int(min(_NARROWEST, room / count))


def _fitting(ratios: Sequence[float], room: float) -> float:
    """The height at which columns, none narrower than the least, fill the room."""
    least = _least(room, len(ratios))
    low, high = 0.0, room / max(ratios)
    for _ in range(50):
        middle = (low + high) / 2
        fits = sum(max(least, middle * r) for r in ratios) <= room
        low, high = (middle, high) if fits else (low, middle)
    return low


def _fit(shape: tuple[int, int], height: float, width: int) -> tuple[int, int]:
    factor = min(height / shape[0], width / shape[1])
    return max(1, round(shape[0] * factor)), max(1, min(width, round(shape[1] * factor)))


def _drawn(
    rows: Sequence[Sequence[Panel]], header: _Header, width: int | None, key: Key | None
) -> np.ndarray:
    layout = _layout(rows, width)
    text, gap = layout.text, layout.gap
    line, small = line_height(text), max(12, round(0.85 * text))
    blocks: list[np.ndarray] = []
    if header.title:
        blocks.append(_line(header.title, layout.width - 2 * gap, round(1.2 * text), bold=True))
    if header.columns is not None:
        canvas = Canvas(line, layout.width - 2 * gap)
        for title, (left, wide) in zip(header.columns, _places(layout)):
            canvas.text(left, 0, shortened(title, text, wide, bold=True), text, bold=True)
        blocks.append(canvas.picture())
    for i, row in enumerate(rows):
        cells = [
            _cell(panel, size, wide, text, small, titled=header.columns is None)
            for panel, size, (_, wide) in zip(row, layout.sizes[i], _places(layout))
        ]
        block = _beside(_aligned(cells), _places(layout), layout.width - 2 * gap)
        if i < len(header.labels):
            label = _line(header.labels[i], block.shape[1], small, FAINT)
            block = np.concatenate([label, block])
        blocks.append(block)
    if key is not None and key.entries:
        blocks.append(legend(key, layout.width - 2 * gap, text))
    return _stacked(blocks, gap, layout.width)


def _places(layout: _Layout) -> list[tuple[int, int]]:
    """Left edge, without the margin, and width of each column."""
    lefts = [sum(layout.columns[:i]) + i * layout.gap for i in range(len(layout.columns))]
    return list(zip(lefts, layout.columns))


def _line(text: str, width: int, size: int, colour: Colour = INK, bold: bool = False) -> np.ndarray:
    canvas = Canvas(line_height(size), width)
    canvas.text(0, 0, shortened(text, size, width, bold), size, colour, bold)
    return canvas.picture()


def _cell(
    panel: Panel, size: tuple[int, int], width: int, text: int, small: int, titled: bool
) -> tuple[np.ndarray | None, np.ndarray, np.ndarray | None]:
    """Title, picture, and what is below it, at the left of the column."""
    above = _line(panel.title, width, text, bold=True) if titled and panel.title else None
    # Smooth edges between a few large pixels would look like more than there is.
    coarse = size[0] >= _COARSE * panel.picture.shape[0]
    picture = (resize_nearest if coarse else resize_smooth)(panel.picture, size)
    framed = np.full((size[0], width, 3), 255, np.uint8)
    framed[:, : size[1]] = picture
    below = []
    if panel.scale is not None:
        wide = size[1] if size[1] >= _NARROWEST else width
        below.append(
            np.pad(bar(panel.scale, wide, small), _right(width - wide), constant_values=255)
        )
    lines = wrapped(panel.note, small, width, _NOTE_LINES)
    below += [_line(line, width, small, FAINT) for line in lines]
    return above, framed, np.concatenate(below) if below else None


def _right(pixels: int) -> tuple[tuple[int, int], ...]:
    return (0, 0), (0, pixels), (0, 0)


def _aligned(
    cells: Sequence[tuple[np.ndarray | None, np.ndarray, np.ndarray | None]],
) -> list[np.ndarray]:
    """Cells of one height, their pictures in one line."""
    heights = [max(0 if part is None else len(part) for part in parts) for parts in zip(*cells)]
    gaps = (0, 0, max(3, heights[2] // 12) if heights[2] else 0)
    out = []
    for cell in cells:
        parts = []
        for k, part in enumerate(cell):
            wide = cell[1].shape[1]
            block = np.full((heights[k] + gaps[k], wide, 3), 255, np.uint8)
            if part is not None:
                block[gaps[k] : gaps[k] + len(part)] = part
            parts.append(block)
        out.append(np.concatenate(parts))
    return out


def _beside(
    cells: Sequence[np.ndarray], places: Sequence[tuple[int, int]], width: int
) -> np.ndarray:
    row = np.full((max(map(len, cells), default=1), width, 3), 255, np.uint8)
    for cell, (left, wide) in zip(cells, places):
        row[: len(cell), left : left + wide] = cell
    return row


def _stacked(blocks: Sequence[np.ndarray], gap: int, width: int) -> np.ndarray:
    height = sum(map(len, blocks)) + gap * (len(blocks) + 1)
    page = np.full((height, width, 3), 255, np.uint8)
    top = gap
    for block in blocks:
        page[top : top + len(block), gap : gap + block.shape[1]] = block
        top += len(block) + gap
    return page
