"""Stopping a forward at a block, and running on from given tokens."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from srt_plugins.core.capture import capture, replaced
from srt_plugins.errors import CaptureError

SKIPPED = {"0": lambda x: x, "1": lambda x: x}


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
    torch.testing.assert_close(found["1"].tokens, chain[1](chain[0](x)))
    torch.testing.assert_close(found["3"].tokens, chain[:4](x))


def test_the_model_is_clean_afterwards(chain):
    x = torch.randn(2, 4)
    before = chain(x)
    attributes = [dict(vars(block)) for block in chain]
    found = capture(chain, ["2"], lambda: chain(x))
    with replaced(chain, {"2": found["2"].tokens}, SKIPPED):
        chain(x)
    with pytest.raises(ZeroDivisionError):
        capture(chain, ["2"], lambda: 1 / 0)
    assert [dict(vars(block)) for block in chain] == attributes
    assert not any(block._forward_hooks for block in chain)
    assert torch.equal(chain(x), before)


def test_replay_is_bit_identical_and_skips_what_is_known(chain):
    x = torch.randn(2, 4)
    found = capture(chain, ["2"], lambda: chain(x))
    with replaced(chain, {"2": found["2"].tokens}, SKIPPED):
        # Only the blocks after the replaced one see real values, so the input does not matter.
        assert torch.equal(chain(torch.full((2, 4), float("nan"))), chain[3:](found["2"].tokens))
    assert torch.equal(chain(x), chain[3:](found["2"].tokens))


def test_a_block_that_does_not_run_is_named(chain):
    with pytest.raises(CaptureError, match="'4'"):
        capture(chain, ["4"], lambda: chain[:2](torch.randn(2, 4)))


def test_a_block_without_tokens_is_named():
    lstm = nn.Sequential(nn.LSTM(4, 4))
    with pytest.raises(CaptureError, match="tuple"):
        capture(lstm, ["0"], lambda: lstm(torch.randn(2, 3, 4)))

    class Attending(nn.Module):
        def forward(self, x):
            return x, x @ x.transpose(1, 2)

    attending = nn.Sequential(Attending())
    tokens = torch.randn(2, 3, 4)
    with pytest.raises(CaptureError, match="no other tensor"):
        capture(attending, ["0"], lambda: attending(tokens))
    found = capture(attending, ["0"], lambda: attending(tokens), attentions=True)["0"]
    assert found.tokens is tokens and found.rest == (None,)


class Sized(nn.Module):
    """A block that passes the size of its grid on, as pooling transformers do."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(4, 4)

    def forward(self, tokens, size):
        return self.linear(tokens), (size[0] + 1, size[1])


class Chain(nn.Module):
    def __init__(self):
        super().__init__()
        self.blocks = nn.ModuleList(Sized() for _ in range(4))

    def forward(self, x):
        size = (0, 0)
        for block in self.blocks:
            x, size = block(x, size)
        return x, size


def test_what_comes_with_the_tokens_is_kept_and_given_back():
    torch.manual_seed(0)
    chain, x = Chain().eval(), torch.randn(2, 3, 4)
    expected = chain(x)
    found = capture(chain, ["blocks.2"], lambda: chain(x), ["blocks.0", "blocks.1"])
    assert found["blocks.0"].tokens is None
    assert found["blocks.2"].rest == ((3, 0),)
    skipped = {path: found[path].but for path in ("blocks.0", "blocks.1")}
    values = {"blocks.2": found["blocks.2"].but(found["blocks.2"].tokens)}
    with replaced(chain, values, skipped):
        tokens, size = chain(torch.full((2, 3, 4), float("nan")))
    assert torch.equal(tokens, expected[0])
    assert size == expected[1]
