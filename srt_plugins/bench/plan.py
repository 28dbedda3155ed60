"""What is measured of a backbone, and how often."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from ..core.views import Views, resolve
from ..errors import ConfigError
from ..settings import Settings
from .rows import TOKEN_MEAN, Row, rows, view_keywords

DEFAULT_COUNTS = (4, 16, 49)


@dataclass(frozen=True)
class Plan:
    """What is measured of a backbone, and how often.

    Attributes:
        counts: numbers of views, each above one.
        repeats: measurements of each row; on a CPU fewer of rows with more than eight views.
        view_batch: views per forward of SRT, or ``"auto"``.
        process_time: on a CPU, time that its cores spend on this process.
    """

    counts: tuple[int, ...] = DEFAULT_COUNTS
    repeats: int = 3
    view_batch: int | str = "auto"
    process_time: bool = False

    def __post_init__(self) -> None:
        if not self.counts or min(self.counts) < 2:
            raise ConfigError(
                f"Expected --views to be numbers above one, got {list(self.counts)}; one view "
                "through the plain model is measured in any case. Use --views 4 16 49."
            )
        if self.repeats < 1:
            raise ConfigError(
                f"Expected --repeats to be 1 or more, got {self.repeats}; use --repeats 3."
            )
        Settings(view_batch=self.view_batch)

    def repeats_of(self, row: Row, device: torch.device) -> int:
        """How often a row is timed; long ones average over time by themselves."""
        if device.type != "cpu" or row.views <= 8:
            return self.repeats
        fewer = max(1, 8 * self.repeats // row.views)
        # The row that the tightest bar judges.
        return min(self.repeats, max(fewer, 3) if row.name == TOKEN_MEAN else fewer)

    def is_weighed(self, row: Row, device: torch.device) -> bool:
        """Whether memory is measured: on a CPU, where it takes a run of its own, only of rows with
        few views, and of those whose memory is judged or grows with them.
        """
        few = row.views <= min(self.counts)
        return device.type != "cpu" or few or row.name in (TOKEN_MEAN, "median")

    def views(self, patch: int) -> dict[int, Views]:
        """The views of each number, and of one.

        Args:
            patch: in pixels.

        Raises:
            ConfigError: the patch has fewer phases.
        """
        made = {}
        for count in (1, *self.counts):
            keywords = view_keywords(count)
            made[count] = resolve(keywords.get("views"), keywords.get("level"), patch, quiet=True)
        return made

    def total_views(self, blocks: int, device: torch.device) -> int:
        """Views that ``progress`` of :func:`srt_plugins.bench.measure` will be told of."""
        every = rows(self.counts, blocks)
        timed = sum(row.views * self.repeats_of(row, device) for row in every)
        return timed + sum(row.views for row in every if self.is_weighed(row, device))
