"""Views through a backbone, a few at a time."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Callable, TypeVar

import torch
from torch import Tensor

from .translate import Canvas
from .views import Views

Made = TypeVar("Made")

# Images per forward for view_batch="auto". Measured: on a CPU one image at a time is fastest (its
# activations stay in cache), on a GPU a few images fill the device.
_AUTO_IMAGES = {"cpu": 1}
_AUTO_IMAGES_ACCELERATOR = 8


def chunk_size(view_batch: int | str, batch: int, device: torch.device) -> int:
    """Views per forward: ``view_batch``, or for ``"auto"`` what fits a few images per forward."""
    if not isinstance(view_batch, str):
        return int(view_batch)
    return max(1, _AUTO_IMAGES.get(device.type, _AUTO_IMAGES_ACCELERATOR) // max(1, batch))


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

    Args:
        run: takes views ``(v * B, C, H', W')``, all images of a view side by side, and which of
            ``views`` they are.
        images: ``(B, C, H, W)``.
        views: translations and weights.
        size: ``(H', W')`` of the views, at least the image's (partial patches are completed).
        padding: how pixels outside the image are made: ``"replicate" | "reflect" | "zeros"``.
        view_batch: views per call of ``run``, or ``"auto"``.
    """
    canvas = Canvas(images, views.translations, size, padding)
    step = chunk_size(view_batch, images.shape[0], images.device)
    for start in range(0, len(views), step):
        chosen = slice(start, min(start + step, len(views)))
        yield run(canvas.views(views.translations[chosen]), chosen), chosen
