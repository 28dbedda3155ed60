"""Predictions drawn over images: classes, depth, instances, and where two predictions differ."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import ConfigError
from .colours import Scale, heat, shared_range, signed, signed_limit
from .colours import palette as distinct
from .panels import Key, resize_nearest
from .text import Canvas, line_height, text_width

IGNORED = 255
"""Label of what belongs to no class, in label maps of eight bits."""

# Of Okabe and Ito: green and vermilion stay apart for the colour-blind by their lightness.
GAINED, LOST, BOTH_WRONG = (0, 158, 115), (213, 94, 0), (240, 228, 66)
CHANGED = (204, 40, 160)


def classes(
    image: np.ndarray, labels: np.ndarray, palette: Any = None, alpha: float = 0.6
) -> np.ndarray:
    """An image ``(H, W, 3)`` tinted by class.

    Args:
        image: uint8 RGB.
        labels: class ids ``(h, w)`` of any integer dtype, brought to the image's size by nearest
            neighbour. Ids without a colour, such as 255, leave the image as it is.
        palette: ``(n, 3)`` colours; None = distinct ones.
        alpha: share of the tint, 0..1.

    Raises:
        ConfigError: labels that are not integers ``(h, w)``, or alpha beyond 0..1.
    """
    labels = fitted(labels, image)
    if not 0 <= alpha <= 1:
        raise ConfigError(f"Expected alpha within 0..1, got {alpha}.")
    colours = _palette(palette, labels)
    known = (labels >= 0) & (labels < len(colours))
    # A class's colour at its borders: thin things stay visible.
    weight = np.where(known, np.where(_borders(labels), 256, round(256 * alpha)), 0)
    tint = colours[np.where(known, labels, 0)]
    return _mixed(image, tint, weight.astype(np.uint16)[..., None])


def key_of(
    labels: np.ndarray | Sequence[np.ndarray],
    names: Sequence[str] | None,
    palette: Any = None,
    most: int = 24,
) -> Key:
    """The legend of the classes that are there, largest first.

    Args:
        labels: one or several label maps.
        names: of all classes; ids beyond them are called by number.
        palette: ``(n, 3)`` colours; None = distinct ones, as for :func:`classes`.
        most: entries; smaller classes are summed up as one entry without a colour of their own.
    """
    maps = [labels] if isinstance(labels, np.ndarray) else list(labels)
    flat = np.concatenate([np.asarray(m).reshape(-1) for m in maps])
    colours = _palette(palette, flat)
    flat = flat[(flat >= 0) & (flat < len(colours))]
    counts = np.bincount(flat, minlength=1)
    order = [int(i) for i in np.argsort(-counts, kind="stable") if counts[i]]
    entries = [(_called(i, names), colours[i].tolist()) for i in order]
    if len(entries) > most:
        entries = [*entries[: most - 1], (f"{len(entries) - most + 1} more", (255, 255, 255))]
    return Key(tuple(entries))


@dataclass(frozen=True)
class Change:
    """Where two label maps differ, and which is right; shares are of the pixels that count, 0..1.

    Args:
        picture: ``(H, W, 3)`` uint8.
        gained: share that became right.
        lost: share that became wrong.
        both_wrong: share that changed from one wrong class to another.
        key: legend of the colours.
    """

    picture: np.ndarray
    gained: float
    lost: float
    both_wrong: float
    key: Key

    @property
    def share(self) -> float:
        """Share that changed."""
        return self.gained + self.lost + self.both_wrong


def changed(
    image: np.ndarray, before: np.ndarray, after: np.ndarray, palette: Any = None
) -> tuple[np.ndarray, float]:
    """Where the labels differ, over the pale image, and their share of the pixels, 0..1.

    Args:
        image: ``(H, W, 3)`` uint8.
        before: class ids ``(h, w)``, brought to the image's size by nearest neighbour.
        after: the same for the other prediction.
        palette: ``(n, 3)`` colours of ``after``'s classes; None = one colour, ``CHANGED``.
    """
    before, after = fitted(before, image), fitted(after, image)
    differ = before != after
    picture = pale(image)
    picture[differ] = CHANGED
    if palette is not None:
        colours = _palette(palette, after)
        known = differ & (after >= 0) & (after < len(colours))
        picture[known] = colours[after[known]]
    return picture, float(differ.mean())


def against_truth(
    image: np.ndarray,
    before: np.ndarray,
    after: np.ndarray,
    truth: np.ndarray,
    ignored: int = IGNORED,
) -> Change:
    """Where the labels differ, over the pale image, coloured by which of them is right.

    Args:
        image: ``(H, W, 3)`` uint8.
        before: class ids ``(h, w)``, brought to the image's size by nearest neighbour.
        after: the same for the other prediction.
        truth: the same for the true classes.
        ignored: true class of pixels that do not count.
    """
    before, after = fitted(before, image), fitted(after, image)
    truth = fitted(truth, image)
    differ = before != after
    picture = pale(image)
    counted = truth != ignored
    kinds = (
        ("wrong to right", GAINED, differ & (after == truth)),
        ("right to wrong", LOST, differ & (before == truth)),
        ("wrong to wrong", BOTH_WRONG, differ & (before != truth) & (after != truth)),
    )
    shares = []
    for _, colour, where in kinds:
        where &= counted
        picture[where] = colour
        shares.append(float(where.sum() / max(1, counted.sum())))
    key = Key(tuple((name, colour) for name, colour, _ in kinds))
    return Change(picture, shares[0], shares[1], shares[2], key)


@dataclass(frozen=True)
class Depths:
    """Two depth maps in one range of colours, and their difference.

    Args:
        before: ``(H, W, 3)`` uint8.
        after: the same, in the same colours.
        difference: after minus before.
        scale: of ``before`` and ``after``.
        signed_scale: of ``difference``.
    """

    before: np.ndarray
    after: np.ndarray
    difference: np.ndarray
    scale: Scale
    signed_scale: Scale


def depth(
    values: np.ndarray, low: float | None = None, high: float | None = None, name: str = "magma_r"
) -> np.ndarray:
    """Depth ``(h, w)`` as colours ``(h, w, 3)``: near is bright; what is not finite is grey."""
    return heat(values, low, high, name)


def depths(before: np.ndarray, after: np.ndarray, unit: str = "m") -> Depths:
    """Depth before and after ``(h, w)`` in one range, and after minus before.

    Raises:
        ConfigError: they differ in size.
    """
    low, high = shared_range(before, after)
    apart, limit = difference(before, after)
    return Depths(
        depth(before, low, high),
        depth(after, low, high),
        apart,
        Scale(low, high, "magma_r", unit),
        Scale(-limit, limit, "RdBu_r", unit),
    )


def difference(
    before: np.ndarray, after: np.ndarray, limit: float | None = None
) -> tuple[np.ndarray, float]:
    """After minus before ``(h, w)`` as colours (red = more, blue = less), and the colours' limit.

    Raises:
        ConfigError: they differ in size.
    """
    if np.shape(before) != np.shape(after):
        raise ConfigError(
            f"Expected before and after of one size, got {np.shape(before)} and {np.shape(after)}."
        )
    with np.errstate(invalid="ignore"):
        apart = np.asarray(after, np.float64) - np.asarray(before, np.float64)
    limit = signed_limit(apart) if limit is None else limit
    return signed(apart, limit), limit


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
    colours = _palette(palette, labels)
    order = range(count) if scores is None else np.argsort(np.asarray(scores), kind="stable")
    picture = image
    shades = {int(i): colours[labels[i] % len(colours)] for i in order}
    if masks is not None and count:
        picture = _masks(image, masks, [int(i) for i in order], shades, alpha)
    canvas = Canvas(picture)
    size = max(11, min(28, round(max(image.shape[:2]) / 45)))
    drawn = [int(i) for i in order if np.isfinite(boxes[i]).all()]
    for i in drawn:
        _box(canvas, boxes[i], shades[i], max(1, round(size / 7)), image.shape)
    taken: list[tuple[float, float, float, float]] = []
    tags = []
    # The surest get their place first and are drawn last.
    for i in reversed(drawn):
        name = _called(int(labels[i]), names)
        text = name if scores is None else f"{name} {float(scores[i]):.2f}"
        tags.append((_place(text, boxes[i], size, image.shape, taken), text, shades[i]))
    for place, text, shade in reversed(tags):
        canvas.draw.rectangle(place, tuple(shade.tolist()))
        canvas.text(place[0] + size // 4, place[1], text, size, _readable(shade))
    return canvas.picture()


def marked(image: np.ndarray, point: tuple[int, int]) -> np.ndarray:
    """The image with a mark around a pixel ``(y, x)``, which itself stays as it is."""
    canvas = Canvas(image)
    y, x = (float(v) for v in point)
    radius = max(4.0, max(image.shape[:2]) / 60)
    thick = max(1, round(radius / 4))
    for colour, wider in (((0, 0, 0), thick), ((255, 255, 255), 0)):
        for dy, dx in ((0, 1), (0, -1), (1, 0), (-1, 0)):
            ends = [(x + dx * r, y + dy * r) for r in (0.6 * radius, 1.9 * radius)]
            canvas.draw.line(ends, colour, thick + 2 * wider)
        outer = radius + wider / 2
        canvas.draw.ellipse(
            (x - outer, y - outer, x + outer, y + outer), outline=colour, width=thick + wider
        )
    return canvas.picture()


def _called(label: int, names: Sequence[str] | None) -> str:
    return str(names[label]) if names and 0 <= label < len(names) else f"class {label}"


def _masks(
    image: np.ndarray, masks: np.ndarray, order: list[int], shades: Any, alpha: float
) -> np.ndarray:
    picture = image
    for i in order:
        mask = np.asarray(masks[i]).astype(bool)
        if mask.shape != image.shape[:2]:
            mask = resize_nearest(mask, image.shape[:2])
        if not mask.any():
            continue
        weight = np.where(mask, np.where(_borders(mask), 256, round(256 * alpha)), 0)
        picture = _mixed(picture, shades[i], weight.astype(np.uint16)[..., None])
    return picture


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


def pale(image: np.ndarray) -> np.ndarray:
    """The image in light grey, on which colours stand out."""
    grey = image.astype(np.uint16) @ np.array([77, 150, 29], np.uint16) >> 8
    return np.repeat((150 + grey * 100 // 255).astype(np.uint8)[..., None], 3, axis=-1)


def fitted(labels: np.ndarray, image: np.ndarray) -> np.ndarray:
    """Labels ``(h, w)`` at the image's size, by nearest neighbour, as int64.

    Raises:
        ConfigError: not integers ``(h, w)``.
    """
    labels = np.asarray(labels)
    if labels.ndim != 2 or labels.dtype.kind not in "bui" or not labels.size:
        raise ConfigError(
            f"Expected class ids (H, W) of integers, got {labels.dtype} {labels.shape}."
        )
    if labels.shape != image.shape[:2]:
        labels = resize_nearest(labels, image.shape[:2])
    return labels.astype(np.int64)


def _palette(palette: Any, labels: np.ndarray) -> np.ndarray:
    if palette is None:
        within = labels[(labels >= 0) & (labels != IGNORED)]
        return distinct(int(within.max()) + 1 if within.size else 1)
    colours = np.asarray(palette, np.uint8)
    if colours.ndim != 2 or colours.shape[1] != 3 or not len(colours):
        raise ConfigError(f"Expected a palette (n, 3), got {colours.shape}.")
    return colours


def _borders(labels: np.ndarray) -> np.ndarray:
    """Pixels whose right or lower neighbour has another label."""
    edge = np.zeros(labels.shape, bool)
    edge[:, :-1] |= labels[:, :-1] != labels[:, 1:]
    edge[:-1] |= labels[:-1] != labels[1:]
    return edge


def _mixed(image: np.ndarray, tint: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """``weight`` / 256 of the tint in the image."""
    mixed = image * (256 - weight) + tint.astype(np.uint16) * weight + 128
    return (mixed >> 8).astype(np.uint8)
