"""What the page shows of an image: features and predictions without and with SRT, and their cost.

What does not depend on the settings of SRT is kept until the model, its layer or the image changes.
"""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Generator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from typing import Any, Callable

import numpy as np

from ..settings import Settings
from ..visualize.basis import Basis
from ..visualize.before_after import before_after
from ..visualize.features import Features
from ..visualize.legend import Key
from ..visualize.maps import Map
from ..visualize.panels import Panel
from ..visualize.show import Look, Show, views_in_words
from ..visualize.subject import Prediction, Subject
from .choice import Choice
from .models import Facts, Models
from .watch import Stopped, watched

# What is told of progress: what runs, views done, views in all.
Progress = Callable[[str, int, int], None]


@dataclass
class Found:
    """What there is to see so far.

    Attributes:
        panels: by the names of :data:`srt_plugins.visualize.show.PANELS`.
        key: colours of the classes.
        figures: see :class:`srt_plugins.visualize.show.Shown`.
        seconds: what each took: ``features``, ``prediction``, and the same with ``_srt``.
        views: how many SRT runs.
        recalled: whether plain results are those of a run before.
        done: nothing more comes.
    """

    panels: dict[str, Panel] = field(default_factory=dict)
    key: Key | None = None
    figures: dict[str, float] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    views: int = 0
    recalled: bool = False
    done: bool = False


@dataclass
class _Plain:
    """Results without SRT."""

    basis: Basis
    tokens: Panel
    seconds: dict[str, float]
    prediction: Prediction | None = None


class _Timed(Features):
    """Features that know how long they took, forwards and aggregation without any drawing."""

    seconds = 0.0

    def plain(self, *args: Any, **keywords: Any) -> Map:
        start = time.perf_counter()
        found = super().plain(*args, **keywords)
        self.seconds = time.perf_counter() - start
        return found

    def ensembled(self, *args: Any, **keywords: Any) -> Map:
        start = time.perf_counter()
        found = super().ensembled(*args, **keywords)
        self.seconds = time.perf_counter() - start
        return found


class Looker:
    """Looks at images with one of several models; one run at a time."""

    def __init__(self, models: Models) -> None:
        self.models = models
        self._key: tuple[Any, ...] = ()
        self._plain: _Plain | None = None
        self._lock = threading.Lock()

    def facts(self, model: int) -> Facts:
        """What the page must know of a model, which is loaded for it.

        Raises:
            SRTError: it cannot be loaded, or its backbone has no token grids.
        """
        with self._lock:
            return self.models.facts(model)

    def look(
        self,
        model: int,
        image: np.ndarray,
        choice: Choice,
        progress: Progress,
        stop: threading.Event,
    ) -> Generator[Found, None, None]:
        """Look at an image; yields the same object as more is found.

        Args:
            model: place in the list.
            image: ``(H, W, 3)`` uint8 RGB.
            choice: what is chosen.
            progress: called while views run.
            stop: stops the run before its next view.

        Raises:
            SRTError: a model that cannot be loaded, or settings that do not fit it.
            Stopped: it was stopped.
        """
        with self._lock:
            patch = self.models.facts(model).patch
            subject = self.models.get(model)
            settings = choice.settings(patch)
            run = _Run(subject, image, choice, settings, progress, stop)
            found = Found(views=choice.view_count(patch))
            key = _key(model, choice, image)
            found.recalled = self._plain is not None and self._key == key
            if not found.recalled:
                self._plain = None
                self._plain, self._key = run.plain(), key
            plain = self._plain
            assert plain is not None
            found.panels["tokens"] = plain.tokens
            found.seconds.update(plain.seconds)
            yield found
            run.features(found, plain)
            yield found
            if subject.task is not None:
                run.predictions(found, plain)
            found.done = True
            yield found

    def similar(
        self,
        model: int,
        image: np.ndarray,
        choice: Choice,
        point: tuple[int, int],
        progress: Progress,
        stop: threading.Event,
    ) -> list[Panel]:
        """Cosine similarity to the feature at a point, without and with SRT.

        Args:
            model: place in the list.
            image: ``(H, W, 3)`` uint8 RGB.
            choice: what is chosen.
            point: ``(y, x)`` in pixels of the image.
            progress: called while views run.
            stop: stops the run before its next view.

        Raises:
            SRTError, Stopped: as :meth:`look`.
        """
        with self._lock:
            patch = self.models.facts(model).patch
            subject = self.models.get(model)
            settings = choice.settings(patch)
            look = Look(settings, choice.block, point=point, panels=("similarity",))
            run = _Run(subject, image, choice, settings, progress, stop)
            # Plain features are run first.
            with run.counted("similarity", choice.view_count(patch) + 1):
                return [panel for _, panel in Show(subject, look)(image).panels]


@dataclass
class _Run:
    """One run over one image."""

    subject: Subject
    image: np.ndarray
    choice: Choice
    settings: Settings
    progress: Progress
    stop: threading.Event

    def plain(self) -> _Plain:
        """Everything that SRT does not change, but for the prediction."""
        show, timed = self._show(("tokens",))
        with self.counted("plain features", 2):
            basis = show.fit([self.image])
            panel = dict(show(self.image).panels)["tokens"]
        return _Plain(basis, panel, {"features": timed.seconds})

    def features(self, found: Found, plain: _Plain) -> None:
        """Features with SRT, how much views disagree, and what smoothing does without views."""
        control = ("one",) if self.settings.smooth is not None else ()
        show, timed = self._show((*control, "srt", "dispersion"), plain.basis)
        with self.counted("features, SRT", found.views + len(control)):
            shown = show(self.image)
        found.panels.update(shown.panels)
        found.figures.update(shown.figures)
        found.seconds["features_srt"] = timed.seconds

    def predictions(self, found: Found, plain: _Plain) -> None:
        """Predictions without and with SRT, and what changed."""
        if plain.prediction is None:
            with self.counted("prediction, plain", 1):
                if self.subject.device.type != "cpu":
                    self._predicted(None)  # the first one of a shape takes longer
                plain.prediction, plain.seconds["prediction"] = self._predicted(None)
        settings = replace(self.settings, layer=self.choice.block)
        with self.counted("prediction, SRT", found.views):
            after, found.seconds["prediction_srt"] = self._predicted(settings)
        found.seconds.update(plain.seconds)
        words = views_in_words(found.views)
        made = before_after(self.subject, self.image, plain.prediction, after, words)
        found.panels.update(made.panels)
        found.key = made.key
        found.figures.update(made.figures)

    def _show(self, panels: tuple[str, ...], basis: Basis | None = None) -> tuple[Show, _Timed]:
        look = Look(self.settings, self.choice.block, panels=panels)
        show = Show(self.subject, look, basis)
        show.features = timed = _Timed(self.subject.backbone, self.choice.block)
        return show, timed

    def _predicted(self, settings: Settings | None) -> tuple[Prediction, float]:
        start = time.perf_counter()
        found = self.subject.predict(self.image, settings)
        return found, time.perf_counter() - start

    def counted(self, what: str, count: int) -> AbstractContextManager[None]:
        """While active, progress is told and the run can be stopped."""
        if self.stop.is_set():
            raise Stopped
        self.progress(what, 0, count)
        return watched(
            self.subject.backbone,
            lambda seen: self.progress(what, min(seen - 1, count), count),
            self.stop,
        )


def _key(model: int, choice: Choice, image: np.ndarray) -> tuple[Any, ...]:
    """What plain results depend on."""
    digest = hashlib.sha256(np.ascontiguousarray(image).data).hexdigest()
    return (model, choice.layer, image.shape, digest)
