"""Median over views by compare and exchange.

A sorting network orders whole tensors with minimum and maximum: many times faster than sorting each
cell's few values, on any device.
"""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

# Cells per run of the network on a CPU, for which its tensors stay in cache.
_RUN = 1 << 13


def median(values: Tensor, hidden: Tensor) -> Tensor:
    """Median over the first axis of those that are not hidden.

    The median of an even number is the mean of the two in the middle; NaN gives NaN.

    Args:
        values: ``(n, c, R, Q)``.
        hidden: ``(n, R, Q)`` boolean; some view shows each cell.

    Returns:
        ``(c, R, Q)``.
    """
    broken = (values.isnan() & ~hidden[:, None]).any(0)
    # Hidden values go above and below in turns, so that the middle stays where it is.
    above = hidden.cumsum(0) % 2 == 1
    inf = float("inf")
    fill = torch.where(above, inf, -inf).to(values.dtype)
    shown = torch.where(hidden[:, None], fill[:, None], values).flatten(1)
    # One more above than below moves the middle by half a place.
    odd = (hidden.sum(0) % 2 == 1).expand(values.shape[1:]).flatten()
    step = _RUN if values.device.type == "cpu" else shown.shape[1]
    runs = zip(shown.split(step, 1), odd.split(step))
    found = torch.cat([_middle(list(run.unbind()), moved) for run, moved in runs])
    return torch.where(broken, float("nan"), found.view(values.shape[1:]))


def _middle(values: list[Tensor], moved: Tensor) -> Tensor:
    n = len(values)
    if n == 1:
        return values[0]
    for i, j in _network(n):
        low, high = torch.minimum(values[i], values[j]), torch.maximum(values[i], values[j])
        values[i], values[j] = low, high
    below, centre = values[n // 2 - 1], values[n // 2]
    if n % 2:
        return (torch.where(moved, below, centre) + centre) / 2
    return (below + torch.where(moved, below, centre)) / 2


@lru_cache(maxsize=64)
def _network(n: int) -> tuple[tuple[int, int], ...]:
    """Compare-exchanges that bring the values ``n // 2 - 1`` and ``n // 2`` of ``n`` in order to
    their places: Batcher's odd-even merge sort (1968), without what these two do not need.
    """
    pairs = []
    merged = 1
    while merged < n:
        apart = merged
        while apart:
            for start in range(apart % merged, n - apart, 2 * apart):
                for i in range(start, min(start + apart, n - apart)):
                    if i // (2 * merged) == (i + apart) // (2 * merged):
                        pairs.append((i, i + apart))
            apart //= 2
        merged *= 2
    needed = {n // 2 - 1, n // 2}
    kept = []
    for pair in reversed(pairs):
        if needed & set(pair):
            needed.update(pair)
            kept.append(pair)
    return tuple(reversed(kept))
