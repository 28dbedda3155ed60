"""Views counted while they run, and runs stopped between two of them."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Callable

import torch
from torch import Tensor, nn

from ..adapters import describe


class Stopped(Exception):
    """The run was stopped by the one who looks."""


@contextmanager
def watched(
    backbone: nn.Module, on_views: Callable[[int], None], stop: threading.Event
) -> Iterator[None]:
    """While active, views are counted as they reach the first block of a backbone.

    Args:
        backbone: one whose blocks are known; of others nothing is counted.
        on_views: called with the number of views so far, this one included.
        stop: raises :class:`Stopped` before the next view once it is set.
    """
    blocks = describe(backbone).blocks
    if not blocks:
        yield
        return
    seen = 0

    def count(_: nn.Module, given: tuple[Any, ...], keywords: dict[str, Any]) -> None:
        nonlocal seen
        if stop.is_set():
            raise Stopped
        tensors = (t for t in (*given, *keywords.values()) if isinstance(t, Tensor) and t.ndim)
        seen += len(next(tensors, torch.zeros(1)))
        on_views(seen)

    handle = backbone.get_submodule(blocks[0]).register_forward_pre_hook(count, with_kwargs=True)
    try:
        yield
    finally:
        handle.remove()
