"""The views that one of several processes runs, and how their statistics are merged.

Every process gets the same images and runs consecutive views of them; then all of them hold the
statistics of all views, the same to the bit: one all-reduce for means, a second one for dispersion,
an all-gather of token grids for each median.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, Callable, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from ..errors import ConfigError, SRTError
from .accumulator import Accumulator
from .distributed import Peers
from .statistics import MeanDispersion, Median
from .views import Views

Made = TypeVar("Made")

# Numbers that say which images and settings a process has.
_REPORT = 7
# Images of two processes are the same up to this share of the sum of their magnitudes: processors
# may differ in the last bits of what made them.
_SAME = 1e-6


class Share:
    """The views that this process runs, all of them without a group.

    Attributes:
        views: what to run. A process without a share runs the first view all the same, for the
            shapes of what it returns, while the others run theirs.
    """

    def __init__(self, views: Views, group: Any) -> None:
        self.peers = Peers.of(group)
        self._count = len(views)
        self._mine = self.peers.share(len(views)) if self.peers else slice(0, len(views))
        self._idle = self._mine.start == self._mine.stop
        run = slice(0, 1) if self._idle else self._mine
        self._start = run.start
        self.views = views.part(run)

    def placed(self, run: Callable[[Tensor, slice], Made]) -> Callable[[Tensor, slice], Made]:
        """``run`` for slices of ``self.views`` instead of all views."""
        return lambda chunk, chosen: run(chunk, self.place(chosen))

    def place(self, chosen: slice) -> slice:
        """Where a slice of ``self.views`` lies in all views."""
        return slice(chosen.start + self._start, chosen.stop + self._start)

    @contextmanager
    def merging(self, accumulator: Accumulator, images: Tensor) -> Iterator[None]:
        """While active, ``accumulator`` takes the leaves of this process's views; at the end it
        holds the statistics of all views, in every process.

        Raises:
            ConfigError: the processes have other images or settings than each other; or gradients
                would have to pass through what they exchange.
            SRTError: another process failed in its share.
        """
        peers = self.peers
        if peers is None:
            yield
            return
        device = images.device
        if device.type == "cpu" and dist.get_backend(peers.group) == "nccl":
            raise ConfigError(
                "Expected group to have a backend for tensors on the CPU, got nccl; move the model "
                "and the images to this process's GPU, or initialise with backend='gloo'."
            )
        try:
            yield
            _check_gradients(accumulator)
            report = _report(images, repr((accumulator.views, accumulator.how, _held(accumulator))))
        except Exception:
            # The others wait for this process, and should hear of it rather than wait forever.
            with suppress(RuntimeError):
                peers.table([1.0] + [0.0] * _REPORT, device)
            raise
        _compare(peers.table([0.0, *report], device))
        if self._idle:
            _empty(accumulator)
        _merge(accumulator, peers, self._count)


def _merge(accumulator: Accumulator, peers: Peers, count: int) -> None:
    """Statistics of shares to those of all ``count`` views."""
    means, spreads = [], []
    for s in accumulator.leaves:
        if isinstance(s, Median):
            s.views = [peers.rows(torch.cat(s.views), count)]
        elif isinstance(s, MeanDispersion):
            spreads.append(s)
        else:
            means.append(s)
    first = [_known(s.sum) for s in means]
    first += [_known(s.mean) * (_known(s.weight) / s.alignment.coverage) for s in spreads]
    summed = peers.sums(first)
    for leaf, total in zip(means, summed):
        leaf.sum = total
    # The merge of Chan et al. (1979) for any number of parts: squares about the common mean, which
    # are all positive, so that nothing cancels.
    common = summed[len(means) :]
    about = [
        _known(s.m2) + (_known(s.mean) - mean).square() * _known(s.weight)
        for s, mean in zip(spreads, common)
    ]
    for s, mean, m2 in zip(spreads, common, peers.sums(about)):
        s.mean, s.m2, s.weight = mean, m2, s.alignment.coverage


def _empty(accumulator: Accumulator) -> None:
    """Forget the view that only gave the shapes; by filling, since 0 * NaN would be NaN."""
    for s in accumulator.leaves:
        if isinstance(s, MeanDispersion):
            s.mean, s.m2 = torch.zeros_like(_known(s.mean)), torch.zeros_like(_known(s.m2))
            s.weight = torch.zeros_like(_known(s.weight))
        elif not isinstance(s, Median):  # whose rows beyond the share are dropped
            s.sum = torch.zeros_like(_known(s.sum))


def _tensors(accumulator: Accumulator) -> list[Tensor]:
    """One tensor of each leaf's statistic."""
    found = []
    for s in accumulator.leaves:
        if isinstance(s, Median):
            found.append(s.views[0][0])
        else:
            found.append(_known(s.mean if isinstance(s, MeanDispersion) else s.sum))
    return found


def _held(accumulator: Accumulator) -> list[tuple]:
    return [(tuple(t.shape), str(t.dtype)) for t in _tensors(accumulator)]


def _known(tensor: Tensor | None) -> Tensor:
    assert tensor is not None  # every process ran a view
    return tensor


def _check_gradients(accumulator: Accumulator) -> None:
    if any(t.requires_grad for t in _tensors(accumulator)):
        raise ConfigError(
            "Expected no gradients with group=, but the features need some, which would end where "
            "processes exchange them; call the model in torch.no_grad(), freeze the backbone "
            "(requires_grad_(False)), or leave group out."
        )


def _report(images: Tensor, how: str) -> list[float]:
    """Numbers that are the same in two processes with the same images and settings."""
    with torch.autocast(images.device.type, enabled=False), torch.no_grad():
        wide = torch.float64 if images.dtype == torch.float64 else torch.float32
        lines = images.detach().reshape(-1, images.shape[-1]).to(wide)
        # Weights that differ from pixel to pixel, or an image and its mirror would be the same.
        across = torch.linspace(1, 2, lines.shape[1], dtype=wide, device=lines.device)
        sums = (lines @ across).double()
        total = sums @ torch.linspace(1, 2, len(sums), dtype=torch.float64, device=sums.device)
        scale = torch.linalg.vector_norm(lines).double() * math.sqrt(lines.numel())
        numbers: list[float] = torch.stack([scale, total]).tolist()
    return [*numbers, float(zlib.crc32(how.encode())), *map(float, images.shape)]


def _compare(table: list[list[float]]) -> None:
    """Raise where a process failed, or has not what the first one has."""
    failed = [rank for rank, row in enumerate(table) if row[0]]
    if failed:
        raise SRTError(
            f"Expected every process of group to finish its share of the views, but rank "
            f"{failed[0]} failed; see the error that it raised."
        )
    _, scale, total, how, *shape = table[0]
    for rank, (_, _, its_total, its_how, *its_shape) in enumerate(table):
        if its_shape != shape:
            one, other = (tuple(int(n) for n in s) for s in (shape, its_shape))
            raise _other_images(f"{one} on rank 0 and {other} on rank {rank}")
        if abs(its_total - total) > _SAME * scale:
            raise _other_images(f"other pixels on rank {rank} than on rank 0")
        if its_how != how:
            raise ConfigError(
                "Expected every process of group to run the same model with the same settings, "
                f"got others on rank {rank} than on rank 0: views, statistic, stride, smooth, or "
                "the shapes and dtypes of what the backbone returns."
            )


def _other_images(given: str) -> ConfigError:
    return ConfigError(
        f"Expected every process of group to get the same images, got {given}: group= shares the "
        "views of one batch. A data loader that deals images out among processes (a distributed "
        "sampler) uses all of them already; leave group out there."
    )
