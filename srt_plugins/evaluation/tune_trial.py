"""Running candidates on the images that choose, and going on where the best is at the edge."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..core.guided import Guided
from ..core.memory import is_out_of_memory
from ..settings import Settings
from ..state import chosen_views
from .candidates import beyond, guided_keyword
from .request import Request
from .results import Measured
from .rows import Row, RowArg, settings_of, srt_name
from .runs import Runs
from .tune_choice import Candidate, Choice, choose

PLAIN = "plain"


class Trial:
    """Candidates that were run on the images that choose.

    Args:
        runs: of a session whose data are those images.
        patch: pixels, the period of the views.
        request: how it is run.
    """

    def __init__(self, runs: Runs, patch: int, request: Request) -> None:
        self.runs = runs
        self.patch = patch
        self.request = request
        self.measured: list[Measured] = []
        self.keywords: dict[str, dict[str, Any]] = {}
        self.notes: list[str] = []
        # Whether the model can run candidates of a kind, tried on one image.
        self._possible: dict[Any, bool] = {}

    def run(self, every: Sequence[RowArg]) -> None:
        """Run candidates; the first of all is the plain model."""
        rows = [self._row(one) for one in every]
        rows = [row for row in rows if self._can(row)]
        for number, row in enumerate(rows):
            with self.runs.active(row):
                run = self.runs.session.run(self._told(row, number, len(rows)))
            self.measured.append(Measured(row, run.metrics, run.reported, run.seconds, 0))

    def choice(self) -> Choice:
        """What to take of those that were run."""
        found = [
            Candidate(m.row.settings or Settings(views=[(0, 0)]), m.row.views, m.metrics[0])
            for m in self.measured
        ]
        return choose(found, self.request.seed, self.request.resamples)

    def beyond(self) -> list[RowArg]:
        """Candidates beyond the grid of strengths where the best ones, of several views and of one,
        are at its edge.
        """
        choice = self.choice()
        rows = [self.measured[i].row for i in {choice.best, choice.free} if i is not None]
        return [one for row in rows for one in self._beyond(row)]

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

    def _row(self, given: RowArg) -> Row:
        settings = settings_of(given)
        own = vars(settings) if isinstance(given, Settings) else given
        shown = {k: v for k, v in own.items() if v != getattr(Settings(), k)}
        if not self.keywords:
            self.keywords[PLAIN] = shown
            return Row(PLAIN, "plain", "plain")
        views = len(chosen_views(settings, self.patch, quiet=True))
        name = srt_name(settings, views).removeprefix("SRT ")
        while name in self.keywords:
            name += "'"
        self.keywords[name] = shown
        # One view per forward, so that candidates share what the backbone returned.
        alone = settings.but(view_batch=1)
        return Row(name, "srt" if views > 1 else "control", "srt", views, alone)

    def _can(self, row: Row) -> bool:
        """Whether the model can run a candidate. Of each stride and way of smoothing one is tried;
        heads say in their own ways that they cannot read finer maps.
        """
        settings = row.settings
        kind = None if settings is None else (settings.stride, type(settings.smooth))
        if kind not in self._possible:
            self._possible[kind] = True
            try:
                with self.runs.active(row):
                    self.runs.session.first()
            except Exception as error:
                if settings is None or settings.stride is None or is_out_of_memory(error):
                    raise
                self._possible[kind] = False
                self.notes.append(
                    f"candidates like {row.name!r}: left out, {type(error).__name__}: "
                    f"{(str(error).splitlines() or [''])[0]}"
                )
        if not self._possible[kind]:
            del self.keywords[row.name]
        return self._possible[kind]

    def _told(self, row: Row, number: int, rows: int) -> Any:
        progress, images = self.request.progress, self.runs.session.images
        if progress is None:
            return None
        return lambda done: progress(row.name, number, rows, done, images)
