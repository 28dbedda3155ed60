"""Images with what is true of them: a folder, or the procedural scenes.

A folder holds ``images/*.jpg`` or ``.png`` and, by the same stem, one of

=========== ===============================================================================
depth       ``depth/*.png`` (16-bit, units of which there are ``depth_scale`` per metre, 0 where
            nothing is known) or ``depth/*.npy`` (floats in metres)
labels      ``labels/*.png`` or ``annotations/*.png`` (8-bit class ids)
=========== ===============================================================================
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

import numpy as np

from ..errors import ConfigError
from ..scenes import CLASSES, SPLIT_SEEDS, Scenes
from .truth_files import Reading, checked_size

SCENES = "scenes"
_SCENES = 100
# Scenes that stay in memory, of half a megabyte each.
_KEPT = 500
IMAGE_ENDINGS = (".jpg", ".jpeg", ".png")
_FOLDERS = {"depth": ("depth",), "semantic": ("labels", "annotations")}
_ENDINGS = {"depth": (".png", ".npy"), "semantic": (".png",)}


class LabelledImages(Protocol):
    """Images with depth ``(H, W)`` in metres or class ids ``(H, W)``."""

    sizes: list[tuple[int, int]]

    def image(self, index: int) -> Any:
        """The image, for Pillow."""
        ...

    def truth(self, index: int) -> np.ndarray:
        """Depth in metres (float64) or class ids (int64), ``(H, W)``."""
        ...


class Folder:
    """A folder of images with truth; see the module for what it holds.

    Args:
        root: the folder.
        task: ``"depth"`` or ``"semantic"``.
        reading: how files are read.
        limit: first so many images by name; None = all.

    Raises:
        ConfigError: no images, or one whose truth is missing, of another size or kind.
    """

    def __init__(self, root: str | Path, task: str, reading: Reading, limit: int | None) -> None:
        self.task = task
        self.reading = reading
        self.paths = _images(Path(root))[:limit]
        self.truths = _truths(Path(root), task, self.paths)
        self.sizes = [checked_size(i, t, task) for i, t in zip(self.paths, self.truths)]

    def image(self, index: int) -> Any:
        """The image, for Pillow."""
        from PIL import Image

        with Image.open(self.paths[index]) as opened:
            return opened.convert("RGB")

    def truth(self, index: int) -> np.ndarray:
        """Depth in metres or class ids, ``(H, W)``."""
        read = self.reading.depth if self.task == "depth" else self.reading.labels
        return read(self.truths[index])


class RenderedScenes:
    """Procedural scenes.

    Args:
        split: ``"train"``, ``"val"`` or ``"test"``.
        task: ``"depth"`` or ``"semantic"``.
        limit: how many; None = 100.
    """

    def __init__(self, split: str, task: str, limit: int | None) -> None:
        self.task = task
        self.scenes = Scenes(split, limit or _SCENES)
        self.sizes = [self.scenes.size] * len(self.scenes)
        # Rendering takes longer than a small model does; every row wants the same scenes.
        self._kept: dict[int, tuple[np.ndarray, np.ndarray]] = {}

    def image(self, index: int) -> Any:
        """The image, for Pillow."""
        from PIL import Image

        return Image.fromarray(self._rendered(index)[0])

    def truth(self, index: int) -> np.ndarray:
        """Depth in metres, 0 in the sky, or class ids, ``(H, W)``."""
        truth = self._rendered(index)[1]
        return truth.astype(np.float64 if self.task == "depth" else np.int64)

    def _rendered(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        if index not in self._kept:
            scene = self.scenes[index]
            if len(self._kept) >= _KEPT:
                self._kept.popitem()
            self._kept[index] = (scene.image, scene.depth if self.task == "depth" else scene.labels)
        return self._kept[index]


def open_images(
    dataset: str | Path, task: str, reading: Reading, limit: int | None = None
) -> LabelledImages:
    """The images of a folder, or ``"scenes"``, ``"scenes:val"``, ``"scenes:test"``.

    Raises:
        ConfigError: nothing of that kind, or data that cannot be used.
    """
    name, _, split = str(dataset).partition(":")
    if name == SCENES:
        split = split or "val"
        if split not in SPLIT_SEEDS:
            raise ConfigError(
                f"Expected scenes:<split> with a split of {', '.join(SPLIT_SEEDS)}, got "
                f"{dataset!r}."
            )
        if task == "semantic" and reading.classes != len(CLASSES):
            raise ConfigError(
                f"Expected a model of the {len(CLASSES)} classes of the scenes "
                f"({', '.join(CLASSES)}), got one whose id2label has {reading.classes}; give a "
                "folder with images/ and labels/ of the model's own classes."
            )
        return RenderedScenes(split, task, limit)
    if not Path(dataset).is_dir():
        raise ConfigError(
            f"Expected dataset to be a folder, or scenes, scenes:val or scenes:test, got "
            f"{dataset}, which does not exist."
        )
    return Folder(dataset, task, reading, limit)


def _images(root: Path) -> list[Path]:
    folder = root / "images"
    found = (p for p in folder.glob("*") if p.suffix.lower() in IMAGE_ENDINGS)
    paths = sorted(found, key=lambda path: path.name)
    if not paths:
        raise ConfigError(
            f"Expected {folder} to hold images that end in {', '.join(IMAGE_ENDINGS)}, got "
            f"{'none' if folder.is_dir() else 'no such folder'}."
        )
    for one, other in zip(paths, paths[1:]):
        if one.stem == other.stem:
            raise ConfigError(
                f"Expected one image for each stem, got {one.name} and {other.name} in {folder}."
            )
    return paths


def _truths(root: Path, task: str, images: list[Path]) -> list[Path]:
    names = _FOLDERS[task]
    folder = next((root / name for name in names if (root / name).is_dir()), None)
    if folder is None:
        raise ConfigError(
            f"Expected {root} to hold a folder {' or '.join(names)} beside images, for a model of "
            f"{'depth' if task == 'depth' else 'semantic segmentation'}, got none."
        )
    found = []
    for image in images:
        choices = [folder / f"{image.stem}{ending}" for ending in _ENDINGS[task]]
        there = [path for path in choices if path.is_file()]
        if len(there) != 1:
            raise ConfigError(
                f"Expected one of {', '.join(str(path) for path in choices)} for {image}, got "
                f"{'both' if there else 'none'}."
            )
        found += there
    return found
