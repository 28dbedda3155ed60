"""Views per forward: what happens where memory runs out, and how the fastest number is found."""

from __future__ import annotations

import itertools
import warnings
import weakref

import pytest
import torch

from srt_plugins.core import batches
from srt_plugins.core.accumulator import Aggregation, Grid
from srt_plugins.core.batches import Batches
from srt_plugins.core.chunks import run_views
from srt_plugins.core.ensemble import ensemble
from srt_plugins.core.views import grid

VIEWS = grid(2, 8)  # 25 of them


@pytest.fixture(autouse=True)
def nothing_known(monkeypatch):
    monkeypatch.setattr(batches, "_KNOWN", type(batches._KNOWN)())


def raised_by_hand():
    raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.")


def raised_by_the_allocator():
    torch.empty(1 << 55)


FAILURES = [raised_by_hand, raised_by_the_allocator]


class Limited:
    """Features of views, as long as there are no more than ``fits`` at a time."""

    def __init__(self, fits, fail=raised_by_hand):
        self.fits, self.fail = fits, fail
        self.sizes, self.done = [], []

    def __call__(self, chunk, chosen):
        self.sizes.append(chosen.stop - chosen.start)
        if self.sizes[-1] > self.fits:
            self.fail()
        self.done += range(chosen.start, chosen.stop)
        return [Grid(torch.nn.functional.avg_pool2d(chunk, 8), (8, 8))]


@pytest.mark.parametrize("fail", FAILURES)
@pytest.mark.parametrize("fits", [1, 5])
def test_fewer_views_are_run_where_memory_runs_out(fits, fail):
    images = torch.randn(2, 3, 24, 16)
    plain = ensemble(Limited(100), images, VIEWS, Aggregation(), view_batch=12).results()[0]
    run = Limited(fits, fail)
    with pytest.warns(UserWarning, match="view_batch=12") as caught:
        got = ensemble(run, images, VIEWS, Aggregation(), view_batch=12).results()[0]
    assert len(caught) == 1
    assert run.done == list(range(25))
    assert run.sizes[0] == 12 and max(run.done) == 24
    torch.testing.assert_close(got, plain)


def test_what_fits_is_remembered_for_the_shape_and_said_once():
    small, large = torch.zeros(1, 3, 16, 16), torch.zeros(1, 3, 24, 24)
    run = Limited(5)
    with pytest.warns(UserWarning, match="12 views of 1 image.* 16x16.*going on with at most 3"):
        list(run_views(run, small, VIEWS, view_batch=12))
    assert run.sizes[:3] == [12, 6, 3]
    again = Limited(5)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        list(run_views(again, small, VIEWS, view_batch=12))
        list(run_views(Limited(2), small, VIEWS, view_batch=12))  # less memory than before
    assert set(again.sizes) == {3, 1}
    other = Limited(5)
    with pytest.warns(UserWarning, match="24x24"):
        list(run_views(other, large, VIEWS, view_batch=6))
    assert other.sizes[:2] == [6, 3]


def test_auto_backs_off_too():
    run = Limited(2)
    with pytest.warns(UserWarning, match="view_batch='auto'"):
        list(run_views(run, torch.zeros(1, 3, 16, 16, device="meta"), VIEWS))
    assert run.done == list(range(25)) and run.sizes[0] > 2


@pytest.mark.parametrize("fail", FAILURES)
def test_one_view_that_does_not_fit_is_an_error_with_advice(fail):
    run = Limited(0, fail)
    expected = torch.cuda.OutOfMemoryError if fail is raised_by_hand else RuntimeError
    with pytest.raises(expected, match="16x24 pixels") as caught:
        list(run_views(run, torch.zeros(3, 3, 16, 24), VIEWS, view_batch=4))
    assert type(caught.value) is expected
    assert "allocate" in str(caught.value) and "fewer than 3 images" in str(caught.value)
    assert run.sizes == [4, 2, 1]


def test_other_errors_are_not_tried_again():
    def run(chunk, chosen):
        calls.append(chosen)
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    calls = []
    with pytest.raises(RuntimeError, match="multiplied$"):
        list(run_views(run, torch.zeros(1, 3, 16, 16), VIEWS, view_batch=4))
    assert len(calls) == 1


def test_what_a_failed_forward_held_is_gone_before_the_next():
    held = []

    def run(chunk, chosen):
        assert all(reference() is None for reference in held)
        activations = torch.zeros_like(chunk)
        held.extend([weakref.ref(activations), weakref.ref(chunk)])
        if chosen.stop - chosen.start > 3:
            raised_by_the_allocator()
        return chosen

    with pytest.warns(UserWarning, match="out of memory"):
        list(run_views(run, torch.zeros(1, 3, 16, 16), VIEWS, view_batch=12))
    assert len(held) > 6


def sizes(view_batch, images, views=25):
    counts = Batches(view_batch, images, images.shape[2:])
    left, found = views, []
    while left:
        found.append(counts.step(left))
        left -= found[-1]
    return found


def test_a_number_is_taken_as_it_is():
    assert sizes(10, torch.zeros(2, 3, 16, 16)) == [10, 10, 5]
    assert sizes(100, torch.zeros(2, 3, 16, 16)) == [25]


def test_auto_runs_views_one_by_one_on_a_cpu():
    assert sizes("auto", torch.zeros(1, 3, 16, 16)) == [1] * 25


@pytest.mark.parametrize(
    ("images", "expected"), [(1, [7, 6, 6, 6]), (3, [2] * 12 + [1]), (9, [1] * 25)]
)
def test_auto_runs_a_few_images_of_even_chunks_where_time_is_not_measured(images, expected):
    assert sizes("auto", torch.zeros(images, 3, 16, 16, device="meta")) == expected


def search(seconds, room=lambda size: True, limit=None, images=60):
    """Views per forward that the search ends at, of forwards that take ``seconds(size)``."""
    known = batches._Known(limit=limit)
    first = set()
    for _ in range(images):
        left = 49
        while left and not known.settled:
            size = min(known.size, left)
            known_size = size in first  # a first forward takes long
            first.add(size)
            known.record(size, seconds(size) + (0 if known_size else 10), room(size))
            left -= size
    assert known.settled
    return known.size


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        (lambda n: 1.0 * n, 1),  # saturated at once
        (lambda n: 1.0, 32),  # never: as many as there are views
        (lambda n: max(8, n), 8),
        (lambda n: max(5, n), 8),
        (lambda n: 0.1 + n, 2),  # a forward costs a tenth of a view: 1.1, 1.05, 1.025 ...
        (lambda n: n**1.1, 1),
    ],
)
def test_the_search_ends_where_more_views_gain_little(seconds, expected):
    if expected == 32:  # 64 never fit into 49 views, so the search goes on with 49
        known = batches._Known()
        for size in itertools.chain.from_iterable([n] * 3 for n in (1, 2, 4, 8, 16, 32)):
            known.record(size, seconds(size), True)
        assert known.size == 64 and not known.settled
    else:
        assert search(seconds) == expected


def test_the_search_stays_within_memory_and_what_ran_out_of_it():
    assert search(lambda n: 1.0, room=lambda size: size < 4) == 4
    assert search(lambda n: 1.0, limit=5) == 4


def test_decisions_are_bounded():
    for width in range(200):
        Batches("auto", torch.zeros(1, 1, 4, 4 + width), (4, 4 + width))
    assert len(batches._KNOWN) <= batches._KNOWN_SIZE
