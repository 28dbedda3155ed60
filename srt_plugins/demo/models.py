"""The models that the page offers: loaded when they are chosen, one in memory at a time."""

from __future__ import annotations

import gc
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from ..adapters import describe
from ..errors import ConfigError
from ..visualize.features import Features
from ..visualize.load import load_subject
from ..visualize.subject import Subject

# Pixels of the image that a backbone is probed with where its patch is not known.
_PROBE = 64


@dataclass(frozen=True)
class Facts:
    """What the page must know of a model.

    Attributes:
        name: for captions.
        task: what it predicts; None = nothing.
        patch: period of its token grid, pixels.
        blocks: how many blocks can be looked at.
        notes: what must be known of it.
    """

    name: str
    task: str | None
    patch: int
    blocks: int
    notes: tuple[str, ...]


class Models:
    """Models by their place in the list.

    Args:
        words: of each model, as :func:`srt_plugins.visualize.load.load_subject` takes them.
        keywords: how they are loaded, see there.

    Raises:
        ConfigError: no models, or one without words.
    """

    def __init__(self, words: Sequence[Sequence[str]], **keywords: Any) -> None:
        if not words or not all(words):
            raise ConfigError("Expected at least one --model, each with words, got none.")
        self.words = [list(one) for one in words]
        self.keywords = keywords
        self._index: int | None = None
        self._subject: Subject | None = None

    @property
    def names(self) -> list[str]:
        """What the models are called, each unlike the others."""
        short = [_short(one) for one in self.words]
        return [
            name if short.count(name) == 1 else " ".join(words)
            for name, words in zip(short, self.words)
        ]

    def get(self, index: int) -> Subject:
        """A model; the one before it is given up first.

        Raises:
            SRTError: it cannot be loaded.
        """
        if self._subject is not None and self._index == index:
            return self._subject
        self._subject = self._index = None
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        self._subject = load_subject(self.words[index], **self.keywords)
        self._index = index
        return self._subject

    def facts(self, index: int) -> Facts:
        """What the page must know of a model, which is loaded for it.

        Raises:
            SRTError: it cannot be loaded, or its backbone has no token grids.
        """
        subject = self.get(index)
        adapter = describe(subject.backbone)
        patch = adapter.patch
        if patch is None:
            features = Features(subject.backbone)
            blank = np.zeros((_PROBE, _PROBE, 3), np.uint8)
            features.tokens.prepare(subject.inputs(blank).images)
            patch = features.tokens.patch
        return Facts(subject.name, subject.task, patch, len(adapter.blocks), tuple(subject.notes))


def _short(words: Sequence[str]) -> str:
    """A name for lists: the model's or its config's, without folders and endings."""
    if len(words) == 1:
        name = words[0].rstrip("/")
        return name if name.startswith("timm/") else name.rpartition("/")[2]
    name = words[1].rpartition("/")[2]
    for ending in (".py", ".yaml", ".yml"):
        name = name.removesuffix(ending)
    return name
