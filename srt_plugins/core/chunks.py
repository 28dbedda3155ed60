"""Views through a backbone, a few at a time."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Callable, TypeVar

from torch import Tensor

from .batches import Batches
from .memory import advise, is_out_of_memory
from .translate import Canvas
from .views import Views

Made = TypeVar("Made")


def run_views(
    run: Callable[[Tensor, slice], Made],
    images: Tensor,
    views: Views,
    *,
    size: tuple[int, int] | None = None,
    padding: str = "replicate",
    view_batch: int | str = "auto",
) -> Iterator[tuple[Made, slice]]:
    """Yield ``(run(chunk, slice of views), slice of views)`` until all views are done.

    Where memory runs out, the same views are run again in chunks of half as many, with one warning
    per shape.

    Args:
        run: takes views ``(v * B, C, H', W')``, all images of a view side by side, and which of
            ``views`` they are. It is called again where it ran out of memory.
        images: ``(B, C, H, W)``.
        views: translations and weights.
        size: ``(H', W')`` of the views, at least the image's (partial patches are completed).
        padding: how pixels outside the image are made: ``"replicate" | "reflect" | "zeros"``.
        view_batch: views per call of ``run``, or ``"auto"``: on CUDA what turns out fastest within
            free memory, timed on the first views of a shape; elsewhere a fixed number, 1 on a CPU.

    Raises:
        torch.OutOfMemoryError, RuntimeError: as ``run`` raised it, where one view does not fit.
    """
    canvas = Canvas(images, views.translations, size, padding)
    batches = Batches(view_batch, images, canvas.size)
    start = 0
    while start < len(views):
        chosen = slice(start, start + batches.step(len(views) - start))
        made = _attempt(run, canvas, views, chosen, batches)
        if made:
            start = chosen.stop
            # Popped, so that nothing is held here while the next views run.
            yield made.pop(), chosen
        else:
            # Here the error is gone, and with it what its traceback held.
            batches.back_off(chosen.stop - chosen.start)


def _attempt(
    run: Callable[[Tensor, slice], Made],
    canvas: Canvas,
    views: Views,
    chosen: slice,
    batches: Batches,
) -> list[Made]:
    """What ``run`` makes of some views; nothing where memory ran out."""
    try:
        with batches.watched(chosen.stop - chosen.start):
            return [run(canvas.views(views.translations[chosen], views.mirrored[chosen]), chosen)]
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        if chosen.stop - chosen.start == 1:
            advise(error, batches.advice())
            raise
    return []
