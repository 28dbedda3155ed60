"""Peak memory of a call, above what was there before it."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Callable

import torch
from torch import Tensor
from torch.nn.modules.module import register_module_forward_pre_hook
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class LiveBytes(TorchDispatchMode):
    """While active, counts the bytes of the tensors that are made and still alive.

    Exact and the same in every run, where resident memory moves with the allocator. What operators
    use inside and free before they return is not seen.
    """

    def __init__(self) -> None:
        super().__init__()
        self.live = self.peak = 0
        self._known: dict[int, weakref.ref] = {}

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        given = {t.untyped_storage()._cdata for t in _tensors((args, kwargs))}
        out = func(*args, **(kwargs or {}))
        for tensor in _tensors(out):
            storage = tensor.untyped_storage()
            key = storage._cdata
            # A view of a tensor that was there before is nothing new.
            if key not in self._known and key not in given:
                size = storage.nbytes()
                self.live += size
                self._known[key] = weakref.ref(storage, self._forget(key, size))
        self.peak = max(self.peak, self.live)
        return out

    def _forget(self, key: int, size: int) -> Callable[[Any], None]:
        def gone(_: Any) -> None:
            del self._known[key]
            self.live -= size

        return gone


def peak_bytes(run: Callable[[], Any], device: torch.device) -> int:
    """Peak bytes of tensors made by ``run``: allocated on a GPU, counted one by one on a CPU."""
    gc.collect(1)
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        run()
        torch.cuda.synchronize(device)
        return torch.cuda.max_memory_allocated(device) - before
    # Not in inference mode, where some operators would be seen only as a whole.
    with torch.inference_mode(False), torch.no_grad(), LiveBytes() as counted:
        run()
    return counted.peak


@contextmanager
def images_per_forward(like: Tensor) -> Iterator[list[int]]:
    """While active, notes how many images of the shape of ``like`` modules are called with."""
    seen: list[int] = []

    def note(_module: Any, args: Any) -> None:
        if args and isinstance(args[0], Tensor) and args[0].shape[1:] == like.shape[1:]:
            seen.append(len(args[0]))

    handle = register_module_forward_pre_hook(note)
    try:
        yield seen
    finally:
        handle.remove()


def weight_bytes(module: torch.nn.Module) -> int:
    """Bytes of parameters and buffers."""
    return sum(t.nbytes for t in (*module.parameters(), *module.buffers()))


def _tensors(values: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(values) if isinstance(leaf, Tensor)]
