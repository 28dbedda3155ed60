"""Seconds of several things measured in turns, each between two looks at a reference."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Callable

import torch


@dataclass(frozen=True)
class Spread:
    """Median, lowest and highest of ``count`` measurements."""

    median: float
    low: float
    high: float
    count: int

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """Of one measurement or more."""
        return cls(statistics.median(values), min(values), max(values), len(values))

    def times(self, factor: float) -> Spread:
        """In another unit."""
        return Spread(self.median * factor, self.low * factor, self.high * factor, self.count)


@dataclass(frozen=True)
class Clock:
    """Seconds of a call on a device.

    Attributes:
        device: a GPU is timed with events.
        process: on a CPU, seconds that its cores spent on this process, which other programs
            disturb less than the time of day.
    """

    device: torch.device
    process: bool = False

    @property
    def at_least(self) -> float:
        """Seconds below which a measurement would be noise."""
        return 0.05 if self.device.type == "cuda" else 0.02

    def calls(self, expected: float) -> int:
        """Calls that fill a measurement where each takes ``expected`` seconds."""
        return max(1, math.ceil(self.at_least / max(expected, 1e-6)))

    def __call__(self, run: Callable[[], Any], calls: int = 1) -> float:
        """Seconds of one call, the mean over ``calls``."""
        if self.device.type != "cuda":
            now = time.process_time if self.process else time.perf_counter
            start = now()
            for _ in range(calls):
                run()
            return (now() - start) / calls
        first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        with torch.cuda.device(self.device):
            torch.cuda.synchronize()
            first.record()
            for _ in range(calls):
                run()
            last.record()
            torch.cuda.synchronize()
        return first.elapsed_time(last) / 1000 / calls


@dataclass
class Job:
    """Something to be timed.

    Attributes:
        run: what is timed.
        views: how many views it runs.
        repeats: how often it is measured.
        calls: calls per measurement.
        seconds: of one call, per measurement.
        ratios: seconds over those that as many views took in the reference just before and after.
        failed: why there are no more measurements.
    """

    run: Callable[[], Any]
    views: int
    repeats: int = 1
    calls: int = 1
    seconds: list[float] = field(default_factory=list)
    ratios: list[float] = field(default_factory=list)
    failed: str = ""


def in_turns(
    jobs: Sequence[Job],
    clock: Callable[[Callable[[], Any], int], float],
    reference: Callable[[int], float] | None = None,
    done: Callable[[Job], None] = lambda _: None,
) -> list[float]:
    """Fill in ``seconds`` and ``ratios`` of the jobs: each in turn, then all of them again.

    A machine that gets slower or faster over minutes thus weighs on all of them, and the reference
    is taken beside each.

    Args:
        jobs: those with ``failed`` set are left out.
        clock: seconds of one call, from so many calls.
        reference: seconds per view of what a job of so many views is compared with.
        done: told after each measurement.

    Returns:
        All measurements of the reference, in seconds per view.
    """
    looks: list[float] = []
    for turn in range(max((job.repeats for job in jobs), default=0)):
        before = None
        for job in jobs:
            if turn >= job.repeats or job.failed:
                continue
            if reference is not None and before is None:
                before = reference(job.views)
                looks.append(before)
            try:
                taken = clock(job.run, job.calls)
            except RuntimeError as error:
                job.failed = out_of_memory(error)
                continue
            job.seconds.append(taken)
            if reference is not None and before is not None:
                after = reference(job.views)
                looks.append(after)
                job.ratios.append(taken / (job.views * (before + after) / 2))
                before = after
            done(job)
    return looks


def out_of_memory(error: RuntimeError) -> str:
    """``"out of memory"``; any other error is raised again."""
    full = isinstance(error, torch.cuda.OutOfMemoryError)
    if not full and "can't allocate memory" not in str(error):
        raise error
    if full:
        torch.cuda.empty_cache()
    return "out of memory"
