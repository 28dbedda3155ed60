"""A model to be looked at: what it makes of an image, and its backbone."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any, Callable

import numpy as np
import torch
from torch import Tensor, nn

from ..adapters import find_backbone, find_target
from ..core.patch import overridden
from ..evaluation.rows import keywords
from ..settings import Settings
from ..wrapper import detach, srt_enabled, wrapped

# What a model predicts, besides nothing at all.
TASKS = ("classes", "depth", "instances")
# Instances below this score are not shown; what Detectron2's demo takes.
SCORE = 0.5


@dataclass(frozen=True)
class Inputs:
    """What the backbone gets of an image.

    Attributes:
        images: ``(1, C, h, w)``, normalised as the model wants them.
        shown: top, left, height and width of the image in ``images``, in pixels of theirs; the
            rest is padding.
    """

    images: Tensor
    shown: tuple[int, int, int, int]


@dataclass(frozen=True)
class Prediction:
    """What a model says of an image of H x W pixels.

    Attributes:
        task: one of :data:`TASKS`, None where the model predicts nothing.
        labels: class of each pixel ``(H, W)``; of instances, their classes ``(N,)``.
        depth: ``(H, W)`` in the model's unit.
        boxes: left, top, right, bottom of each instance in pixels, ``(N, 4)``.
        masks: ``(N, H, W)``, None where there are boxes only.
        scores: of each instance, ``(N,)``.
    """

    task: str | None = None
    labels: np.ndarray | None = None
    depth: np.ndarray | None = None
    boxes: np.ndarray | None = None
    masks: np.ndarray | None = None
    scores: np.ndarray | None = None


@dataclass
class Subject(ABC):
    """A model to be looked at.

    Attributes:
        name: for captions and file names.
        model: in eval mode, without SRT.
        task: what it predicts, one of :data:`TASKS` or None.
        classes: names of the classes, () where unknown.
        palette: colours of the classes, ``(K, 3)`` uint8; None where the model brings none.
        target: part of the backbone that SRT is for, None = the whole.
        settings: those that the model's config asks for, None for a plain one.
        notes: what must be known of the model, such as weights that the checkpoint lacks.
        inverse: its depth is one over depth, up to scale and shift: near is large.
    """

    name: str
    model: nn.Module
    task: str | None = None
    classes: Sequence[str] = ()
    palette: np.ndarray | None = None
    target: str | None = None
    settings: Settings | None = None
    notes: list[str] = field(default_factory=list)
    inverse: bool = False

    def __post_init__(self) -> None:
        self.model.eval().requires_grad_(False)
        found = wrapped(self.model)
        if found:
            own: Settings = found[0]._srt.settings
            self.settings = self.settings or own
            detach(self.model)

    @property
    def backbone(self) -> nn.Module:
        """What SRT ensembles.

        Raises:
            AdapterError: none found in the model.
        """
        return find_target(find_backbone(self.model), self.target)

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        found = next(self.model.parameters(), None)
        return torch.device("cpu") if found is None else found.device

    @abstractmethod
    def inputs(self, image: np.ndarray) -> Inputs:
        """What the backbone gets of an image, ``(H, W, 3)`` uint8 RGB."""

    @abstractmethod
    def predicted(self, image: np.ndarray) -> Prediction:
        """What the model says of an image as it is now."""

    def predict(self, image: np.ndarray, settings: Settings | None = None) -> Prediction:
        """What the model says of an image.

        Args:
            image: ``(H, W, 3)`` uint8 RGB.
            settings: of SRT; None = the plain model.

        Raises:
            ConfigError: settings that do not fit the model.
        """
        with torch.no_grad(), self._by(settings):
            return self.predicted(image)

    def _by(self, settings: Settings | None) -> AbstractContextManager[Any]:
        if settings is None or settings.is_plain:
            return nullcontext()
        return srt_enabled(self.model, target=self.target, **keywords(settings))


class _Seen(Exception):
    """Leaves a forward once its backbone has been called."""


def given_to(backbone: nn.Module, run: Callable[[], Any]) -> Tensor | None:
    """The images ``(B, C, H, W)`` that ``run`` first gives to a backbone, which does not run."""
    found: list[Tensor] = []
    seen = _Seen()

    def forward(images: Tensor, *_: Any, **__: Any) -> None:
        found.append(images)
        raise seen

    with torch.no_grad(), overridden(backbone, "forward", forward):
        try:
            run()
        except _Seen as reached:
            if reached is not seen:
                raise
    return found[0] if found else None
