"""The engine: runs views through a function in chunks and aggregates everything that it returns."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Callable, Union

from torch import Tensor

from .accumulator import Accumulator, Aggregation, Leaf
from .adaptive import PerImage, adaptive
from .chunks import run_views
from .share import Share
from .views import Views

Gathered = Union[Accumulator, PerImage]


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
) -> Gathered:
    """Run every view of ``images`` through ``run`` and aggregate the leaves that it returns.

    Args:
        run: ``(N, C, H', W')`` images, and which of ``views`` they are, to leaves with batch N.
        how: what to make of the views.
        tolerance: relative standard error of the mean below which an image needs no more views
            (see :func:`adaptive`); None = all views.
        group: processes that share the views: a process group, ``"world"``, or None.

    The other arguments are those of :func:`run_views`.
    """
    if tolerance is not None and len(images):
        return adaptive(
            run,
            images,
            views,
            how,
            tolerance,
            size=size,
            padding=padding,
            view_batch=view_batch,
        )
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
    accumulator.views_used = (len(views),) * len(images)
    return accumulator
