"""Pictures side by side with captions, contact sheets, resizing, and saving."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import ConfigError, nearest
from ..evaluation.files import replacing
from .colours import Scale, bar
from .images import pillow
from .text import FAINT, INK, Canvas, line_height, shortened, text_width, wrapped

Colour = tuple[int, int, int]

MOST_WIDTH = 2400
"""Pixels that a strip is wide at most if no width is given."""

_LOWEST, _HIGHEST = 240, 1000
_NARROWEST = 96
_NOTE_LINES = 3
_SUFFIXES = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG"}


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


@dataclass(frozen=True)
class Key:
    """A legend: what each colour means.

    Args:
        entries: names and RGB colours, in their order.
        title: before the first entry.
    """

    entries: Sequence[tuple[str, Sequence[int]]] = field(default_factory=tuple)
    title: str = ""


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
    columns = len(panels) if columns is None else min(_whole("columns", columns), len(panels))
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
    shapes = [[_shape(panel) for panel in row] for row in rows]
    # Width over height of the widest picture of each column sets the columns.
    ratios = [max(r[i][1] / r[i][0] for r in shapes if i < len(r)) for i in range(count)]
    tallest = max(h for row in shapes for h, _ in row)
    height = float(min(max(tallest, _LOWEST), _HIGHEST))
    most = MOST_WIDTH if width is None else _whole("width", width)
    text = min(28, max(13, round(min(most, sum(ratios) * height) / 95)))
    gap = max(8, round(0.7 * text))
    room = max(count * 8, most - gap * (count + 1))
    if width is not None or sum(max(_NARROWEST, height * r) for r in ratios) > room:
        height = _fitting(ratios, room)
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
    low, high = 1.0, max(1.0, room / max(ratios))
    for _ in range(40):
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
        if i < len(header.labels):
            blocks.append(_line(header.labels[i], layout.width - 2 * gap, small, FAINT))
        cells = [
            _cell(panel, size, wide, text, small, titled=header.columns is None)
            for panel, size, (_, wide) in zip(row, layout.sizes[i], _places(layout))
        ]
        blocks.append(_beside(_aligned(cells), _places(layout), layout.width - 2 * gap))
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
    """Title, picture, and what is below it; the picture in the middle of its column."""
    above = _line(panel.title, width, text, bold=True) if titled and panel.title else None
    # Enlarged by a whole factor or more, pixels of small pictures stay visible as they are.
    picture = resize_smooth(panel.picture, size)
    framed = np.full((size[0], width, 3), 255, np.uint8)
    left = (width - size[1]) // 2
    framed[:, left : left + size[1]] = picture
    below = []
    if panel.scale is not None:
        below.append(bar(panel.scale, width, small))
    below += [_line(part, width, small, FAINT) for part in wrapped(panel.note, small, width, 3)]
    return above, framed, np.concatenate(below) if below else None


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
                # Pictures of one row end at one line.
                top = heights[k] - len(part) if k < 2 else gaps[k]
                block[top : top + len(part)] = part
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
    height, width = _shape(Panel(picture))
    if kind == "JPEG" and max(height, width) > 65535:
        raise ConfigError(f"Expected at most 65535 pixels a side for JPEG, got {width} x {height}.")
    image = pillow().fromarray(np.ascontiguousarray(picture))
    options = {"quality": quality, "subsampling": 0} if kind == "JPEG" else {"compress_level": 6}
    with replacing(path) as part:
        image.save(part, kind, **options)
    return path


def _shape(panel: Panel) -> tuple[int, int]:
    picture = panel.picture
    good = isinstance(picture, np.ndarray) and picture.dtype == np.uint8 and picture.ndim == 3
    if not good or picture.shape[2] != 3 or not picture.size:
        given = (
            f"{picture.dtype} {picture.shape}"
            if isinstance(picture, np.ndarray)
            else type(picture).__name__
        )
        of = f" of panel {panel.title!r}" if panel.title else ""
        raise ConfigError(f"Expected the picture{of} to be uint8 (H, W, 3), got {given}.")
    return picture.shape[0], picture.shape[1]


def _size(size: tuple[int, int]) -> tuple[int, int]:
    return _whole("height", size[0]), _whole("width", size[1])


def _whole(name: str, value: Any) -> int:
    if isinstance(value, bool) or int(value) != value or value < 1:
        raise ConfigError(f"Expected {name} to be an integer of at least 1, got {value!r}.")
    return int(value)
