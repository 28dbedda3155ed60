"""Detectron2 on two processes: its own launcher and evaluation, and views shared from configs."""

from __future__ import annotations

import pytest
import torch

pytest.importorskip("detectron2", reason="needs Detectron2 (make setup DETECTRON2=...)")

from tests.distributed import detectron2_worker as worker
from tests.distributed.pair import of

pytestmark = pytest.mark.filterwarnings(
    "ignore::UserWarning", "ignore::FutureWarning", "ignore:__array__:DeprecationWarning"
)


@pytest.fixture(scope="module")
def ranks(two_processes):
    return two_processes("tests.distributed.detectron2_worker", "one")


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """What each run gives in one process."""
    return {
        name: worker.evaluated(tmp_path_factory.mktemp("alone"), *run)
        for name, run in worker.RUNS.items()
    }


@pytest.mark.parametrize("name", worker.RUNS)
def test_images_dealt_out_give_the_metrics_of_one_process(ranks, alone, name):
    metrics, seen, files = alone[name]
    (first, its_images, its_files), (second, other_images, _) = of(ranks, name)
    assert len(seen) == worker.IMAGES and its_images + other_images == seen
    assert (len(its_images), len(other_images)) == (2, 1)
    assert second == {}
    assert set(first) == set(metrics)
    for task in metrics:
        assert first[task] == pytest.approx(metrics[task], nan_ok=True)
    assert len(files) == len(its_files) > 0 and all(map(len, files))
    for got, expected in zip(its_files, files):
        assert same(got, expected)


def same(got, expected):
    """Equal up to rounding, wherever numbers are in it."""
    if isinstance(expected, dict):
        return got.keys() == expected.keys() and all(same(got[k], expected[k]) for k in expected)
    if isinstance(expected, list):
        return len(got) == len(expected) and all(map(same, got, expected))
    return got == (pytest.approx(expected) if isinstance(expected, float) else expected)


def test_the_runs_differ(alone):
    """SRT was on, or the metrics above would say nothing of it."""
    assert alone["labels"][0] != alone["labels, plain"][0]


@pytest.mark.parametrize("form", ["yacs", "lazy"])
def test_views_shared_from_a_config(ranks, form):
    one, other = of(ranks, form)
    expected = getattr(worker, form)()
    assert len(one) == len(expected) > 0
    for a, b, wanted in zip(one, other, expected):
        assert torch.equal(a, b)
        torch.testing.assert_close(a, wanted, rtol=1e-4, atol=1e-4)
