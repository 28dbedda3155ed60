"""A backbone that remembers its outputs, and a dataset its items: for many runs on some images."""

from __future__ import annotations

import copy
import functools
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, cast

import torch
from torch import Tensor, nn

from ..adapters import Adapter, describe, is_known, register, unregister
from ..adapters.structure import Path, replace, tensors
from ..core.memory import cuda_free
from ..errors import SRTError
from ..swap import swap

# Share of the free memory that may be filled, and what is filled where nothing tells.
_SHARE = 1 / 3
_UNKNOWN = 2 << 30
# Elements by which inputs are told apart before they are compared in full.
_SAMPLES = 64
# Items of a dataset that are kept.
_ITEMS = 50
_PLAIN = (bool, int, float, str, type(None))


@dataclass
class Memory:
    """Outputs of a module by its inputs, which are compared in full.

    Attributes:
        limit: bytes of inputs and outputs that are kept. What comes when they are full is run and
            not kept: calls come round again in the same order, so that nothing kept is in vain.
        bytes: kept so far.
        runs: calls that were run, and recalled: those that were not.
        seconds: of each call that was run (on a GPU, until it was queued).
    """

    limit: int
    bytes: int = 0
    runs: int = 0
    recalled: int = 0
    seconds: list[float] = field(default_factory=list)
    _kept: dict[Any, list[tuple[list[Tensor], Any]]] = field(default_factory=dict)
    _inside: threading.local = field(default_factory=threading.local)

    def call(self, module: nn.Module, method: Any, args: tuple, kwargs: dict) -> Any:
        """What ``method(module, *args, **kwargs)`` returns, run or recalled."""
        inside = vars(self._inside)
        if inside.get("running") or torch.is_grad_enabled() or _patched(module):
            return method(module, *args, **kwargs)
        inside["running"] = True  # one entry may call another
        try:
            return self._called(module, method, args, kwargs)
        finally:
            inside["running"] = False

    def _called(self, module: nn.Module, method: Any, args: tuple, kwargs: dict) -> Any:
        given: list[Tensor] = []
        try:
            key = (method.__name__, _signature((args, kwargs), given))
        except TypeError:
            return method(module, *args, **kwargs)
        known = self._kept.setdefault(key, [])
        for inputs, output in known:
            if all(torch.equal(one, other) for one, other in zip(inputs, given)):
                self.recalled += 1
                return _copied(output)
        given = [tensor.clone() for tensor in given]
        start = time.perf_counter()
        output = method(module, *args, **kwargs)
        self.seconds.append(time.perf_counter() - start)
        self.runs += 1
        with suppress(SRTError):  # an output that holds tensors in ways of its own
            size = sum(t.nbytes for t in (*given, *(t for _, t in tensors(output))))
            if self.bytes + size <= self.limit:
                known.append((given, _copied(output)))
                self.bytes += size
        return output


@contextmanager
def remembering(
    module: nn.Module, limit: int | None = None, adapter: Adapter | None = None
) -> Iterator[Memory]:
    """While active, a module that is called with what it was called with before returns a copy of
    what it returned then.

    The module's class is swapped for a subclass, so that SRT can be switched on and off above it.
    Calls that need gradients, and calls while something watches or patches the parts of the module
    (forward hooks, ``layer=``), are run as they are.

    Args:
        module: a backbone in eval mode, without SRT, whose outputs depend on its inputs alone.
        limit: bytes that are kept; None = a third of the memory that is free on its device.
        adapter: what SRT found of the module, as by probing it; None = what is known of it.
    """
    memory = Memory(_budget(module) if limit is None else limit)
    plain = type(module)
    known = adapter is not None or is_known(module)
    # Read now: an adapter may look at the code of the forward, which the subclass hides.
    facts = adapter or describe(module)

    def own(asked: nn.Module) -> Adapter | None:
        return facts if known and asked is module else None

    register(own)
    vars(module)["_memory"] = memory
    swap(module, _remembering_class(cast(Any, plain), facts.entries))
    try:
        yield memory
    finally:
        swap(module, plain)
        del vars(module)["_memory"]
        unregister(own)


@contextmanager
def remembering_items(dataset: Any) -> Iterator[None]:
    """While active, a dataset gives copies of the first items that it was asked for, in place of
    loading them again. Processes that load data remember nothing.
    """
    plain = type(dataset)
    kept: dict[int, Any] = {}

    def item(self: Any, index: int) -> Any:
        if index not in kept:
            loaded = plain.__getitem__(self, index)
            if len(kept) >= _ITEMS:
                return loaded
            kept[index] = loaded
        return copy.deepcopy(kept[index])

    names = ("__module__", "__qualname__", "__doc__")
    body = {"__getitem__": item, **{n: getattr(plain, n) for n in names}}
    dataset.__class__ = type(plain.__name__, (plain,), body)
    try:
        yield
    finally:
        dataset.__class__ = plain


@functools.cache
def _remembering_class(cls: Any, entries: tuple[str, ...]) -> type:
    def recalling(name: str) -> Any:
        method = getattr(cls, name)

        @functools.wraps(method)
        def call(self: Any, *args: Any, **kwargs: Any) -> Any:
            memory = vars(self).get("_memory")
            if memory is None or self.training:
                return method(self, *args, **kwargs)
            return memory.call(self, method, args, kwargs)

        return call

    names = ("__module__", "__qualname__", "__doc__")
    body = {**{n: recalling(n) for n in entries}, **{n: getattr(cls, n) for n in names}}
    return type(cls.__name__, (cls,), body)


def _signature(value: Any, given: list[Tensor]) -> Any:
    """What must be the same of arguments, hashable; their tensors are appended to ``given``.

    Raises:
        TypeError: an argument of which that cannot be told.
    """
    if isinstance(value, Tensor):
        given.append(value)
        flat = value.detach().reshape(-1)
        samples = flat[:: max(1, flat.numel() // _SAMPLES)].tolist()
        device = value.device
        looks = (tuple(value.shape), value.stride(), value.dtype, str(device))
        return (*looks, _autocast(device.type), *samples)
    if isinstance(value, dict):
        return ("dict", *((k, _signature(v, given)) for k, v in value.items()))
    if isinstance(value, (tuple, list)):
        return (type(value).__name__, *(_signature(v, given) for v in value))
    if isinstance(value, _PLAIN):
        return value
    raise TypeError(type(value).__name__)


def _copied(output: Any) -> Any:
    """The same with tensors of its own, which a head may change in place."""

    def clone(_: Path, tensor: Tensor) -> Tensor:
        return tensor.clone()

    return replace(output, clone)


def _patched(module: nn.Module) -> bool:
    return any(
        part._forward_hooks or part._forward_pre_hooks or "forward" in vars(part)
        for part in module.modules()
        if part is not module
    )


def _autocast(device: str) -> bool:
    enabled: Any = torch.is_autocast_enabled
    try:
        return bool(enabled(device))
    except TypeError:  # torch < 2.4
        return bool(torch.is_autocast_cpu_enabled() if device == "cpu" else enabled())


def _budget(module: nn.Module) -> int:
    device = next((p.device for p in module.parameters()), torch.device("cpu"))
    return int(_SHARE * (cuda_free(device) if device.type == "cuda" else _free()))


def _free() -> int:
    """Bytes of memory that are free; a guess where the system does not tell."""
    with suppress(OSError, ValueError, StopIteration):
        with open("/proc/meminfo") as lines:
            line = next(one for one in lines if one.startswith("MemAvailable:"))
        return int(line.split()[1]) * 1024
    with suppress(OSError, ValueError, AttributeError):
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return int(_UNKNOWN / _SHARE)
