"""Running out of memory: what it looks like, how it is left behind, and how near it is."""

from __future__ import annotations

import gc

import torch

# torch >= 2.5 has one name for all devices.
_ERRORS = (getattr(torch, "OutOfMemoryError", torch.cuda.OutOfMemoryError), MemoryError)
# What other allocators and libraries say in a RuntimeError: CPU (Linux, Windows), MPS, cuBLAS.
_MESSAGES = (
    "can't allocate memory",
    "not enough memory",
    "out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
)


def is_out_of_memory(error: BaseException) -> bool:
    """True where an error says that memory ran out, on any device."""
    if isinstance(error, _ERRORS):
        return True
    return isinstance(error, RuntimeError) and any(m in str(error) for m in _MESSAGES)


def advise(error: BaseException, advice: str) -> None:
    """Add a line to the message of an error."""
    # Not add_note, which Python 3.9 lacks and many loggers leave out.
    error.args = (f"{error}\n{advice}",)


def release(device: torch.device) -> None:
    """Give back what a failed forward left, so that a smaller one finds room."""
    # Activations may hang in reference cycles, which are young; a whole collection takes seconds.
    gc.collect(1)
    if device.type == "cuda":
        torch.cuda.empty_cache()
    elif device.type in ("mps", "xpu"):
        getattr(torch, device.type).empty_cache()


class CudaGrowth:
    """By how much the memory in use grew at most while something ran on a CUDA device.

    The peak that torch keeps is only read: setting it back would spoil what the user measures.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._start = torch.cuda.memory_allocated(device)
        self._peak = torch.cuda.max_memory_allocated(device)
        self._handed_out = self._total()

    def bytes(self) -> int:
        """The growth; where an older peak hides it, a figure that it does not exceed."""
        peak = torch.cuda.max_memory_allocated(self._device)
        grown = peak - self._start
        if peak > self._peak:
            return grown
        return min(grown, self._total() - self._handed_out)

    def _total(self) -> int:
        stats = torch.cuda.memory_stats(self._device)
        return int(stats.get("allocated_bytes.all.allocated", 0))


def cuda_free(device: torch.device) -> int:
    """Bytes that a CUDA device can still hand out, those that torch keeps cached among them."""
    cached = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return int(torch.cuda.mem_get_info(device)[0]) + cached
