"""The plain forward: its best batch, its memory, and its time beside that of others."""

from __future__ import annotations

from typing import Any, Callable

from torch import Tensor, nn

from .memory import peak_bytes
from .timing import Clock, out_of_memory

_BATCHES = (1, 2, 4, 8, 16, 32, 64)
# A larger batch must be faster by more than noise.
_GAIN = 0.98


class Plain:
    """Plain forwards of an image.

    Args:
        backbone: not wrapped.
        images: ``(1, 3, H, W)``.
        clock: of their device.

    Attributes:
        batches: seconds per view by batch: ever larger ones while they get faster.
        peaks: peak bytes of the tensors that a forward makes, by batch, as far as asked for.
    """

    def __init__(self, backbone: nn.Module, images: Tensor, clock: Clock) -> None:
        self.backbone, self.images, self.clock = backbone, images, clock
        self.peaks: dict[int, int] = {}
        self.batches = self._batches()
        self._runs: dict[int, Callable[[], Any]] = {}

    @property
    def expected(self) -> float:
        """Roughly the seconds per view."""
        return min(self.batches.values())

    def best(self, views: int) -> int:
        """The best batch for so many views, the smaller one where they are equal within 2 %."""
        *smaller, last = [batch for batch in self.batches if batch <= views]
        # All but the last of them were faster than those before.
        if not smaller or self.batches[last] < _GAIN * self.batches[smaller[-1]]:
            return last
        return smaller[-1]

    def forward(self, batch: int) -> Callable[[], Any]:
        """Something to call: the forward of a batch."""
        images = self.images.repeat(batch, 1, 1, 1)  # a copy also of one, as a view is
        return lambda: self.backbone(images)

    def seconds_per_view(self, views: int) -> float:
        """A look at the best batch for so many views: an eighth of them, but at least two."""
        batch = self.best(views)
        run = self._runs.setdefault(batch, self.forward(batch))
        wanted = max(2, -(-views // 8))
        calls = max(-(-wanted // batch), self.clock.calls(self.batches[batch] * batch))
        return self.clock(run, calls) / batch

    def peak(self, batch: int) -> int:
        """Peak bytes of the tensors that one forward makes, the batch itself included."""
        if batch not in self.peaks:
            self.forward(batch)()
            self.peaks[batch] = peak_bytes(lambda: self.forward(batch)(), self.clock.device)
        return self.peaks[batch]

    def _batches(self) -> dict[int, float]:
        found: dict[int, float] = {}
        for batch in _BATCHES:
            run = self.forward(batch)
            try:
                best = self._fastest(run) / batch
            except RuntimeError as error:
                if not found:
                    raise
                out_of_memory(error)
                break
            faster = best < _GAIN * min(found.values(), default=float("inf"))
            found[batch] = best
            if not faster:
                break
        return found

    def _fastest(self, run: Callable[[], Any]) -> float:
        """Seconds of a call, the least of a few: the first warms up."""
        first = self.clock(run)
        again = 1 if first > 1 else 3
        return min(first, *(self.clock(run, self.clock.calls(first)) for _ in range(again)))
