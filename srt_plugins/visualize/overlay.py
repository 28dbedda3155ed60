"""Predictions drawn over images: classes, depth, instances, and where two predictions differ."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import ConfigError
from .colours import Scale, heat, shared_range, signed, signed_limit
from .instances import instances
from .legend import Key
from .pictures import resize_nearest
from .tints import IGNORED, borders, called, class_colours, mixed

__all__ = [
    "BOTH_WRONG",
    "CHANGED",
    "GAINED",
    "IGNORED",
    "LOST",
    "Change",
    "Depths",
    "against_truth",
    "changed",
    "classes",
    "depth",
    "depths",
    "difference",
    "fitted",
    "instances",
    "key_of",
    "pale",
]

# Of Okabe and Ito: green and vermilion stay apart for the colour-blind by their lightness.
GAINED, LOST, BOTH_WRONG = (0, 158, 115), (213, 94, 0), (240, 228, 66)
CHANGED = (204, 40, 160)
# Of classes that a legend sums up; no class has it.
REST = (255, 255, 255)


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
    colours = class_colours(palette, labels)
    known = (labels >= 0) & (labels < len(colours))
    # A class's colour at its borders: thin things stay visible.
    weight = np.where(known, np.where(borders(labels), 256, round(256 * alpha)), 0)
    tint = colours[np.where(known, labels, 0)]
    return mixed(image, tint, weight.astype(np.uint16)[..., None])


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
    colours = class_colours(palette, flat)
    flat = flat[(flat >= 0) & (flat < len(colours))]
    counts = np.bincount(flat, minlength=1)
    order = [int(i) for i in np.argsort(-counts, kind="stable") if counts[i]]
    entries = [(called(i, names), colours[i].tolist()) for i in order]
    if len(entries) > most:
        entries = [*entries[: most - 1], (f"{len(entries) - most + 1} more", REST)]
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
        colours = class_colours(palette, after)
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


def depths(
    before: np.ndarray,
    after: np.ndarray,
    unit: str = "m",
    within: tuple[float, float] | None = None,
    limit: float | None = None,
    name: str = "magma_r",
) -> Depths:
    """Depth before and after ``(h, w)`` in one range, and after minus before.

    Args:
        before: any real dtype; what is not finite is grey.
        after: the same.
        unit: behind the numbers of the scales.
        within: least and most that is told apart; None = the range of both.
        limit: magnitude of the outermost colours of the difference; None = as it has it.
        name: matplotlib's name of the colour map.

    Raises:
        ConfigError: they differ in size.
    """
    low, high = within or shared_range(before, after)
    apart, limit = difference(before, after, limit)
    return Depths(
        depth(before, low, high, name),
        depth(after, low, high, name),
        apart,
        Scale(low, high, name, unit),
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
