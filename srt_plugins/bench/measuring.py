"""Measuring one backbone: its plain forward, then every row as a whole and in parts."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any, Callable

import torch
from torch import Tensor, nn

from ..adapters import describe
from ..core.views import Views
from ..errors import ConfigError
from ..settings import Settings
from ..wrapper import SRTWrapper
from . import naive
from .aggregation import Stored
from .memory import images_per_forward, peak_bytes, weight_bytes
from .plain import Plain
from .plan import Plan
from .results import AggregationResult, Measurement, RowResult
from .rows import BLIND, NAIVE, STATISTICS, TOKEN_MEAN, Row, rows
from .timing import Clock, Job, Spread, in_turns, out_of_memory

Progress = Callable[[str, int], None]

_AGGREGATED = (*STATISTICS, BLIND, NAIVE)
# Seconds: what takes longer is not called beforehand; an aggregation's warming up is then counted.
_SHORT, _LONG = 1.0, 3.0
# Calls in which view_batch="auto" finds out on a GPU what is fastest.
_FINDING_OUT = 10


def measure(
    name: str,
    backbone: nn.Module,
    images: Tensor,
    plan: Plan,
    progress: Progress = lambda _what, _views: None,
) -> Measurement:
    """Everything about one backbone at the size, dtype and device of ``images``.

    Args:
        name: what the backbone is called in the tables.
        backbone: in eval mode, not wrapped; returns a list whose first entry is a feature map
            ``(1, C, h, w)``.
        images: ``(1, 3, H, W)``, whole patches; not made in inference mode.
        plan: numbers of views and repeats.
        progress: told what is done, and views as they are; :meth:`Plan.total_views` in all.

    Raises:
        ConfigError: the backbone returns something else; the images are no whole patches; a number
            of views that the patch does not have.
    """
    with torch.inference_mode():
        return _Session(backbone, images, plan, progress).measure(name)


@dataclass
class _Entry:
    """A row, how it is run, how many views at once (0: not yet known), and its memory."""

    row: Row
    job: Job
    chunk: int = 0
    peak: int | None = None

    def result(self, forward_peak: int | None) -> RowResult:
        extra = None if self.peak is None or forward_peak is None else self.peak - forward_peak
        return RowResult(
            name=self.row.name,
            kind=self.row.kind,
            views=self.row.views,
            keywords=self.row.keywords,
            chunk=self.chunk,
            seconds=_spread(self.job.seconds),
            ratio=_spread(self.job.ratios),
            peak=self.peak,
            extra=extra,
            failed=self.job.failed,
        )


class _Session:
    """One backbone, with what its measurements share."""

    def __init__(self, backbone: nn.Module, images: Tensor, plan: Plan, progress: Progress) -> None:
        self.backbone, self.images, self.plan, self.progress = backbone, images, plan, progress
        self.device = images.device
        self.clock = Clock(self.device, plan.process_time)
        self.features: Tensor = backbone(images)[0]
        self.patch = _patch(images, self.features)
        self.views = plan.views(self.patch)
        self.blocks = len(describe(backbone).blocks)

    def measure(self, name: str) -> Measurement:
        self.progress("plain forwards", 0)
        plain = Plain(self.backbone, self.images, self.clock)
        entries = [self._entry(row) for row in rows(self.plan.counts, self.blocks)]
        self._settle(entries)
        for entry in entries:
            self._warm(entry, plain)
            if self.plan.is_weighed(entry.row, self.device):
                self._weigh(entry, plain)
        chunks = {e.row.views: e.chunk for e in entries if e.row.name == TOKEN_MEAN}
        for entry in entries:
            entry.chunk = entry.chunk or chunks[entry.row.views]
        aggregations = [pair for n in chunks for pair in self._aggregations(n, chunks[n] or 1)]
        looks = {n: self._time(n, entries, plain) for n in (1, *self.plan.counts)}
        return Measurement(
            model=name,
            size=(self.images.shape[-2], self.images.shape[-1]),
            patch=self.patch,
            tokens=(self.features.shape[-2], self.features.shape[-1]),
            channels=self.features.shape[1],
            dtype=str(self.images.dtype).replace("torch.", ""),
            device=self.device.type,
            threads=torch.get_num_threads(),
            weights=weight_bytes(self.backbone),
            batches=plain.batches,
            best={n: plain.best(n) for n in looks},
            plain=looks,
            forward_peaks=plain.peaks,
            rows=[entry.result(plain.peaks.get(entry.chunk)) for entry in entries],
            aggregations=[_aggregation_result(*pair) for pair in aggregations],
        )

    def _entry(self, row: Row) -> _Entry:
        views = self.views[row.views]
        if row.kind == "naive":
            run, chunk = _naive(self.backbone, self.images, views, self.patch), 1
        else:
            run, chunk = _ours(self.backbone, self.images, row.keywords, self.plan.view_batch), 0
        return _Entry(row, Job(run, row.views, self.plan.repeats_of(row, self.device)), chunk)

    def _settle(self, entries: list[_Entry]) -> None:
        """Let happen what happens once for a size: small matrices are made, batches found out."""
        for entry in entries:
            if entry.row.kind != "naive" and entry.row.name in _AGGREGATED and entry.row.views > 1:
                views = self.views[entry.row.views]
                few = Stored.like(self.features[:, :1], views, len(views), self.patch)
                _aggregating(few, entry.row)()
        if self.device.type == "cuda":
            *_, last = (entry for entry in entries if entry.row.name == TOKEN_MEAN)
            for _ in range(_FINDING_OUT):
                last.job.run()

    def _aggregations(self, count: int, chunk: int) -> list[tuple[Row, Job]]:
        """Aggregation alone of the rows that have such a part, timed in turns."""
        self.progress(f"{count} views: aggregation alone", 0)
        stored = Stored.like(self.features, self.views[count], chunk, self.patch)
        every = rows((count,), 0)
        chosen = [row for row in every if row.views == count and row.name in _AGGREGATED]
        made = [(row, self._aggregation(row, stored)) for row in chosen]
        in_turns([job for _, job in made], self.clock)
        return made

    def _aggregation(self, row: Row, stored: Stored) -> Job:
        run = stored.aggregate_naively if row.kind == "naive" else _aggregating(stored, row)
        job = Job(run, row.views, self.plan.repeats_of(row, self.device))
        try:
            if row.kind != "naive":
                run()
            first = self.clock(run)
        except RuntimeError as error:
            job.failed = out_of_memory(error)
            return job
        job.calls = self.clock.calls(first)
        if first > _LONG:
            job.seconds, job.repeats = [first], job.repeats - 1
        return job

    def _warm(self, entry: _Entry, plain: Plain) -> None:
        """Call what is short, to see how many calls fill a measurement."""
        if entry.row.views * plain.expected < _SHORT:
            try:
                entry.job.run()
                entry.job.calls = self.clock.calls(self.clock(entry.job.run))
            except RuntimeError as error:
                entry.job.failed = out_of_memory(error)

    def _weigh(self, entry: _Entry, plain: Plain) -> None:
        if not entry.job.failed:
            try:
                with images_per_forward(self.images) as seen:
                    entry.peak = peak_bytes(entry.job.run, self.device)
                entry.chunk = max(seen)
                plain.peak(entry.chunk)
            except RuntimeError as error:
                entry.job.failed = out_of_memory(error)
        self.progress(f"{entry.row.views} views: memory of {entry.row.name}", entry.row.views)

    def _time(self, count: int, entries: list[_Entry], plain: Plain) -> Spread:
        """Time the rows of a number of views in turns; gives plain seconds per view beside them."""
        names = {id(entry.job): entry.row.name for entry in entries}
        looks = in_turns(
            [entry.job for entry in entries if entry.row.views == count],
            self.clock,
            plain.seconds_per_view,
            lambda job: self.progress(f"{count} views: {names[id(job)]}", count),
        )
        return Spread.of(looks or [plain.expected])


def _patch(images: Tensor, features: Tensor) -> int:
    """Pixels per token."""
    patch = images.shape[-2] // features.shape[-2] if features.ndim == 4 else 0
    if not patch or [n * patch for n in features.shape[-2:]] != list(images.shape[-2:]):
        raise ConfigError(
            "Expected a backbone whose first output is a map (1, C, h, w) of the whole patches of "
            f"the image, got {tuple(features.shape)} for images {tuple(images.shape)}; use a ViT, "
            "and a size of whole patches."
        )
    return patch


def _ours(
    backbone: nn.Module, images: Tensor, keywords: dict[str, Any], view_batch: int | str
) -> Callable[[], Any]:
    # Another shell over the same weights, so that each row is wrapped once and called many times.
    wrapped = SRTWrapper(copy.copy(backbone), view_batch=view_batch, **keywords)
    return lambda: wrapped(images)


def _naive(backbone: nn.Module, images: Tensor, views: Views, patch: int) -> Callable[[], Any]:
    return lambda: naive.run(backbone, images, views.translations, patch)


def _aggregating(stored: Stored, row: Row) -> Callable[[], Any]:
    settings = Settings.of(**row.keywords)
    return lambda: stored.aggregate(settings)


def _aggregation_result(row: Row, job: Job) -> AggregationResult:
    return AggregationResult(row.name, row.kind, row.views, _spread(job.seconds), job.failed)


def _spread(values: list[float]) -> Spread | None:
    return Spread.of(values) if values else None
