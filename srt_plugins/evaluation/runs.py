"""Trying and measuring the rows of a comparison, whatever framework the model is of."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field, replace
from typing import Any, Callable, TypeVar

import torch
from torch import Tensor

from ..core.views import Views
from ..errors import ConfigError, SRTError
from ..settings import Settings
from ..wrapper import mean_views_used, wrapped
from .calibration_rows import Calibration
from .calibration_run import Collected, with_dispersion
from .cost import Peak, count_flops
from .gains import compare
from .methods import matching_scale
from .metrics import Metric
from .request import Progress, Request
from .results import Comparison, Measured
from .rows import OWN, Row

# Views that every image of an adaptive row runs.
_LEAST = 2

Entered = TypeVar("Entered", bound="BaseSession")


@dataclass
class Run:
    """What one run over the data gave: metrics, seconds per image and batch, peak memory."""

    metrics: Sequence[Metric]
    reported: dict[str, float]
    seconds: list[float]
    peak: Peak
    other_seconds: dict[str, list[float]] = field(default_factory=dict)
    calibration: Calibration | None = None


class BaseSession:
    """A model with its test data; what those of all frameworks share."""

    model: Any
    # Names of classes; none where there are none.
    classes: list[str]
    # Collects the calibration of runs; None = not asked for.
    calibration: Collected | None = None

    @property
    def images(self) -> int:
        """How many images there are."""
        raise NotImplementedError

    def __enter__(self: Entered) -> Entered:
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()

    def close(self) -> None:
        """Leave nothing behind."""
        raise NotImplementedError

    def first(self) -> Any:
        """Run the model on the first image."""
        raise NotImplementedError

    def run(self, on_images: Any = None) -> Run:
        """Run the model over all data and evaluate."""
        raise NotImplementedError

    def completed(self, padding: str | None) -> AbstractContextManager[None]:
        """While active, partial patches are completed by ``padding``; None = as they are anyway."""
        raise NotImplementedError

    def inputs(self) -> Tensor:
        """What the backbone gets of the first image."""
        raise NotImplementedError

    def replicating_matters(self) -> bool:
        """Whether the first image has partial patches that are not completed by real pixels."""
        with torch.no_grad():
            own = self.inputs()
            try:
                with self.completed("replicate"):
                    other = self.inputs()
            except ConfigError:
                return False
        return not torch.equal(own, other)


class Runs:
    """Runs rows in a session, each as if it were the only one.

    Args:
        session: model and data.
        complete: how partial patches are completed, None = as they are anyway.
        views: those of the output ensemble, whose number the larger input matches.
    """

    def __init__(self, session: BaseSession, complete: str | None, views: Views) -> None:
        self.session = session
        self.complete = complete
        self.views = views
        self.scale = len(views) ** 0.5
        # What a view more or less costs, of rows whose images need not run all of theirs.
        self._flops_per_view: dict[str, float] = {}

    def active(self, row: Row) -> AbstractContextManager[Any]:
        """While active, the session's model is what the row says."""
        with ExitStack() as stack:
            complete = self.complete if row.complete is None else row.complete
            stack.enter_context(self.session.completed(None if complete == OWN else complete))
            if self.session.calibration is not None:
                row = with_dispersion(row)
            stack.enter_context(self.method(row))
            return stack.pop_all()

    def method(self, row: Row) -> AbstractContextManager[Any]:
        """While active, the session's model is run by the row's method."""
        raise NotImplementedError

    def tried(self, rows: list[Row], notes: list[str]) -> tuple[list[Row], dict[str, int]]:
        """Try every row on one image, which also counts operations and warms up.

        A larger input that the model cannot take (fixed sizes, memory) is left out with a note;
        any other failure ends the comparison before time is spent. Operations are those of all
        views, whatever the tolerance.
        """
        kept: list[Row] = []
        flops: dict[str, int] = {}
        srt = next(row for row in rows if row.kind == "srt")
        for row in rows:
            try:
                if row.method == "larger":
                    row = self._matched(row, flops[rows[0].name], flops[srt.name])
                flops[row.name] = self._count(row)
                if row.adaptive:
                    self._flops_per_view[row.name] = self._slope(row, flops[row.name])
            except Exception as error:
                if row.method != "larger" or isinstance(error, SRTError):
                    raise
                reason = (str(error).splitlines() or [""])[0]
                notes.append(f"{row.name}: left out, {type(error).__name__}: {reason}")
                continue
            kept.append(row)
        return kept, flops

    def _count(self, row: Row) -> int:
        if row.adaptive:
            row = _but(row, tolerance=0)
        with self.active(row):
            return count_flops(self.session.first)

    def _slope(self, row: Row, flops: int) -> float:
        """Operations per view, from those of all views and of two: a straight line, also where the
        rest of the model runs once.
        """
        if row.views <= _LEAST:
            return 0.0
        few = self._count(_but(row, max_views=_LEAST))
        return (flops - few) / (row.views - _LEAST)

    def _matched(self, row: Row, plain: int, srt: int) -> Row:
        """Set the scale at which the larger input costs what SRT costs, heads and all.

        Args:
            row: the larger input's.
            plain: operations of the plain model.
            srt: operations of the first SRT row.
        """

        def cost(scale: float) -> int:
            self.scale = scale
            return self._count(row)

        self.scale = matching_scale(cost, plain, srt)
        return replace(row, name=f"{row.name}, x{self.scale:.3g} per side")

    def measured(self, row: Row, flops: int, on_images: Any = None) -> Measured:
        """Run a row over all data.

        Args:
            row: which.
            flops: operations for an image with all views.
            on_images: called with the number of images done.
        """
        mean: float | None = None
        with self.active(row):
            run = self.session.run(on_images)
            if row.adaptive:
                mean = mean_views_used(self.session.model)
        return Measured(
            row,
            run.metrics,
            run.reported,
            run.seconds,
            flops if mean is None else self._at(row, flops, mean),
            run.peak.bytes,
            run.other_seconds,
            mean,
            run.calibration,
        )

    def _at(self, row: Row, flops: int, views: float) -> int:
        """Operations for an image with so many views."""
        return round(flops - self._flops_per_view.get(row.name, 0.0) * (row.views - views))

    def compared(self, rows: list[Row], notes: list[str], request: Request) -> Comparison:
        """Try all rows, run those that can be run, and compare what they gave.

        Args:
            rows: planned ones.
            notes: those of the comparison; gains what there is to say of rows.
            request: how to compare.
        """
        kept, flops = self.tried(rows, notes)
        images = self.session.images
        measured = [
            self.measured(row, flops[row.name], _told(request.progress, kept, number, images))
            for number, row in enumerate(kept)
        ]
        classes = self.session.classes
        found = compare(measured, classes, seed=request.seed, resamples=request.resamples)
        found.notes = notes
        return found


def _but(row: Row, **keywords: Any) -> Row:
    assert row.settings is not None
    return replace(row, settings=row.settings.but(**keywords))


def views_of(
    session: BaseSession, settings: Settings, enabled: AbstractContextManager[Any]
) -> Views:
    """The views of some settings; also checks the settings against the backbone.

    Args:
        session: model and data.
        settings: of SRT.
        enabled: while active, the model's backbone is wrapped with these settings.
    """
    with enabled:
        if settings.is_plain:
            return Views(((0, 0),), (1.0,))
        state = wrapped(session.model)[0]._srt
        if state.adapter.patch is None:
            session.first()  # an unknown backbone is probed on its first image
        views: Views = state.views()
        return views


def _told(
    progress: Progress | None, rows: list[Row], number: int, images: int
) -> Callable[[int], None] | None:
    if progress is None:
        return None
    return lambda done: progress(rows[number].name, number, len(rows), done, images)
