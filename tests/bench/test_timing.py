"""Turns, ratios, plain batches and peak memory against what is known beforehand."""

from __future__ import annotations

import time

import pytest
import torch

from srt_plugins.bench.memory import peak_bytes, weight_bytes
from srt_plugins.bench.plain import Plain
from srt_plugins.bench.timing import Clock, Job, Spread, in_turns

CPU = torch.device("cpu")
MIB = 2**20


def test_a_ratio_is_over_the_looks_just_before_and_after():
    order = []
    looks = iter([1.0, 3.0, 5.0, 1.0, 1.0, 2.0])
    seconds = {"a": iter([8.0, 6.0]), "b": iter([16.0])}

    def clock(run, calls):
        return next(seconds[run()])

    def job(name, repeats):
        return Job(lambda: order.append(name) or name, views=4, repeats=repeats)

    first, second = job("a", 2), job("b", 1)
    found = in_turns([first, second], clock, lambda views: next(looks))
    assert order == ["a", "b", "a"]
    assert first.seconds == [8.0, 6.0] and second.seconds == [16.0]
    assert first.ratios == [8 / (4 * 2), 6 / (4 * 1)]
    assert second.ratios == [16 / (4 * 4)]
    assert found == [1.0, 3.0, 5.0, 1.0, 1.0]


def test_what_does_not_fit_is_said_and_left_out():
    def full():
        raise torch.cuda.OutOfMemoryError("CUDA out of memory")

    big, small = Job(full, 4, repeats=2), Job(lambda: None, 4, repeats=2)
    in_turns([big, small], Clock(CPU))
    assert big.failed == "out of memory" and not big.seconds
    assert len(small.seconds) == 2


def test_other_errors_are_not_hidden():
    def broken():
        raise RuntimeError("shapes do not match")

    with pytest.raises(RuntimeError, match="shapes do not match"):
        in_turns([Job(broken, 4)], Clock(CPU))


def test_clocks():
    """Sleeping takes time of day, but no core."""
    assert 0.02 <= Clock(CPU)(lambda: time.sleep(0.02), calls=2) < 1
    assert Clock(CPU, process=True)(lambda: time.sleep(0.2)) < 0.1
    assert Clock(CPU).calls(0.001) == 20
    assert Clock(CPU).calls(3.0) == 1


def test_spread():
    assert Spread.of([3.0, 1.0, 2.0, 10.0]) == Spread(2.5, 1.0, 10.0, 4)
    assert Spread.of([1.0, 2.0]).times(4) == Spread(6.0, 4.0, 8.0, 2)


class Made(torch.nn.Module):
    """Takes as many seconds per view, by batch, as given: on a clock of its own."""

    def __init__(self, seconds):
        super().__init__()
        self.seconds, self.now = seconds, 0.0

    def forward(self, images):
        self.now += len(images) * self.seconds[len(images)]

    def clock(self):
        class Ticks(Clock):
            def __call__(clock, run, calls=1):
                before = self.now
                for _ in range(calls):
                    run()
                return (self.now - before) / calls

        return Ticks(CPU)


def test_plain_batches_are_tried_while_they_get_faster():
    per_view = {1: 12.0, 2: 9.0, 4: 6.0, 8: 12.0, 16: 1.0}
    made = Made(per_view)
    plain = Plain(made, torch.zeros(1, 3, 8, 8), made.clock())
    assert plain.batches == {batch: per_view[batch] for batch in (1, 2, 4, 8)}
    assert [plain.best(n) for n in (1, 2, 3, 4, 16, 49)] == [1, 2, 2, 4, 4, 4]
    assert [plain.seconds_per_view(n) for n in (1, 2, 49)] == [12.0, 9.0, 6.0]


def test_a_batch_that_is_hardly_faster_is_not_better():
    made = Made({1: 12.0, 2: 11.875})
    plain = Plain(made, torch.zeros(1, 3, 8, 8), made.clock())
    assert plain.batches == {1: 12.0, 2: 11.875} and plain.best(49) == 1


def test_peak_memory_counts_what_is_alive_at_once():
    before = torch.zeros(MIB, dtype=torch.uint8)

    def run():
        a = before + 1
        b = a + 1  # two at once
        del a
        views = [b[:8], before[:8], b.view(2, -1)]  # nothing new
        c = b + 1
        return c.sum(), views

    peak = peak_bytes(run, CPU)
    assert 2 * MIB <= peak < 2 * MIB + 1024
    assert peak_bytes(lambda: before.add_(1), CPU) == 0


def test_weights():
    module = torch.nn.BatchNorm1d(4)
    assert weight_bytes(module) == 4 * 4 * 4 + 8  # weight, bias, mean, variance; a counter
