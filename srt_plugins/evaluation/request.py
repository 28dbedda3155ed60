"""What a comparison is asked for, whatever the framework."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, Callable

from ..errors import ConfigError, nearest
from ..settings import Settings
from .bootstrap import RESAMPLES
from .rows import DEFAULT_ROWS, SKIPPABLE, RowArg, settings_of

# Called with the row, its number, the number of rows, the images done in it, the images in all.
Progress = Callable[[str, int, int, int, int], None]


@dataclass(frozen=True)
class Request:
    """The keywords that every comparison takes, checked.

    Attributes:
        rows: SRT rows, each :class:`~srt_plugins.Settings` or a dict of its keywords. None = the
            default views without and with smoothing, or, where the config wraps its backbone, the
            config's settings. The output ensemble and the larger input use the views of the first.
        extra_rows: more SRT rows after those.
        skip: rows to leave out: ``"controls"``, ``"oe"``, ``"flip"``, ``"larger"``.
        limit: first so many images; None = all.
        batch_size: images per batch; None = as the config says.
        workers: processes that load data.
        device: torch device; None = a GPU if there is one.
        seed: of the bootstrap, and of whatever else is random.
        resamples: bootstrap resamples.
        trust_checkpoint: load a checkpoint that holds more than plain tensors; this runs code
            from the file.
        calibration: also tell how well probabilities and the dispersion of views tell where
            predictions are wrong; costs time and memory (see :mod:`.calibration`).
        progress: see :data:`Progress`.
    """

    rows: Sequence[RowArg] | None = None
    extra_rows: Sequence[RowArg] = ()
    skip: Sequence[str] = ()
    limit: int | None = None
    batch_size: int | None = None
    workers: int = 0
    device: Any = None
    seed: int = 0
    resamples: int = RESAMPLES
    trust_checkpoint: bool = False
    calibration: bool = False
    progress: Progress | None = None

    def __post_init__(self) -> None:
        for name in self.skip:
            if name not in SKIPPABLE:
                raise ConfigError(
                    f"Expected skip to name some of {', '.join(SKIPPABLE)}, got {name!r}; did you "
                    f"mean {nearest(name, SKIPPABLE, 1)}?"
                )
        given = [settings_of(row) for row in (*(self.rows or ()), *self.extra_rows)]
        if self.rows is not None and not given:
            raise ConfigError(
                "Expected at least one SRT row, got none; leave rows out for the default."
            )
        for name, least in (("limit", 1), ("batch_size", 1), ("workers", 0)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise ConfigError(f"Expected {name} to be at least {least}, got {value}.")

    @classmethod
    def of(cls, rows: Sequence[RowArg] | None, options: dict[str, Any]) -> Request:
        """A request from keywords.

        Raises:
            ConfigError: an unknown keyword, or a bad value.
        """
        names = [f.name for f in fields(cls)]
        for name in options:
            if name not in names:
                raise ConfigError(
                    f"Unknown keyword {name!r} of a comparison; did you mean "
                    f"{nearest(name, names, 3)}?"
                )
        return cls(rows, **options)

    @property
    def left_out(self) -> frozenset[str]:
        """The rows to leave out."""
        return frozenset(self.skip)

    def settings(self, own: Settings | None = None) -> list[Settings]:
        """Settings of the SRT rows.

        Args:
            own: those of the config, which stand in where no rows were asked for.
        """
        extra = [settings_of(row) for row in self.extra_rows]
        if self.rows is not None:
            return [settings_of(row) for row in self.rows] + extra
        if own is None or own.is_plain:
            return [settings_of(row) for row in DEFAULT_ROWS] + extra
        return [own, *([] if own.smooth is not None else [own.but(smooth=3)]), *extra]

    def record(self) -> dict[str, Any]:
        """What of it figures depend on."""
        asked = {"calibration": True} if self.calibration else {}
        return {"limit": self.limit, "seed": self.seed, "resamples": self.resamples, **asked}


DEFAULT = Request()
