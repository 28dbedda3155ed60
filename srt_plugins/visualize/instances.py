"""Objects drawn over images: boxes, masks, classes and scores."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..errors import ConfigError
from .pictures import resize_nearest
from .text import Canvas, line_height, text_width
from .tints import called, class_colours, mixed


def instances(
    image: np.ndarray,
    boxes: np.ndarray,
    labels: Sequence[int] | np.ndarray,
    scores: Sequence[float] | np.ndarray | None = None,
    names: Sequence[str] | None = None,
    masks: np.ndarray | None = None,
    palette: Any = None,
    alpha: float = 0.5,
) -> np.ndarray:
    """Objects with their class and score, the surest on top.

    Args:
        image: ``(H, W, 3)`` uint8.
        boxes: ``(N, 4)`` of left, top, right, bottom in pixels.
        labels: ``(N,)`` class ids.
        scores: ``(N,)``; None = not shown.
        names: of all classes; ids beyond them are called by number.
        masks: ``(N, h, w)`` bool, brought to the image's size by nearest neighbour.
        palette: ``(n, 3)`` colours of the classes; None = distinct ones.
        alpha: share of the tint of masks, 0..1.

    Raises:
        ConfigError: arrays that do not go together.
    """
    boxes, labels = np.asarray(boxes, np.float64), np.asarray(labels, np.int64)
    boxes = boxes.reshape(-1, 4) if not boxes.size else boxes
    count = len(boxes)
    lengths = {"labels": labels, "scores": scores, "masks": masks}
    for name, value in lengths.items():
        if value is not None and len(value) != count:
            raise ConfigError(f"Expected {name} for each of {count} boxes, got {len(value)}.")
    if boxes.ndim != 2 or boxes.shape[1] != 4:
        raise ConfigError(f"Expected boxes (N, 4), got {boxes.shape}.")
    colours = class_colours(palette, labels)
    order = range(count) if scores is None else np.argsort(np.asarray(scores), kind="stable")
    picture = image
    shades = {int(i): colours[labels[i] % len(colours)] for i in order}
    if masks is not None and count:
        picture = _masks(image, masks, [int(i) for i in order], shades, alpha)
    canvas = Canvas(picture)
    size = max(11, min(28, round(max(image.shape[:2]) / 55)))
    drawn = [int(i) for i in order if np.isfinite(boxes[i]).all()]
    for i in drawn:
        _box(canvas, boxes[i], shades[i], max(1, round(size / 7)), image.shape)
    taken: list[tuple[float, float, float, float]] = []
    tags = []
    # The surest get their place first and are drawn last.
    for i in reversed(drawn):
        name = called(int(labels[i]), names)
        text = name if scores is None else f"{name} {float(scores[i]):.2f}"
        tags.append((_place(text, boxes[i], size, image.shape, taken), text, shades[i]))
    for place, text, shade in reversed(tags):
        canvas.draw.rectangle(place, tuple(shade.tolist()))
        canvas.text(place[0] + size // 4, place[1], text, size, _readable(shade))
    return canvas.picture()


def _masks(
    image: np.ndarray, masks: np.ndarray, order: list[int], shades: Any, alpha: float
) -> np.ndarray:
    picture = image.copy()
    for i in order:
        mask = np.asarray(masks[i]).astype(bool, copy=False)
        if mask.shape != image.shape[:2]:
            mask = resize_nearest(mask, image.shape[:2])
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        if not len(rows):
            continue
        # Only where the object is: there may be a hundred of them.
        part = np.s_[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        inside = mask[part]
        weight = np.where(inside, np.where(_rim(inside), 256, round(256 * alpha)), 0)
        picture[part] = mixed(picture[part], shades[i], weight.astype(np.uint16)[..., None])
    return picture


def _rim(mask: np.ndarray) -> np.ndarray:
    """Pixels of the mask beside one that is not in it."""
    around = np.pad(mask, 1)
    core = around[:-2, 1:-1] & around[2:, 1:-1] & around[1:-1, :-2] & around[1:-1, 2:]
    return mask & ~core


def _box(canvas: Canvas, box: np.ndarray, shade: np.ndarray, thick: int, shape: Any) -> None:
    left, top = np.clip(box[:2], 0, [shape[1] - 1, shape[0] - 1])
    right, bottom = np.clip(box[2:], [left, top], [shape[1] - 1, shape[0] - 1])
    corners = [round(float(v)) for v in (left, top, right, bottom)]
    canvas.draw.rectangle(corners, outline=tuple(shade.tolist()), width=thick)


def _place(text: str, box: np.ndarray, size: int, shape: Any, taken: list[Any]) -> Any:
    """A free rectangle for the text: above the box, inside its top, below it, or lower down."""
    wide, high = text_width(text, size) + size // 2, line_height(size)
    left = float(np.clip(box[0], 0, max(0, shape[1] - wide)))
    tops = [box[1] - high, box[1], box[3], *(box[1] + n * high for n in range(1, 6))]
    places = []
    for top in tops:
        top = float(np.clip(top, 0, max(0, shape[0] - high)))
        places.append((left, top, left + wide, top + high))
    free = [p for p in places if not any(_overlap(p, other) for other in taken)]
    place = (free or places)[0]
    taken.append(place)
    return place


def _overlap(one: Any, other: Any) -> bool:
    across = min(one[2], other[2]) - max(one[0], other[0])
    down = min(one[3], other[3]) - max(one[1], other[1])
    return across > 0 and down > 0


def _readable(shade: np.ndarray) -> tuple[int, int, int]:
    luma = float(np.dot(shade, (0.299, 0.587, 0.114)))
    return (0, 0, 0) if luma > 140 else (255, 255, 255)
