"""Processes that share the views of each image, and what they exchange (torch.distributed)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from ..errors import ConfigError

WORLD = "world"
# What is left of a process group in a pickle; no process can use it.
_LOST = "the process group of another process"


def check_group(group: Any) -> None:
    """Raise :class:`ConfigError` where ``group`` is no process group, or there are none yet."""
    if group is None:
        return
    if not dist.is_available():
        raise ConfigError(
            f"Expected group=None, got {group!r}: this build of torch has no torch.distributed; "
            "install one that has it."
        )
    outside = group == dist.GroupMember.NON_GROUP_MEMBER
    if group != WORLD and not outside and not isinstance(group, dist.ProcessGroup):
        raise ConfigError(
            f"Expected group to be None, {WORLD!r} or a process group of torch.distributed "
            f"(new_group(...), a device mesh's get_group()), got {group!r}; give one of these with "
            "srt_enabled(model, group=...), or wrap the model again."
        )
    if not dist.is_initialized():
        raise ConfigError(
            f"Expected torch.distributed to be initialised with group={group!r}, but it is not: "
            "start the script with `torchrun --nproc-per-node=N`, and call "
            "torch.distributed.init_process_group() before SRT is turned on. Without several "
            "processes leave group out."
        )
    if outside:
        raise _not_a_member()


def portable_group(group: Any) -> Any:
    """``group`` as it can be pickled: a process group becomes a name that is refused when used."""
    return group if group is None or group == WORLD else _LOST


@dataclass(frozen=True)
class Peers:
    """The processes that share views, as one of them sees it.

    Attributes:
        group: process group.
        rank: this process's place in it, 0 to ``size - 1``.
        size: number of processes, at least 2.
    """

    group: Any
    rank: int
    size: int

    @classmethod
    def of(cls, group: Any) -> Peers | None:
        """From the ``group`` keyword; None where this process runs all views itself.

        Raises:
            ConfigError: not a process group, one that was destroyed, or one without this process.
        """
        if group is None:
            return None
        check_group(group)
        found = dist.group.WORLD if group == WORLD else group
        try:
            rank, size = dist.get_rank(found), dist.get_world_size(found)
        except (ValueError, RuntimeError) as error:
            raise ConfigError(
                "Expected group to be a process group that still exists, got one that was "
                "destroyed; turn SRT on again with a new one."
            ) from error
        if rank < 0:
            raise _not_a_member()
        return cls(found, rank, size) if size > 1 else None

    def share(self, count: int, rank: int | None = None) -> slice:
        """Which of ``count`` views a process runs: consecutive ones, shares differ by at most 1."""
        rank = self.rank if rank is None else rank
        each, more = divmod(count, self.size)
        start = rank * each + min(rank, more)
        return slice(start, start + each + (rank < more))

    def table(self, row: Sequence[float], device: torch.device) -> list[list[float]]:
        """One row of numbers from each process."""
        mine = torch.tensor(row, dtype=torch.float64, device=device)
        rows = [torch.empty_like(mine) for _ in range(self.size)]
        dist.all_gather(rows, mine, group=self.group)
        found: list[list[float]] = torch.stack(rows).tolist()
        return found

    def sums(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """The sum of each tensor over processes, the same to the bit in all; may change inputs."""
        summed = list(tensors)
        for dtype in dict.fromkeys(t.dtype for t in tensors):
            places = [i for i, t in enumerate(tensors) if t.dtype == dtype]
            parts = [tensors[i].reshape(-1) for i in places]
            flat = torch.cat(parts) if len(parts) > 1 else parts[0]
            dist.all_reduce(flat, group=self.group)
            for i, part in zip(places, flat.split([p.numel() for p in parts])):
                summed[i] = part.view(tensors[i].shape)
        return summed

    def rows(self, mine: Tensor, count: int) -> Tensor:
        """The ``count`` rows of all processes in order, of which ``mine`` are those of its share.

        ``mine`` may hold more rows than that, which are dropped.
        """
        lengths = [s.stop - s.start for s in (self.share(count, r) for r in range(self.size))]
        sent = mine.new_zeros((lengths[0], *mine.shape[1:]))
        own = lengths[self.rank]
        sent[:own] = mine[:own]
        # As bytes: not every backend takes every dtype.
        raw = sent.view(torch.uint8)
        found = [torch.empty_like(raw) for _ in range(self.size)]
        dist.all_gather(found, raw, group=self.group)
        return torch.cat([f.view(mine.dtype)[:n] for f, n in zip(found, lengths)])

    def first(
        self, mine: list[Tensor] | None, like: list[Tensor] | None, device: torch.device
    ) -> list[Tensor] | None:
        """The tensors of the first process that has some, in all; None where none has.

        Args:
            mine: this process's, or None.
            like: tensors of the same shapes and dtypes; None where those are not known.
            device: the tensors'.
        """
        state = (mine is not None, like is not None)
        has, knows = zip(*self.table([float(s) for s in state], device))
        if not any(has) or not all(knows) or like is None:
            return None
        source = has.index(1.0)
        if source == self.rank and mine is not None:
            like = mine
        parts = [t.detach().contiguous().reshape(-1).view(torch.uint8) for t in like]
        raw = torch.cat(parts)
        dist.broadcast(raw, dist.get_global_rank(self.group, source), group=self.group)
        pieces = raw.split([p.numel() for p in parts])
        # Clones: bytes that lie at an odd place cannot be read as wider numbers.
        return [p.clone().view(t.dtype).view(t.shape) for p, t in zip(pieces, like)]


def _not_a_member() -> ConfigError:
    return ConfigError(
        "Expected group to hold this process, got a group without it; each process passes a group "
        "that it belongs to, or None."
    )
