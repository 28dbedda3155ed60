"""Colours of classes in pictures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..errors import ConfigError
from .colours import palette as distinct

IGNORED = 255
"""Label of what belongs to no class, in label maps of eight bits."""


def called(label: int, names: Sequence[str] | None) -> str:
    """The name of a class, or its number where it has none."""
    return str(names[label]) if names and 0 <= label < len(names) else f"class {label}"


def class_colours(palette: Any, labels: np.ndarray) -> np.ndarray:
    """The palette ``(n, 3)`` uint8; None = distinct colours for all that are in ``labels``.

    Raises:
        ConfigError: a palette of another shape.
    """
    if palette is None:
        within = labels[(labels >= 0) & (labels != IGNORED)]
        return distinct(int(within.max()) + 1 if within.size else 1)
    colours = np.asarray(palette, np.uint8)
    if colours.ndim != 2 or colours.shape[1] != 3 or not len(colours):
        raise ConfigError(f"Expected a palette (n, 3), got {colours.shape}.")
    return colours


def borders(labels: np.ndarray) -> np.ndarray:
    """Pixels whose right or lower neighbour has another label."""
    edge = np.zeros(labels.shape, bool)
    edge[:, :-1] |= labels[:, :-1] != labels[:, 1:]
    edge[:-1] |= labels[:-1] != labels[1:]
    return edge


def mixed(image: np.ndarray, tint: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """``weight`` / 256 of the tint in the image."""
    sums = image * (256 - weight) + tint.astype(np.uint16) * weight + 128
    return (sums >> 8).astype(np.uint8)
