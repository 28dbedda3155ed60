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


class Hidden:
    """Which views hide which cells, made ready for any number of channels.

    Args:
        hidden: ``(n, R, Q)`` boolean; some view shows each cell.
        dtype: of the values.
    """

    def __init__(self, hidden: Tensor, dtype: torch.dtype) -> None:
        # Hidden values go above and below in turns, so that the middle stays where it is.
        turn = hidden.cumsum(0, dtype=torch.int32) % 2
        self.hidden = hidden
        self.fill = (turn.to(dtype) - 0.5) * float("inf")
        # One more above than below moves the middle by half a place.
        self.moved = turn[-1] == 1


def median(values: Tensor, hidden: Hidden) -> Tensor:
    """Median over the first axis of those that are not hidden, ``(n, c, R, Q)`` to ``(c, R, Q)``.

    The median of an even number is the mean of the two in the middle; NaN gives NaN.
    """
    seen = torch.where(hidden.hidden[:, None], hidden.fill[:, None], values).flatten(1)
    moved = hidden.moved.expand(values.shape[1:]).flatten()
    step = _RUN if values.device.type == "cpu" else seen.shape[1]
    runs = zip(seen.split(step, 1), moved.split(step))
    found = [_middle(list(run.unbind()), odd) for run, odd in runs]
    return torch.cat(found).view(values.shape[1:])


def _middle(values: list[Tensor], moved: Tensor) -> Tensor:
    """Median of tensors, with the lower neighbour of the middle in its stead where ``moved``.

    NaN passes through every comparison, and so from every value to the middle.
    """
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
