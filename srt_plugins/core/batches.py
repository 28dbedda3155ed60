"""How many views to run per forward: a number, or what turns out fastest within free memory."""

from __future__ import annotations

import math
import time
import warnings
from collections import OrderedDict
from collections.abc import Hashable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor

from .memory import CudaGrowth, cuda_free, release
from .product import is_tracing

# Images per forward for view_batch="auto" where the time is not measured. On a CPU one, so that
# results are the same to the bit in every run, and those of a view the same as on its own: ViTs of
# 8 and 22 million parameters on one thread run images of 200 and more tokens one by one as fast as
# several at a time (49 views of 690 tokens: 7.0 s by ones, 7.6 by fours, 10.8 at once), for
# activations then stay in cache; of 64 tokens, fours would take a fifth less time.
_CPU_IMAGES = 1
# On other devices than CUDA's, while a graph is recorded, and where results should be reproducible.
_IMAGES = 8
# A larger batch has to be faster by this share; its first forward is not timed, since it also
# reserves memory and chooses kernels; of the ones after it, the fastest of this many counts.
_GAIN = 0.03
_TIMINGS = 2
# Share of the free memory that a predicted peak may take.
_HEAD_ROOM = 0.8


@dataclass
class _Known:
    """What is known of one shape.

    Attributes:
        limit: views that fit, None = as many as were ever tried.
        warned: True once the user was told of the limit.
        size: views per forward that are tried next, or that were found best.
        settled: True once they were found best.
        runs: how often each size ran.
        seconds: least time per view of each size.
    """

    limit: int | None = None
    warned: bool = False
    size: int = 1
    settled: bool = False
    runs: dict[int, int] = field(default_factory=dict)
    seconds: dict[int, float] = field(default_factory=dict)

    def record(self, size: int, seconds: float, room_to_double: bool) -> None:
        """Take note of a timed forward of ``size`` views, and choose what to try next."""
        if self.settled or size != self.size:
            return
        self.runs[size] = self.runs.get(size, 0) + 1
        if self.runs[size] > 1:
            self.seconds[size] = min(seconds / size, self.seconds.get(size, math.inf))
        if self.runs[size] <= _TIMINGS:
            return
        before = self.seconds.get(size // 2, math.inf)
        if self.seconds[size] > (1 - _GAIN) * before:
            self.size, self.settled = size // 2, True
        elif room_to_double and (self.limit is None or 2 * size <= self.limit):
            self.size = 2 * size
        else:
            self.settled = True


_KNOWN: OrderedDict[Hashable, _Known] = OrderedDict()
_KNOWN_SIZE = 64


class Batches:
    """Views per forward for one batch of images.

    What was found is kept for later calls with images of the same shape, dtype and device.

    Args:
        view_batch: views per forward, or ``"auto"``.
        images: ``(B, C, H, W)``.
        size: ``(H', W')`` of the views.
    """

    def __init__(self, view_batch: int | str, images: Tensor, size: tuple[int, int]) -> None:
        self._auto = isinstance(view_batch, str)
        self._asked = view_batch
        self._device = images.device
        self._images, self._size = images.shape[0], size
        self._known = _Known() if is_tracing() else _known(images, size)
        self._fixed = _fixed(images) if isinstance(view_batch, str) else int(view_batch)
        self._backed_off = 0

    def step(self, left: int) -> int:
        """How many of the ``left`` views to run next."""
        known = self._known
        size = known.size if self._fixed is None else self._fixed
        if known.limit is not None:
            size = min(size, known.limit)
        if self._auto and (self._fixed is not None or known.settled):
            # As equal as can be: a last forward of few views would take long for each.
            size = -(-left // -(-left // max(1, size)))
        return max(1, min(size, left))

    @contextmanager
    def watched(self, count: int) -> Iterator[None]:
        """Around a forward of ``count`` views: times it where that is still to be found out."""
        known = self._known
        if self._fixed is not None or known.settled or count != known.size:
            yield
        else:
            growth = CudaGrowth(self._device)
            torch.cuda.synchronize(self._device)
            start = time.perf_counter()
            yield
            torch.cuda.synchronize(self._device)
            seconds = time.perf_counter() - start
            # The forward's own memory may be in use still, so that this asks for more than needed.
            fits = 2 * growth.bytes() <= _HEAD_ROOM * cuda_free(self._device)
            known.record(count, seconds, fits)
        self._tell()

    def back_off(self, count: int) -> None:
        """Run fewer views from now on: ``count`` of them did not fit."""
        release(self._device)
        known = self._known
        known.limit = count // 2
        if known.size > known.limit:
            known.size, known.settled = known.limit, True
        self._backed_off = max(count, self._backed_off)

    def advice(self) -> str:
        """What to do where not even one view fits."""
        fewer = f"fewer than {self._images} images at a time, " if self._images > 1 else ""
        return (
            f"SRT: one view of {self._images} image(s) of {self._size[0]}x{self._size[1]} pixels "
            f"does not fit, and view_batch cannot be less than 1. Give {fewer}smaller images or "
            "half precision (autocast), wrap the call in torch.no_grad(), or free memory that "
            "other models and processes hold."
        )

    def _tell(self) -> None:
        """Warn once of a limit, when it is known what fits."""
        fits = self._known.limit
        if self._backed_off and not self._known.warned:
            self._known.warned = True
            warnings.warn(
                f"out of memory with {self._backed_off} views of {self._images} image(s) of "
                f"{self._size[0]}x{self._size[1]} pixels per forward (view_batch="
                f"{self._asked!r}); going on with at most {fits}, now and in later calls with "
                f"images of this size. Give view_batch={fits} to start there.",
                stacklevel=4,
            )


def _known(images: Tensor, size: tuple[int, int]) -> _Known:
    """What is known of such images; the oldest is forgotten where there is too much."""
    # Autocast takes less memory, gradients more.
    modes = (torch.is_autocast_enabled(), torch.is_grad_enabled())
    key = (*images.shape[:2], size, images.dtype, str(images.device), modes)
    known = _KNOWN.setdefault(key, _Known())
    _KNOWN.move_to_end(key)
    if len(_KNOWN) > _KNOWN_SIZE:
        _KNOWN.popitem(last=False)
    return known


def _fixed(images: Tensor) -> int | None:
    """Views per forward for ``"auto"``; None where it is to be found out."""
    if images.device.type == "cpu":
        return _CPU_IMAGES
    measured = (
        images.device.type == "cuda"
        and type(images) is Tensor  # not one without data, which takes no time
        and not is_tracing()
        and not torch.are_deterministic_algorithms_enabled()
        and not torch.cuda.is_current_stream_capturing()
    )
    return None if measured else max(1, _IMAGES // max(1, images.shape[0]))
