"""Files of true depth and of true classes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import ConfigError


@dataclass(frozen=True)
class Reading:
    """How truth is read from files.

    Attributes:
        depth_scale: units of a depth PNG per metre.
        classes: how many classes labels may have.
        ignore_index: label of pixels that are not judged.
        reduce_labels: label 0 is unlabelled and the others are one lower, as the image processors'
            ``do_reduce_labels`` has it.
    """

    depth_scale: float = 1000.0
    classes: int = 0
    ignore_index: int = 255
    reduce_labels: bool = False

    def __post_init__(self) -> None:
        if not self.depth_scale > 0:
            raise ConfigError(
                f"Expected depth_scale to be units per metre, above 0, got {self.depth_scale}."
            )
        if self.reduce_labels and 0 <= self.ignore_index < self.classes:
            raise ConfigError(
                f"Expected ignore_index to be no class, {self.classes} or above, with "
                f"reduce_labels, got {self.ignore_index}: the labels of that class would not be "
                "judged. Leave --ignore-index out; what is 0 before is not judged anyway."
            )

    def depth(self, path: Path) -> np.ndarray:
        """Depth of a file in metres."""
        stored = _read(path)
        if path.suffix == ".npy":
            if stored.dtype.kind != "f":
                raise ConfigError(
                    f"Expected {path} to hold depth in metres as floats, got {stored.dtype}."
                )
            return stored.astype(np.float64)
        return stored.astype(np.float64) / self.depth_scale

    def labels(self, path: Path) -> np.ndarray:
        """Class ids of a file, checked."""
        stored = _read(path).astype(np.int64)
        labels = stored
        if self.reduce_labels:
            labels = np.where(stored == 0, self.ignore_index, stored - 1)
            labels[stored == self.ignore_index] = self.ignore_index
        known = labels[labels != self.ignore_index]
        if known.size and known.max() >= self.classes:
            raise ConfigError(
                f"Expected labels 0 to {self.classes - 1} or ignore_index={self.ignore_index} in "
                f"{path}, as the model's id2label has {self.classes} classes, got {known.max()}; "
                "check --reduce-labels and --ignore-index."
            )
        return labels


def checked_size(image: Path, truth: Path, task: str) -> tuple[int, int]:
    """Height and width of an image, after a look at the head of its truth's file."""
    from PIL import Image

    try:
        with Image.open(image) as opened:
            size = (opened.height, opened.width)
    except OSError as error:
        raise ConfigError(f"Expected {image} to be an image, got: {error}.") from error
    try:
        if truth.suffix == ".npy":
            own: Any = np.load(truth, mmap_mode="r").shape
        else:
            with Image.open(truth) as opened:
                own, mode = (opened.height, opened.width), opened.mode
            _check_mode(truth, mode, task)
    except (OSError, ValueError) as error:
        if isinstance(error, ConfigError):
            raise
        raise ConfigError(f"Expected {truth} to hold a map, got: {error}.") from error
    if own != size:
        raise ConfigError(
            f"Expected {truth} of the size of {image.name}, {size}, got {own} (height, width)."
        )
    return size


def _check_mode(path: Path, mode: str, task: str) -> None:
    if task == "depth" and not mode.startswith("I"):
        raise ConfigError(
            f"Expected {path} to be a 16-bit PNG of depth, got one of Pillow's mode {mode!r}, "
            "which has 8 bits; a coloured or normalised picture of depth holds no metres."
        )
    if task == "semantic" and mode not in ("L", "P"):
        raise ConfigError(
            f"Expected {path} to be an 8-bit PNG of class ids, got one of Pillow's mode {mode!r}; "
            "colours must be turned into ids first."
        )


def _read(path: Path) -> np.ndarray:
    from PIL import Image

    if path.suffix == ".npy":
        return np.asarray(np.load(path))
    with Image.open(path) as opened:
        return np.asarray(opened)
