"""Running candidates on the images that choose, and going on where the best is at the edge."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ..core.guided import Guided
from ..core.memory import is_out_of_memory
from ..errors import SRTError
from ..settings import Settings
from ..state import chosen_views
from .candidates import beyond, guided_keyword, views_keyword
from .cost import count_flops
from .memory import Memory
from .request import Request
from .results import Measured
from .rows import Row, RowArg, settings_of, srt_name
from .runs import Runs
from .tune_choice import Candidate, Choice, choose

PLAIN = "plain"
# Candidates may cost this much more than the budget: what SRT adds to its forwards.
_SLACK = 1.02


@dataclass(frozen=True)
class Cost:
    """What candidates of a kind cost for an image.

    Attributes:
        flops: operations of the model with its views.
        seconds: of what is not remembered; None = nothing is.
    """

    flops: int
    seconds: float | None


class Trial:
    """Candidates that were run on the images that choose.

    Args:
        runs: of a session whose data are those images.
        patch: pixels, the period of the views.
        request: how it is run.
        memory: of the backbone's outputs.
        budget: forwards of the plain model that a candidate may cost.
        labels: candidates are judged by labels, which is noisy.
    """

    def __init__(
        self,
        runs: Runs,
        patch: int,
        request: Request,
        memory: Memory,
        budget: float,
        labels: bool = True,
    ) -> None:
        self.runs = runs
        self.patch = patch
        self.request = request
        self.memory = memory
        self.budget = budget
        self.labels = labels
        self.measured: list[Measured] = []
        self.keywords: dict[str, dict[str, Any]] = {}
        self.notes: list[str] = []
        # One candidate of each kind above the budget, and what it costs in forwards.
        self.dear: dict[str, float] = {}
        # What candidates of a kind cost; None = the model cannot run them, or they cost too much.
        self._costs: dict[Any, Cost | None] = {}
        self._backbone_flops = 0
        self._variants: set[str] = set()

    def possible(self, every: Sequence[RowArg], variants: bool = False) -> list[Row]:
        """The rows of candidates that the model can run within the budget; the first of all is the
        plain model.

        Args:
            every: candidates.
            variants: they are other ways of views of the best one so far.
        """
        rows = [row for row in map(self._row, every) if row is not None]
        kept = [row for row in rows if self._can(row, quiet=variants)]
        if variants:
            self._variants |= {row.name for row in kept}
        return kept

    def run(self, rows: Sequence[Row]) -> None:
        """Run candidates."""
        for number, row in enumerate(rows):
            with self.runs.active(row):
                run = self.runs.session.run(self._told(row, number, len(rows)))
            flops = self._cost(row).flops
            self.measured.append(Measured(row, run.metrics, run.reported, run.seconds, flops))

    def forecast(self, rows: Sequence[Row]) -> str:
        """What running some rows will take, as text."""
        images = self.runs.session.images
        views = {view for row in rows for view in self._views(row)}
        forwards = len(views) * images
        seconds = images * sum(self._cost(row).seconds or 0 for row in rows)
        seconds += forwards * statistics.median(self.memory.seconds or [0.0])
        return (
            f"{len(rows)} candidates on {images} images: {forwards} forwards of the backbone and "
            f"{len(rows) * images} of the rest of the model, about {_lasting(seconds)}; then some "
            "around the best"
        )

    def choice(self, default: str | None = None) -> Choice:
        """What to take of those that were run.

        Args:
            default: name of a candidate that only one which is clearly better replaces.
        """
        found = [
            Candidate(
                m.row.settings or Settings(views=[(0, 0)]),
                m.row.views,
                m.metrics[0],
                m.row.name in self._variants,
            )
            for m in self.measured
        ]
        names = [m.row.name for m in self.measured]
        kept = names.index(default) if default in names else None
        return choose(found, self.request.seed, self.request.resamples, kept, self.labels)

    def too_dear(self) -> list[str]:
        """A note on candidates above the budget, if there are any."""
        if not self.dear:
            return []
        name, cost = min(self.dear.items(), key=lambda one: one[1])
        return [
            f"left out, above the budget of {self.budget:g} forwards: {len(self.dear)} kinds of "
            f"candidates; the cheapest, such as {name!r}, cost {cost:.3g}."
        ]

    def beyond(self) -> list[RowArg]:
        """Candidates beyond the grid of strengths where the best ones, of several views and of one,
        are at its edge.
        """
        choice = self.choice()
        rows = [self.measured[i].row for i in {choice.best, choice.free} if i is not None]
        return [one for row in rows for one in self._beyond(row)]

    def best_of_several(self) -> tuple[dict[str, Any], int] | None:
        """Keywords of the best candidate of several views, and how many those are."""
        choice = self.choice()
        several = [i for i, m in enumerate(self.measured) if m.row.views > 1]
        if not several:
            return None
        row = self.measured[max(several, key=choice.scores.__getitem__)].row
        return self.keywords[row.name], row.views

    def default(self, views: int) -> str | None:
        """Name of the candidate that is SRT's default, at so many views."""
        plain = {"views": views_keyword(views)}
        return next((name for name, own in self.keywords.items() if own == plain), None)

    def _beyond(self, row: Row) -> list[RowArg]:
        best = row.settings
        if best is None or not isinstance(best.smooth, str):
            return []
        own = repr(best.but(smooth=None))
        every = [m.row.settings for m in self.measured]
        same = [s for s in every if s is not None and repr(s.but(smooth=None)) == own]
        grid = [Guided.parse(s.smooth) for s in same if isinstance(s.smooth, str)]
        return [
            {**self.keywords[row.name], "smooth": guided_keyword(how.space, how.colour)}
            for how in beyond(Guided.parse(best.smooth), grid)
        ]

    def _row(self, given: RowArg) -> Row | None:
        """The row of a candidate; None for one that is there."""
        settings = settings_of(given)
        own = vars(settings) if isinstance(given, Settings) else given
        shown = {k: v for k, v in own.items() if v != getattr(Settings(), k)}
        if not self.keywords:
            self.keywords[PLAIN] = shown
            return Row(PLAIN, "plain", "plain")
        if shown in self.keywords.values():
            return None
        views = len(chosen_views(settings, self.patch, quiet=True))
        name = srt_name(settings, views).removeprefix("SRT ")
        while name in self.keywords:
            name += "'"
        self.keywords[name] = shown
        # One view per forward, so that candidates share what the backbone returned.
        alone = settings.but(view_batch=1)
        return Row(name, "srt" if views > 1 else "control", "srt", views, alone)

    def _views(self, row: Row) -> list[Any]:
        """What the backbone sees of an image."""
        if row.settings is None:
            return [(0, 0, False, "")]
        views = chosen_views(row.settings, self.patch, quiet=True)
        mirrored = views.mirrored or (False,) * len(views)
        padding = row.settings.padding
        return [
            (y, x, flip, padding if y or x else "")
            for (y, x), flip in zip(views.translations, mirrored)
        ]

    def _can(self, row: Row, quiet: bool) -> bool:
        """Whether the model can run a candidate within the budget. One of each kind is tried; heads
        say in their own ways that they cannot read finer maps.
        """
        kind = _kind(row)
        if kind not in self._costs:
            self._costs[kind] = self._tried(row, quiet)
        if self._costs[kind] is None:
            del self.keywords[row.name]
        return self._costs[kind] is not None

    def _tried(self, row: Row, quiet: bool) -> Cost | None:
        settings = row.settings
        try:
            cost = self._counted(row)
        except Exception as error:
            unusual = settings is not None and (settings.stride is not None or quiet)
            if not unusual or is_out_of_memory(error):
                raise
            if not (quiet and isinstance(error, SRTError)):
                reason = f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"
                if not any(note.endswith(reason) for note in self.notes):
                    self.notes.append(f"candidates like {row.name!r}: left out, {reason}")
            return None
        if settings is None:
            return cost
        plain = self._costs[_kind(None)]
        assert plain is not None  # it is the first of all
        over = cost.flops / max(1, plain.flops)
        if row.views > 1 and over > self.budget * _SLACK:
            self.dear[row.name] = over
            return None
        return cost

    def _counted(self, row: Row) -> Cost:
        """Operations for the first image, those of what is remembered among them, and seconds."""
        memory, first = self.memory, self.runs.session.first
        with self.runs.active(row):
            before, recalled = memory.runs, memory.recalled
            flops = count_flops(first) + (memory.recalled - recalled) * self._backbone_flops
            if not memory.runs - before + memory.recalled - recalled:
                return Cost(flops, None)  # nothing is remembered of it
            start, recalled = time.perf_counter(), memory.recalled
            if row.settings is None:
                rest = count_flops(first)
                calls = memory.recalled - recalled
                self._backbone_flops = (flops - rest) // calls if calls else 0
            else:
                first()
            return Cost(flops, time.perf_counter() - start)

    def _cost(self, row: Row) -> Cost:
        cost = self._costs[_kind(row)]
        assert cost is not None  # rows that cannot be run are not kept
        return cost

    def _told(self, row: Row, number: int, rows: int) -> Any:
        progress, images = self.request.progress, self.runs.session.images
        if progress is None:
            return None
        return lambda done: progress(row.name, number, rows, done, images)


def _kind(row: Row | None) -> Any:
    """What candidates that cost the same, and that a model can run or not, have in common."""
    if row is None or row.settings is None:
        return None
    own = row.settings
    same = own.but(smooth=None, views=None, level=None)
    return row.views, type(own.smooth), repr(same)


def _lasting(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"
