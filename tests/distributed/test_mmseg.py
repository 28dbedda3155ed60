"""MMSegmentation on two processes: its own distributed test, and views shared from its configs."""

from __future__ import annotations

import pytest
import torch

pytest.importorskip("mmseg", reason="needs MMSegmentation (make setup)")

from tests.distributed import mmseg_worker as worker
from tests.distributed.pair import of

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")


@pytest.fixture(scope="module")
def ranks(two_processes):
    return two_processes("tests.distributed.mmseg_worker", "torchrun")


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """Metrics and logits of each run in one process."""
    folder = tmp_path_factory.mktemp("alone")
    return {name: worker.tested(folder, **run) for name, run in worker.RUNS.items()}


def close(got, expected):
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", worker.RUNS)
def test_images_dealt_out_give_the_metrics_of_one_process(ranks, alone, name):
    metrics, logits = alone[name]
    assert len(logits) == worker.IMAGES
    seen = []
    for rank, (its_metrics, its_logits) in enumerate(of(ranks, name)):
        assert its_metrics == metrics
        # Every second image each, the last place filled with an image that was there before.
        images = [i % worker.IMAGES for i in range(rank, worker.IMAGES + 1, 2)]
        close(its_logits, [logits[i] for i in images])
        seen += images
    assert len(seen) == worker.IMAGES + 1 and set(seen) == set(range(worker.IMAGES))


def test_the_runs_differ(alone):
    """SRT was on, or the metrics above would say nothing of it."""
    plain, config, hook = (alone[name][1] for name in ("plain", "config", "hook"))
    assert all(map(torch.equal, config, hook)) and not torch.equal(config[0], plain[0])
    assert alone["plain"][0] != alone["config"][0]


@pytest.mark.parametrize("form", worker.CONFIGS)
def test_views_shared_from_a_config(ranks, form):
    one, other = of(ranks, form)
    assert torch.equal(one, other)
    close(one, worker.shared(form))


def test_views_shared_by_attach(ranks):
    one, other = of(ranks, "attach")
    assert torch.equal(one, other)
    close(one, worker.attached())


def test_sharing_views_of_images_that_are_dealt_out_is_refused(ranks):
    for message in of(ranks, "dealt out"):
        assert "same images" in message and "leave group out" in message
