"""Batches judged one by one are the whole run."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("mmseg", reason="needs MMSegmentation")

from srt_plugins.evaluation.checkpoint import load_weights
from srt_plugins.evaluation.mmseg_session import Session
from srt_plugins.evaluation.request import Request


@pytest.mark.parametrize("size", [1, 2])
def test_batches_are_the_whole_run(tiny, size):
    with Session(tiny.config, Request(device="cpu", batch_size=size)) as session:
        load_weights(session.model, tiny.checkpoint)
        parts = [session.run_batch(batch, i) for i, batch in enumerate(session.batches())]
        whole = session.run().metrics[0]
        assert [part[0].images for part in parts] == [size] * (5 // size) + [1] * (5 % size)
        assert np.array_equal(np.concatenate([part[0].areas for part in parts]), whole.areas)
        again = session.run_batch(next(iter(session.batches())))[0]
        assert np.array_equal(again.areas, parts[0][0].areas)  # nothing is left of other runs
