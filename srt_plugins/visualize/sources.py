"""Where pictures to look at come from: files, folders, videos, procedural scenes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ..errors import ConfigError
from ..scenes import SPLIT_SEEDS, render
from .images import expand, read_image
from .panels import resize_smooth
from .video import Clip, describe, frames, is_video

# Longest side of the images that are looked at, where nothing else is asked for, in pixels.
LONGEST = 2048
# As those of examples/demo.
_SCENE_SIZE = (200, 312)


@dataclass(frozen=True)
class Source:
    """One image, video or procedural scene.

    Attributes:
        name: for captions and file names.
        path: file; None for a scene.
        scene: split and number of a procedural scene.
        longest: longest side of what is read, in pixels; larger ones are made smaller.
    """

    name: str
    path: Path | None = None
    scene: tuple[str, int] | None = None
    longest: int | None = LONGEST

    @property
    def moves(self) -> bool:
        """Whether it is a video."""
        return self.path is not None and is_video(self.path)

    def image(self) -> np.ndarray:
        """The image, ``(H, W, 3)`` uint8 RGB.

        Raises:
            MediaError: it cannot be read.
        """
        return self.sized()[0]

    def sized(self) -> tuple[np.ndarray, tuple[int, int]]:
        """The image, and the height and width that it had before it was made smaller.

        Raises:
            MediaError: it cannot be read.
        """
        if self.scene is not None:
            split, index = self.scene
            whole = render(SPLIT_SEEDS[split], index, _SCENE_SIZE).image
        else:
            assert self.path is not None
            whole = read_image(self.path)
        return fitted(whole, self.longest), (whole.shape[0], whole.shape[1])

    def clip(self) -> Clip:
        """What a video says of itself.

        Raises:
            MediaError: it cannot be read.
        """
        assert self.path is not None
        return describe(self.path)

    def frames(self, every: int = 1, limit: int | None = None) -> Iterator[np.ndarray]:
        """The frames of a video, as images.

        Args:
            every: take the first of so many.
            limit: at most so many.

        Raises:
            MediaError: it cannot be read.
        """
        assert self.path is not None
        for frame in frames(self.path, every, limit):
            yield fitted(frame, self.longest)


def sources(
    words: Sequence[str], limit: int | None = None, longest: int | None = LONGEST
) -> list[Source]:
    """The images and videos that some words name, each with a name of its own.

    Args:
        words: files, folders, or ``scenes[:SPLIT]`` for procedural scenes.
        limit: at most so many.
        longest: see :class:`Source`.

    Raises:
        MediaError: a file that does not exist, or a folder without images.
        ConfigError: a bad split of the scenes.
    """
    found: list[Source] = []
    for word in words:
        kind, _, split = word.partition(":")
        if kind == "scenes" and not Path(word).exists():
            split = split or "val"
            if split not in SPLIT_SEEDS:
                raise ConfigError(
                    f"Expected scenes:SPLIT with one of {', '.join(SPLIT_SEEDS)}, got {word!r}."
                )
            count = 1 if limit is None else limit
            found += [Source(f"scene_{split}_{i}", None, (split, i)) for i in range(count)]
        else:
            found += [Source(path.stem, path, None, longest) for path in expand([word])]
    found = found[:limit]
    # Numbers must not make a name that another file has.
    names = {source.name for source in found}
    taken: set[str] = set()
    named = []
    for source in found:
        name, count = source.name, 1
        while name in taken or (count > 1 and name in names):
            count += 1
            name = f"{source.name}_{count}"
        taken.add(name)
        named.append(replace(source, name=name))
    return named


def spread(count: int, most: int) -> list[int]:
    """At most so many of ``count`` places, evenly spread, the first and the last among them."""
    if count <= most:
        return list(range(count))
    return [round(i * (count - 1) / (most - 1)) for i in range(most)] if most > 1 else [0]


def fitted(image: np.ndarray, longest: int | None) -> np.ndarray:
    """An image made smaller to a longest side in pixels; smaller ones stay as they are."""
    height, width = image.shape[:2]
    if longest is None or max(height, width) <= longest:
        return image
    scale = longest / max(height, width)
    return resize_smooth(image, (max(1, round(height * scale)), max(1, round(width * scale))))
