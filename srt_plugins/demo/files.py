"""Images that come to the page, and pictures that go to it."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import MediaError
from ..scenes import SPLIT_SEEDS, render
from ..visualize.images import read_image
from ..visualize.sources import fitted

SCENES = 4
_SCENE_SIZE = (200, 312)


def scene(index: int) -> np.ndarray:
    """A procedural scene, ``(H, W, 3)`` uint8 RGB."""
    return render(SPLIT_SEEDS["val"], index, _SCENE_SIZE).image


def taken(given: Mapping[str, Any] | None, longest: int) -> tuple[np.ndarray, str]:
    """An image that was given to the page, and what must be said of it.

    Args:
        given: what the page's image component sends: ``path`` and ``orig_name``.
        longest: longest side in pixels; larger ones are made smaller.

    Raises:
        MediaError: it cannot be read; names the file as its owner knows it.
    """
    if not given or not given.get("path"):
        raise MediaError("Expected an image, got none; drop one, or choose a scene.")
    path, name = str(given["path"]), str(given.get("orig_name") or "the image")
    try:
        image = read_image(path)
    except MediaError as error:
        raise MediaError(str(error).replace(path, name)) from error
    shown = fitted(image, longest)
    height, width = shown.shape[:2]
    if shown.shape == image.shape:
        return shown, f"{name}: {height} x {width} pixels."
    return shown, (
        f"{name}: {image.shape[0]} x {image.shape[1]} pixels, made smaller to {height} x {width}; "
        "srt demo --size changes that."
    )


def written(name: str, picture: np.ndarray, folder: str | Path | None = None) -> str:
    """A picture as a PNG file in a new folder of its own; gives its path.

    Args:
        name: of the file, without ending.
        picture: ``(H, W, 3)`` uint8 RGB.
        folder: where the new folder is; None = with temporary files.
    """
    from PIL import Image

    path = Path(tempfile.mkdtemp(prefix="srt-", dir=folder)) / f"{name}.png"
    # Speed matters more than bytes on the way to a browser on the same machine.
    Image.fromarray(np.ascontiguousarray(picture)).save(path, compress_level=1)
    return str(path)
