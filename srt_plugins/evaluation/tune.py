"""Choosing the settings of SRT on a few labelled images."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..adapters import Adapter
from ..core.views import Views
from ..errors import ConfigError
from ..settings import Settings
from ..wrapper import wrapped
from .candidates import candidates
from .files import replacing
from .gains import compare
from .memory import remembering, remembering_items
from .record import plain_values
from .request import Request
from .results import Comparison, Result
from .rows import Row, RowArg, settings_of
from .runs import Runs
from .tune_trial import Trial

ONE_VIEW = Views(((0, 0),), (1.0,))
# How often the grid of strengths is continued where the best is at its edge.
_ROUNDS = 2


@dataclass(frozen=True)
class Plan:
    """What is tried, and on how much.

    Attributes:
        images: labelled images, spread evenly over the data.
        views: forwards per image that are to be spent; candidates have one view or so many.
        finer: try finer strides too, where the model takes them.
        rows: more candidates.
    """

    images: int = 10
    views: int = 4
    finer: bool = True
    rows: Sequence[RowArg] = ()

    def __post_init__(self) -> None:
        for name in ("images", "views"):
            if getattr(self, name) < 1:
                raise ConfigError(f"Expected {name} to be at least 1, got {getattr(self, name)}.")
        for row in self.rows:
            settings_of(row)

    def spread(self, there: int) -> list[int]:
        """Which of so many images: as many as asked for, spread evenly. Neighbours are often alike,
        as frames of a video are, and tell less.
        """
        if there <= self.images:
            return list(range(there))
        return [int((i + 0.5) * there / self.images) for i in range(self.images)]


@dataclass
class Tuning:
    """What tuning found.

    Attributes:
        comparison: all candidates with their figures and gains; the plain model is first.
        keywords: of each candidate, by name, as :class:`srt_plugins.Settings` takes them.
        scores: what candidates were ranked by, by name; see :func:`.tune_choice.steady_scores`.
        best: name of the chosen candidate.
        free: name of the best candidate of one view, by the same scores.
        images: indices of the images.
        notes: what the reader must know beside.
        context: config, checkpoint, versions, hardware.
    """

    comparison: Comparison
    keywords: dict[str, dict[str, Any]]
    scores: dict[str, float]
    best: str
    free: str
    images: list[int]
    notes: list[str] = field(default_factory=list)
    context: dict[str, Any] = field(default_factory=dict)

    @property
    def settings(self) -> dict[str, Any]:
        """Keywords of the chosen candidate, for ``attach(model, **tuning.settings)``."""
        return self.keywords[self.best]

    def ranked(self) -> list[Result]:
        """All candidates, the best score first."""
        return sorted(self.comparison.results, key=lambda r: -self.scores[r.name])

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON; NaN as None."""
        best = self.comparison[self.best]
        rows = []
        for result in self.ranked():
            own = {"name": result.name, "views": result.row.views}
            own["keywords"] = self.keywords[result.name]
            own["score"] = self.scores[result.name]
            gains = vars(result.scores[self.comparison.metric])
            rows.append({**own, **gains, **result.figures})
        found = {
            **self.context,
            "images": self.images,
            "metric": self.comparison.metric,
            "chosen": {"name": best.name, "keywords": self.settings},
            "best_1x": self.free,
            "notes": self.notes,
            "candidates": rows,
        }
        made: dict[str, Any] = plain_values(found)
        return made

    def save(self, path: str | Path) -> Path:
        """Write :meth:`to_dict` as JSON."""
        with replacing(path) as part:
            part.write_text(json.dumps(self.to_dict(), indent=2, ensure_ascii=False) + "\n")
        return Path(path)


def tuned(
    runs: Runs, dataset: Any, images: list[int], plan: Plan, request: Request, notes: list[str]
) -> Tuning:
    """Run all candidates in a session and choose.

    Args:
        runs: of a session whose data are the images that choose.
        dataset: what the session's loader takes items from.
        images: their indices in all data.
        plan: what is tried.
        request: how it is run.
        notes: those so far.
    """
    start = time.perf_counter()
    backbone, adapter = _backbone(runs)
    patch = adapter.patch or 1
    with remembering(backbone, adapter=adapter) as memory, remembering_items(dataset):
        trial = Trial(runs, patch, request)
        trial.run([*candidates(patch, plan.views, plan.finer), *plan.rows])
        for _ in range(_ROUNDS):
            more = trial.beyond()
            if not more:
                break
            trial.run(more)
    measured, choice = trial.measured, trial.choice()
    comparison = compare(
        measured, runs.session.classes, seed=request.seed, resamples=request.resamples
    )
    assert choice.free is not None  # the plain model is one
    names = [m.row.name for m in measured]
    return Tuning(
        comparison,
        trial.keywords,
        dict(zip(names, choice.scores.tolist())),
        names[choice.best],
        names[choice.free],
        images,
        [*notes, *trial.notes],
        {
            "seconds": time.perf_counter() - start,
            "backbone_calls": memory.runs,
            "backbone_calls_recalled": memory.recalled,
        },
    )


def _backbone(runs: Runs) -> tuple[Any, Adapter]:
    """What SRT would wrap, and what it finds of it."""
    with runs.active(Row("", "srt", "srt", 4, Settings())):
        module = wrapped(runs.session.model)[0]
        if module._srt.adapter.patch is None:
            runs.session.first()  # an unknown backbone is probed on its first image
        return module, module._srt.adapter
