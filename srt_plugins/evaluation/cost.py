"""What a forward costs: seconds, floating-point operations, peak memory."""

from __future__ import annotations

import ctypes
import gc
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Callable

import torch
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count

from ..core.patch import overridden


@dataclass
class Stopwatch:
    """Seconds of every call, in order."""

    seconds: list[float] = field(default_factory=list)


@contextmanager
def timed(target: Any, name: str, device: torch.device) -> Iterator[Stopwatch]:
    """Time every call of ``target.name``, with the device's queue emptied before and after."""
    watch = Stopwatch()
    original = getattr(target, name)

    def call(*args: Any, **kwargs: Any) -> Any:
        _synchronize(device)
        start = time.perf_counter()
        result = original(*args, **kwargs)
        _synchronize(device)
        watch.seconds.append(time.perf_counter() - start)
        return result

    with overridden(target, name, call):
        yield watch


def count_flops(run: Callable[[], Any]) -> int:
    """Floating-point operations of ``run`` (matrix products, convolutions, attention)."""
    # The counter knows the attention kernels of GPUs only, and not the fused attention module.
    mapping = {}
    on_cpu = getattr(torch.ops.aten, "_scaled_dot_product_flash_attention_for_cpu", None)
    if on_cpu is not None:
        mapping[on_cpu] = lambda q, k, v, *_, **__: sdpa_flop_count(q, k, v)
    fast = torch.backends.mha.get_fastpath_enabled()
    counter = FlopCounterMode(display=False, custom_mapping=mapping)
    try:
        torch.backends.mha.set_fastpath_enabled(False)
        with counter:
            run()
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
    return int(counter.get_total_flops())


@dataclass
class Peak:
    """Peak memory in bytes; None where the system does not tell."""

    bytes: int | None = None


def memory_kind(device: torch.device) -> str:
    """Which memory :func:`peak_memory` measures."""
    return "allocated on the GPU" if device.type == "cuda" else "resident in this process"


@contextmanager
def peak_memory(device: torch.device) -> Iterator[Peak]:
    """Peak memory while active: allocated on a GPU, else resident in this process."""
    peak = Peak()
    gc.collect(1)  # a full collection takes half a second beside these frameworks
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
        yield peak
        peak.bytes = torch.cuda.max_memory_allocated(device)
        return
    with suppress(OSError, AttributeError):  # glibc: give back what earlier rows freed
        ctypes.CDLL(None).malloc_trim(0)
    if _reset_high_water_mark():
        yield peak
        peak.bytes = _high_water_mark()
    else:
        with _sampled(peak):
            yield peak


def _reset_high_water_mark() -> bool:
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return False
    return _high_water_mark() is not None


def _high_water_mark() -> int | None:
    with suppress(OSError, ValueError, IndexError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    return None


@contextmanager
def _sampled(peak: Peak, every: float = 0.02) -> Iterator[None]:
    """Fill ``peak`` by looking at the resident size again and again (needs psutil)."""
    try:
        import psutil
    except ImportError:
        yield
        return
    process, stop = psutil.Process(), threading.Event()
    peak.bytes = process.memory_info().rss

    def sample() -> None:
        while not stop.wait(every):
            peak.bytes = max(peak.bytes or 0, process.memory_info().rss)

    thread = threading.Thread(target=sample, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def _synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
