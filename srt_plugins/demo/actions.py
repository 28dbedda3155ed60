"""What happens on the page, as functions of what is on it; no component is touched here.

Each gives what changes by name. A mistake of the user's is a status line; the page goes on.
"""

from __future__ import annotations

import sys
import threading
import time
import traceback
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from typing import Any

import numpy as np

from ..errors import SRTError
from ..visualize.show import views_in_words
from . import markup
from .choice import Choice
from .files import scene, taken
from .look import Found, Looker, Progress
from .models import Facts, Models
from .paste import lines
from .watch import Stopped

Changes = dict[str, Any]


class Actions:
    """What happens on the page.

    Args:
        models: what the page offers.
        longest: longest side of images, pixels; larger ones are made smaller.
    """

    def __init__(self, models: Models, longest: int) -> None:
        self.models = models
        self.longest = longest
        self.looker = Looker(models)
        self._stops: dict[str, threading.Event] = {}

    def chosen_model(self, model: int) -> Changes:
        """A model was chosen: ``facts`` of it and ``status``."""
        with _told() as said:
            facts = self.looker.facts(model)
            notes = " ".join(facts.notes)
            told = f"{facts.name} is ready. {notes}" if notes else f"{facts.name} is ready."
            return {"facts": facts, "status": markup.status(told)}
        return {"facts": None, **said}

    def given(self, file: Mapping[str, Any] | None) -> Changes:
        """An image was given: ``image`` as it was read, and ``status``."""
        with _told() as said:
            image, note = taken(file, self.longest)
            return {"image": image, "status": markup.status(note)}
        return {"image": None, **said}

    def chosen_scene(self, index: int) -> Changes:
        """A procedural scene was chosen: ``image`` and ``status``."""
        image = scene(index)
        size = f"{image.shape[0]} x {image.shape[1]} pixels"
        return {"image": image, "status": markup.status(f"Scene {index + 1}: {size}.")}

    def chosen(self, model: int, facts: Facts | None, choice: Choice) -> Changes:
        """Settings were chosen: ``hint`` on what they mean, and ``lines`` to paste."""
        if facts is None:
            return {"hint": "", "lines": ""}
        try:
            keywords = choice.keywords(facts.patch)
            count = choice.view_count(facts.patch)
        except SRTError as error:
            return {"hint": markup.hint(str(error), True), "lines": ""}
        what = "SRT is off: 1 view" if count == 1 else f"{count} views per image"
        hint = markup.hint(f"{what}. One token is {facts.patch} pixels.")
        words, target = self.models.words[model], self.models.keywords.get("target")
        return {"hint": hint, "lines": lines(words, keywords, target)}

    def run(
        self,
        model: int,
        image: np.ndarray | None,
        choice: Choice,
        session: str,
        progress: Progress,
    ) -> Iterator[Changes]:
        """Run was pressed: ``found`` as it grows, and ``status``."""
        start = time.perf_counter()
        with self._stoppable(session) as stop, _told() as said:
            if image is None:
                said["status"] = markup.status("Give an image first, or choose a scene.", "error")
                yield said
                return
            found = Found()
            with closing(self.looker.look(model, image, choice, progress, stop)) as looking:
                for found in looking:
                    if stop.is_set():
                        raise Stopped
                    if not found.done:
                        yield {"found": found, "status": markup.status("Running …")}
            views = views_in_words(found.views)
            took = f"{time.perf_counter() - start:.1f} s"
            told = f"Done in {took}: {views}.{_figures(found)}"
            yield {"found": found, "status": markup.status(told)}
        if said:
            yield said

    def similar(
        self,
        model: int,
        image: np.ndarray | None,
        choice: Choice,
        point: tuple[int, int],
        session: str,
        progress: Progress,
    ) -> Changes:
        """A point ``(y, x)`` was clicked: ``panels`` without and with SRT, and ``status``."""
        if image is None:
            return {"status": markup.status("Give an image first, or choose a scene.", "error")}
        height, width = image.shape[:2]
        y, x = min(max(point[0], 0), height - 1), min(max(point[1], 0), width - 1)
        with self._stoppable(session) as stop, _told() as said:
            panels = self.looker.similar(model, image, choice, (y, x), progress, stop)
            told = f"Similarity to the feature at row {y}, column {x}."
            return {"panels": panels, "point": (y, x), "status": markup.status(told)}
        return said

    def stop(self, session: str) -> None:
        """Stop was pressed."""
        found = self._stops.get(session)
        if found is not None:
            found.set()

    @contextmanager
    def _stoppable(self, session: str) -> Iterator[threading.Event]:
        stop = self._stops[session] = threading.Event()
        try:
            yield stop
        finally:
            if self._stops.get(session) is stop:
                del self._stops[session]


@contextmanager
def _told() -> Iterator[Changes]:
    """Turns errors into a status line, in what it yields; their traceback is for the terminal."""
    said: Changes = {}
    try:
        yield said
    except Stopped:
        said["status"] = markup.status("Stopped.")
    except SRTError as error:
        said["status"] = markup.status(str(error), "error")
    except Exception as error:
        traceback.print_exc(file=sys.stderr)
        text = f"{type(error).__name__}: {error}"
        if "out of memory" in text.lower():
            text = "Out of memory: take a smaller image or fewer views. " + text
        said["status"] = markup.status(text[:600], "error")


def _figures(found: Found) -> str:
    parts = []
    if "changed" in found.figures and found.key is not None:
        parts.append(f" SRT changed {found.figures['changed']:.1%} of the pixels.")
    elif "changed" in found.figures:
        parts.append(f" SRT changed depth by {found.figures['changed']:.3g} on average.")
    return "".join(parts)
