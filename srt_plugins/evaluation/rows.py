"""Which rows a comparison has, and what each of them is called."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Union

from ..core.guided import Guided
from ..core.resample import smoothing_kernel
from ..core.views import Views
from ..errors import ConfigError
from ..settings import Settings

RowArg = Union[Settings, Mapping[str, Any]]

# What can be left out: the 1x controls and the three other ensembles.
SKIPPABLE = ("controls", "oe", "flip", "larger")
CONTROL_KERNELS = (3, 5, "guided")
# Completion of partial patches as the config says.
OWN = "own"
DEFAULT_ROWS: tuple[Mapping[str, Any], ...] = ({}, {"smooth": 3})


@dataclass(frozen=True)
class Row:
    """One row of a comparison.

    Attributes:
        name: unique, for people.
        kind: ``"plain"``, ``"control"`` (costs one forward), ``"srt"`` or ``"other"``.
        method: ``"plain"``, ``"srt"``, ``"oe"``, ``"flip"`` or ``"larger"``.
        views: views (forwards) per image, at most where there is a tolerance.
        settings: those of SRT, where the method is ``"srt"``.
        complete: how partial patches are completed in this row, whatever was asked:
            :data:`OWN` (as the config says), a padding, or None (as asked).
    """

    name: str
    kind: str
    method: str
    views: int = 1
    settings: Settings | None = None
    complete: str | None = None

    @property
    def adaptive(self) -> bool:
        """Whether each image decides how many views it needs."""
        own = self.settings if self.method == "srt" else None
        return own is not None and own.tolerance is not None


def settings_of(row: RowArg) -> Settings:
    """Checked settings of a row given as keywords or as :class:`Settings`."""
    if isinstance(row, Settings):
        return row
    if not isinstance(row, Mapping):
        raise ConfigError(
            f"Expected each row to be Settings or a dict of keywords, got {type(row).__name__}."
        )
    return Settings.of(**row)


def keywords(settings: Settings) -> dict[str, Any]:
    """The settings as keywords (shallow: a list of views stays one)."""
    return {f.name: getattr(settings, f.name) for f in fields(settings)}


def plan(
    srt: Sequence[tuple[Settings, Views]],
    skip: frozenset[str] = frozenset(),
    own_padding: bool = False,
    free_padding: bool = False,
) -> list[Row]:
    """All rows of a comparison.

    Args:
        srt: settings of the SRT rows with their views, at least one.
        skip: what to leave out, of :data:`SKIPPABLE`.
        own_padding: add the plain model with its own completion of partial patches as a control
            (where another way was asked for).
        free_padding: add the 1x controls with replicated pixels in partial patches, which cost
            nothing either (where the config completes them otherwise).
    """
    first, views = srt[0]
    count = len(views)
    rows = [Row("plain", "plain", "plain")]
    if own_padding:
        rows.append(Row("1x plain, own padding", "control", "plain", complete=OWN))
    if "controls" not in skip:
        controls = _controls([settings for settings, _ in srt])
        rows += controls
        if free_padding:
            rows += [_replicated(row) for row in (rows[0], *controls)]
    rows += _srt_rows(srt)
    if "oe" not in skip:
        rows.append(Row(f"output ensemble (OE), {count} views", "other", "oe", count, first))
    if "flip" not in skip:
        rows.append(Row("flip TTA", "other", "flip", 2))
    if "larger" not in skip and count > 1:
        rows.append(Row("larger input", "other", "larger", 1))
    return rows


def srt_name(settings: Settings, views: int) -> str:
    """What a row of SRT is called."""
    most = "" if settings.tolerance is None else "up to "
    parts = [f"SRT {most}{views} view" + ("s" if views != 1 else "")]
    if settings.level is not None:
        parts.append(f"level {settings.level}")
    if settings.flip:
        parts.append("mirrored")
    if settings.statistic != "mean":
        parts.append(settings.statistic)
    if settings.layer is not None:
        parts.append(f"layer {settings.layer}")
    if settings.outputs is not None:
        parts.append(f"outputs {','.join(map(str, settings.outputs))}")
    if settings.stride is not None:
        parts.append(f"stride {settings.stride}")
    if settings.padding != "replicate":
        parts.append(settings.padding)
    if settings.tolerance is not None:
        parts.append(f"tolerance {settings.tolerance:g}")
    smooth = smoothing_name(settings)
    return ", ".join(parts) + (f" + {smooth}" if smooth else "")


def smoothing_name(settings: Settings) -> str:
    """Taps as ``[1 2 1]/4``, or ``guided SPACE COLOUR``; empty without smoothing."""
    if isinstance(settings.smooth, str):
        guided = Guided.parse(settings.smooth)
        return f"guided {guided.space:g} {guided.colour:g}"
    kernel = smoothing_kernel(settings.smooth)
    if kernel is None:
        return ""
    least = min(tap for tap in kernel if tap)
    taps = [tap / least for tap in kernel]
    return f"[{' '.join(f'{tap:.3g}' for tap in taps)}]/{sum(taps):.3g}"


def _controls(srt: Sequence[Settings]) -> list[Row]:
    """Smoothing without views: standard ones, and each SRT row that smooths, at one view."""
    standard = [Settings(views=[(0, 0)], smooth=k, padding=srt[0].padding) for k in CONTROL_KERNELS]
    single = [
        s.but(
            views=[(0, 0)],
            level=None,
            flip=False,
            statistic="mean",
            dispersion=False,
            tolerance=None,
        )
        for s in srt
        if smoothing_name(s)
    ]
    rows: dict[str, Row] = {}
    for settings in (*standard, *single):
        name = srt_name(settings, 1).removeprefix("SRT 1 view").lstrip(", +")
        name = f"1x smoothing {name}"
        rows.setdefault(name, Row(name, "control", "srt", 1, settings))
    return list(rows.values())


def _replicated(row: Row) -> Row:
    what = "" if row.method == "plain" else f", {row.name.removeprefix('1x ')}"
    return replace(row, name=f"1x replicate padding{what}", kind="control", complete="replicate")


def _srt_rows(srt: Sequence[tuple[Settings, Views]]) -> list[Row]:
    """A row each; the same views and settings once, whatever way the views were given in."""
    rows: dict[str, Row] = {}
    known: set[tuple] = set()
    for settings, views in srt:
        weighted = tuple(zip(views.translations, views.weights))
        same = settings.but(views=None, level=None, max_views=None, dispersion=False)
        if settings.tolerance is None:  # the order and the rounds only matter with one
            weighted, same = tuple(sorted(weighted)), same.but(view_batch="auto")
        key = (weighted, repr(same))
        if key in known:
            continue
        known.add(key)
        name = srt_name(settings, len(views))
        if name in rows:
            name += f", at {' '.join(f'({y},{x})' for y, x in views.translations[:_SHOWN])}"
            name += " …" if len(views) > _SHOWN else ""
        while name in rows:
            name += "'"
        rows[name] = Row(name, "srt", "srt", len(views), settings)
    return list(rows.values())


# Translations shown where only they tell two rows apart.
_SHOWN = 4
