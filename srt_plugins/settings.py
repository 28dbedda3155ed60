"""The keywords that every entry point takes, checked in one place."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from numbers import Integral, Real
from typing import Any

from .core.accumulator import Aggregation
from .core.distributed import check_group, portable_group
from .core.resample import Smooth
from .core.statistics import STATISTICS
from .core.translate import check_padding
from .core.views import ViewsArg, check_level, check_views
from .errors import ConfigError, nearest


@dataclass(frozen=True)
class Settings:
    """How a backbone is ensembled.

    Attributes:
        level: largest ``|translation|`` in pixels; alone it means the paper's full grid of
            ``(2 * level + 1) ** 2`` views. 0 switches SRT off.
        views: ``None`` (the grid where ``level`` is given, else ``"phases"``), ``"grid"``,
            ``"phases"`` (2 x 2 phases of the patch), ``"phases:m"`` (m x m), an int n (best n-view
            design), or a list of ``(dy, dx[, weight])`` in pixels.
        flip: mirror every second view left to right before the backbone, and its features back; for
            models that were trained with mirrored images.
        statistic: ``"mean"`` or ``"median"`` over views (the median takes no weights).
        dispersion: also keep the spread over views (see :func:`srt_plugins.dispersion`).
        layer: None = ensemble the outputs; a block index or module path = ensemble there and run
            the rest of the backbone once.
        outputs: which outputs are ensembled (indices or names); the others come from the centre
            view. None = all.
        stride: pixels per output cell, a divisor of the patch; None = as the backbone's.
        smooth: kernel over the token grid: an odd binomial length (3 = [1, 2, 1] / 4) or taps; or
            ``"guided[:SPACE[:COLOUR]]"``, weights from the image (see :class:`Guided`).
        padding: how pixels outside the image are made, for translations and partial patches:
            ``"replicate" | "reflect" | "zeros"``.
        view_batch: views per forward, or ``"auto"``.
        tolerance: run views of an image only until the relative standard error of their mean falls
            below this, such as 0.4; None = always all views. Without ``views`` and ``level`` there
            are then up to 16, ``"phases:4"``.
        max_views: run at most this many of the views, the first ones; None = all.
        group: processes that share the views of each image: a process group of torch.distributed,
            or ``"world"``; None = each process runs all views.
    """

    level: int | None = None
    views: ViewsArg = None
    flip: bool = False
    statistic: str = "mean"
    dispersion: bool = False
    layer: int | str | None = None
    outputs: Sequence[int | str] | None = None
    stride: int | None = None
    smooth: Smooth = None
    padding: str = "replicate"
    view_batch: int | str = "auto"
    tolerance: float | None = None
    max_views: int | None = None
    group: Any = None

    def __post_init__(self) -> None:
        if self.level is not None:
            check_level(self.level)
        check_views(self.views)
        if self.statistic not in STATISTICS:
            raise ConfigError(
                f"Expected statistic to be one of {', '.join(STATISTICS)}, got {self.statistic!r}."
            )
        if self.dispersion and self.statistic != "mean":
            raise ConfigError(
                f"Expected statistic='mean' with dispersion=True, got {self.statistic!r}."
            )
        if not isinstance(self.flip, bool):
            raise ConfigError(f"Expected flip to be True or False, got {self.flip!r}.")
        check_padding(self.padding)
        _check_count("view_batch", self.view_batch, also="auto")
        _check_count("stride", self.stride, also=None)
        _check_count("max_views", self.max_views, also=None)
        check_group(self.group)
        self._check_tolerance()
        if self.stride is not None and self.layer is not None:
            raise ConfigError(
                f"Expected stride=None with layer={self.layer!r}, got {self.stride}: the rest of "
                "the backbone needs its own number of tokens."
            )
        if isinstance(self.outputs, (int, str)):
            object.__setattr__(self, "outputs", (self.outputs,))
        if self.outputs is not None:
            self._check_outputs(self.outputs)
        self.aggregation()

    def __copy__(self) -> Settings:
        return self  # frozen, and what is pickled loses its process group

    def __deepcopy__(self, memo: dict) -> Settings:
        return self

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "group": portable_group(self.group)}

    def _check_tolerance(self) -> None:
        tolerance = self.tolerance
        if tolerance is None:
            return
        number = isinstance(tolerance, Real) and not isinstance(tolerance, bool)
        if not number or not 0 <= tolerance < math.inf:
            raise ConfigError(
                f"Expected tolerance to be None or a relative standard error >= 0, such as 0.4, "
                f"got {tolerance!r}."
            )
        if self.statistic != "mean":
            raise ConfigError(
                f"Expected statistic='mean' with tolerance={tolerance}, got {self.statistic!r}: "
                "the standard error is that of the mean."
            )
        if self.group is not None:
            raise ConfigError(
                f"Expected group=None with tolerance={tolerance}: which views an image still needs "
                "is known only after the ones before. Share images among processes instead."
            )

    def _check_outputs(self, outputs: Any) -> None:
        if not isinstance(outputs, (list, tuple)) or not all(
            isinstance(name, (Integral, str)) for name in outputs
        ):
            raise ConfigError(
                f"Expected outputs to hold indices or names of outputs, got {outputs!r}."
            )
        if self.layer is not None:
            raise ConfigError(
                f"Expected outputs=None with layer={self.layer!r}, got {outputs!r}: outputs tapped "
                "up to the layer come from the ensemble, later ones from the continued pass."
            )

    def aggregation(self) -> Aggregation:
        """The part of the settings that the engine needs."""
        return Aggregation.of(self.statistic, self.dispersion, self.stride, self.smooth)

    @property
    def is_plain(self) -> bool:
        """True where the settings change nothing: level 0 without smoothing or finer output."""
        off = self.level == 0 and self.views in (None, "grid", "phases")
        return off and not self.aggregation().smooths and self.stride is None

    def but(self, **keywords: Any) -> Settings:
        """The same settings with some replaced."""
        return replace(self, **_known(keywords))

    @classmethod
    def of(cls, **keywords: Any) -> Settings:
        """Settings from keywords, with an error that lists the near ones for an unknown name."""
        return cls(**_known(keywords))


def _known(keywords: dict[str, Any]) -> dict[str, Any]:
    names = [f.name for f in fields(Settings)]
    unknown = [k for k in keywords if k not in names]
    if unknown:
        raise ConfigError(
            f"Unknown SRT keyword {unknown[0]!r}; did you mean {nearest(unknown[0], names, 3)}?"
        )
    return keywords


def _check_count(name: str, value: Any, also: Any) -> None:
    whole = isinstance(value, Integral) and not isinstance(value, bool)
    if value == also or (whole and int(value) >= 1):
        return
    raise ConfigError(f"Expected {name} to be {also!r} or an integer >= 1, got {value!r}.")
