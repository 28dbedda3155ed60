"""Time, operations and memory against what is known beforehand."""

from __future__ import annotations

import time

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from srt_plugins.evaluation import cost

CPU = torch.device("cpu")


def test_flops_of_a_convolution_and_a_product():
    conv, linear = nn.Conv2d(3, 8, 4, stride=4), nn.Linear(8, 5)
    image = torch.zeros(2, 3, 16, 24)
    with torch.no_grad():
        count = cost.count_flops(lambda: linear(conv(image).flatten(2).transpose(1, 2)))
    tokens = 2 * 4 * 6
    assert count == 2 * tokens * 8 * 3 * 16 + 2 * tokens * 8 * 5


@pytest.mark.parametrize("fused", [True, False])
def test_flops_of_attention(fused):
    """CPU attention kernels and the fused attention module are counted as well."""
    tokens, width = 10, 16
    x = torch.randn(1, tokens, width)
    products = 2 * 2 * tokens * tokens * width
    with torch.no_grad():
        if fused:
            heads = x.view(1, tokens, 2, 8).transpose(1, 2)
            assert (
                cost.count_flops(lambda: F.scaled_dot_product_attention(*[heads] * 3)) == products
            )
            return
        attention = nn.MultiheadAttention(width, 2, batch_first=True).eval()
        projections = 2 * tokens * width * 4 * width
        assert cost.count_flops(lambda: attention(x, x, x)) == products + projections
    assert torch.backends.mha.get_fastpath_enabled()


def test_every_call_is_timed_and_the_method_comes_back():
    class Model:
        def step(self, seconds):
            time.sleep(seconds)
            return seconds

    model = Model()
    with cost.timed(model, "step", CPU) as watch:
        assert model.step(0.02) == 0.02
        model.step(0.0)
    assert len(watch.seconds) == 2 and watch.seconds[0] >= 0.02 > watch.seconds[1]
    assert "step" not in vars(model)


def block(mebibytes: int = 120) -> int:
    data = bytearray(mebibytes << 20)
    data[:: 1 << 12] = b"x" * len(data[:: 1 << 12])
    return len(data)


def test_peak_memory_sees_what_is_freed_again():
    with cost.peak_memory(CPU) as idle:
        pass
    with cost.peak_memory(CPU) as busy:
        size = block()
    with cost.peak_memory(CPU) as after:
        pass
    assert busy.bytes - idle.bytes > 0.8 * size
    assert busy.bytes - after.bytes > 0.8 * size  # the mark starts anew


def test_peak_memory_by_sampling(monkeypatch):
    pytest.importorskip("psutil")
    monkeypatch.setattr(cost, "_reset_high_water_mark", lambda: False)
    with cost.peak_memory(CPU) as idle:
        pass
    with cost.peak_memory(CPU) as busy:
        data = bytearray(b"x" * (120 << 20))
        time.sleep(0.1)
        del data
    assert busy.bytes - idle.bytes > 90 << 20
