"""Choosing the settings of SRT on a few images, with or without labels."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Callable

from ..adapters import Adapter
from ..core.views import Views
from ..errors import ConfigError
from ..settings import Settings
from ..wrapper import wrapped
from .candidates import Ways, affordable, candidates, variants
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
        images: spread evenly over the data.
        budget: what a candidate may cost, in forwards of the plain model by floating-point
            operations (``Result.flops_ratio``). The default has room for four views and for
            smoothing at a finer stride, which costs about a quarter of a forward in small models.
        views: how many forwards phases of the patch cost; None = the most of 2, 4, 9, 16, ... that
            the budget pays for. 1 = candidates of one view only.
        finer: try finer strides too, where the model takes them.
        ways: other ways of views that are tried with the best smoothing and stride.
        rows: more candidates.
        labels: judge by labels; otherwise by how well a candidate foretells what the model sees in
            other views of the image (:mod:`.held_out`).
        told: called with what will be run, in a line, before it is.
    """

    images: int = 10
    budget: float = 5
    views: int | None = None
    finer: bool = True
    ways: Ways = field(default_factory=Ways)
    rows: Sequence[RowArg] = ()
    labels: bool = True
    told: Callable[[str], None] | None = None

    def __post_init__(self) -> None:
        for name in ("images", "budget", "views"):
            value = getattr(self, name)
            if value is not None and not value >= 1:
                raise ConfigError(f"Expected {name} to be at least 1, got {value}.")
        if self.views is not None and self.views > self.budget:
            raise ConfigError(
                f"Expected views to be at most the budget of {self.budget:g} forwards, got "
                f"{self.views}; use --budget {self.views} (budget={self.views})."
            )
        for row in self.rows:
            settings_of(row)

    def most(self, patch: int) -> int:
        """How many phases of the patch are tried first."""
        if self.views is not None:
            return self.views
        return max(affordable(self.budget, patch), default=1)

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
            own: dict[str, Any] = {"name": result.name, "views": result.row.views}
            own["forwards"] = result.flops_ratio
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
    views = plan.most(patch)
    with remembering(backbone, adapter=adapter) as memory, remembering_items(dataset):
        trial = Trial(runs, patch, request, memory, plan.budget, plan.labels)
        rows = trial.possible([*candidates(patch, views, plan.finer), *plan.rows])
        if plan.told is not None:
            plan.told(trial.forecast(rows))
        trial.run(rows)
        # Without labels the weakest smoothing may win, and what is weaker still proves nothing.
        for _ in range(_ROUNDS if plan.labels else 0):
            more = trial.possible(trial.beyond())
            if not more:
                break
            trial.run(more)
        best = trial.best_of_several()
        if best is not None:
            blocks = len(adapter.blocks)
            others = variants(*best, plan.budget, patch, blocks, plan.ways)
            trial.run(trial.possible(others, variants=True))
    default = None if plan.labels else trial.default(views)
    measured, choice = trial.measured, trial.choice(default)
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
        [*notes, *trial.notes, *trial.too_dear()],
        {
            "judged": "labels" if plan.labels else "held-out views",
            "budget": plan.budget,
            "default_kept": choice.kept,
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
