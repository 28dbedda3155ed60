"""Series of scenes with train, validation and test splits that share no picture."""

from __future__ import annotations

from collections.abc import Iterator

from ..errors import ConfigError
from .render import Scene, render

SPLIT_SEEDS: dict[str, int] = {"train": 1, "val": 2, "test": 3}
"""Seed of the series behind each split."""


class Scenes:
    """A split of rendered scenes, indexed like a list; nothing is stored.

    Args:
        split: "train", "val" or "test".
        length: number of scenes.
        size: (H, W) in pixels.

    Raises:
        ConfigError: unknown split, or a length below 1.
    """

    def __init__(
        self, split: str = "val", length: int = 100, size: tuple[int, int] = (200, 312)
    ) -> None:
        if split not in SPLIT_SEEDS:
            raise ConfigError(
                f"Expected `split` to be one of {list(SPLIT_SEEDS)}, but got {split!r}."
            )
        if length < 1:
            raise ConfigError(f"Expected `length` to be at least 1, but got {length}.")
        self.seed = SPLIT_SEEDS[split]
        self.length = length
        self.size = size

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> Scene:
        if not 0 <= index < self.length:
            raise IndexError(f"Expected an index in 0 .. {self.length - 1}, but got {index}.")
        return render(self.seed, index, self.size)

    def __iter__(self) -> Iterator[Scene]:
        return (self[i] for i in range(self.length))
