"""The engine: runs views through a function in chunks and aggregates everything that it returns."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Callable

from torch import Tensor

from .accumulator import Accumulator, Aggregation, Leaf
from .chunks import run_views
from .share import Share
from .views import Views


def ensemble(
    run: Callable[[Tensor, slice], Sequence[Leaf]],
    images: Tensor,
    views: Views,
    how: Aggregation,
    *,
    size: tuple[int, int] | None = None,
    padding: str = "replicate",
    view_batch: int | str = "auto",
    tolerance: float | None = None,
    group: Any = None,
) -> Accumulator:
    """Run every view of ``images`` through ``run`` and aggregate the leaves that it returns.

    Args:
        run: ``(N, C, H', W')`` images, and which of ``views`` they are, to leaves with batch N.
        how: what to make of the views.
        tolerance: relative standard error of the mean below which an image needs no more views.
        group: processes that share the views: a process group, ``"world"``, or None.

    The other arguments are those of :func:`run_views`.
    """
    accumulator = Accumulator(views, how)
    share = Share(views, group)
    with share.merging(accumulator, images):
        for leaves, chosen in run_views(
            share.placed(run),
            images,
            share.views,
            size=size,
            padding=padding,
            view_batch=view_batch,
        ):
            accumulator.add(leaves, share.place(chosen))
    return accumulator
