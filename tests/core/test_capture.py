"""Stopping a forward at a block, and running on from given tokens."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from srt_plugins.core.capture import capture, replaced
from srt_plugins.errors import CaptureError


@pytest.fixture
def chain():
    torch.manual_seed(0)
    return nn.Sequential(*[nn.Linear(4, 4) for _ in range(5)]).eval()


def test_the_forward_stops_after_the_last_block(chain):
    ran = []
    for i, block in enumerate(chain):
        block.register_forward_pre_hook(lambda *_, i=i: ran.append(i))
    x = torch.randn(2, 4)
    found = capture(chain, ["1", "3"], lambda: chain(x))
    assert ran == [0, 1, 2, 3]
    torch.testing.assert_close(found["1"], chain[1](chain[0](x)))
    torch.testing.assert_close(found["3"], chain[:4](x))


def test_the_model_is_clean_afterwards(chain):
    x = torch.randn(2, 4)
    before = chain(x)
    attributes = [dict(vars(block)) for block in chain]
    found = capture(chain, ["2"], lambda: chain(x))
    with replaced(chain, found, ["0", "1"]):
        chain(x)
    with pytest.raises(ZeroDivisionError):
        capture(chain, ["2"], lambda: 1 / 0)
    assert [dict(vars(block)) for block in chain] == attributes
    assert not any(block._forward_hooks for block in chain)
    assert torch.equal(chain(x), before)


def test_replay_is_bit_identical_and_skips_what_is_known(chain):
    x = torch.randn(2, 4)
    found = capture(chain, ["2"], lambda: chain(x))
    with replaced(chain, found, ["0", "1"]):
        # Only the blocks after the replaced one see real values, so the input does not matter.
        assert torch.equal(chain(torch.full((2, 4), float("nan"))), chain[3:](found["2"]))
    assert torch.equal(chain(x), chain[3:](found["2"]))


def test_a_block_that_does_not_run_is_named(chain):
    with pytest.raises(CaptureError, match="'4'"):
        capture(chain, ["4"], lambda: chain[:2](torch.randn(2, 4)))


def test_a_block_without_tokens_is_named():
    lstm = nn.Sequential(nn.LSTM(4, 4))
    with pytest.raises(CaptureError, match="tuple"):
        capture(lstm, ["0"], lambda: lstm(torch.randn(2, 3, 4)))
