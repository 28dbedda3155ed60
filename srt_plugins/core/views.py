"""Which views to run: sets of whole-pixel translations with weights.

Sign convention, used everywhere: view ``(dy, dx)`` moves the image content down by ``dy`` and right
by ``dx`` pixels. Translations are whole pixels, because resampling pixels would blur the image.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any, Union

from ..errors import ConfigError
from . import designs

ViewsArg = Union[None, str, int, Sequence[Any], "Views"]
VIEW_CHOICES = "'grid', 'phases', 'phases:m', a number of views, or a list of (dy, dx[, weight])"


@dataclass(frozen=True)
class Views:
    """A set of views.

    Attributes:
        translations: ``((dy, dx), ...)`` in pixels, without repeats, in an order whose every prefix
            is spread over the patch.
        weights: one positive weight per view; only their ratios matter.
        mirrored: for each view whether the backbone sees it mirrored left to right; empty = none.
    """

    translations: tuple[tuple[int, int], ...]
    weights: tuple[float, ...]
    mirrored: tuple[bool, ...] = ()

    def __len__(self) -> int:
        return len(self.translations)

    @property
    def level(self) -> int:
        """Largest absolute translation, in pixels."""
        return max(max(abs(dy), abs(dx)) for dy, dx in self.translations)

    def entries(self) -> list[tuple[float, ...]]:
        """``(dy, dx, weight)`` of each view, as :func:`explicit` takes them."""
        return [(*t, w) for t, w in zip(self.translations, self.weights)]

    def first(self, count: int | None) -> Views:
        """The first ``count`` views; all where it is None or there are no more."""
        return self if count is None else self.part(slice(0, count))

    def part(self, chosen: slice) -> Views:
        """Some consecutive views."""
        return Views(self.translations[chosen], self.weights[chosen], self.mirrored[chosen])

    def alternated(self) -> Views:
        """Every second view mirrored, the untranslated one never."""
        mirrored = (i % 2 == 1 and t != (0, 0) for i, t in enumerate(self.translations))
        return Views(self.translations, self.weights, tuple(mirrored))

    @property
    def is_identity(self) -> bool:
        """True where the only view is the untranslated image."""
        return self.translations == ((0, 0),)


def grid(level: int, patch: int | None = None) -> Views:
    """The paper's full grid: every translation with ``|dy|, |dx| <= level`` (Lao et al., Sec. 3.2).

    Args:
        level: largest translation in pixels, >= 0; gives ``(2 * level + 1) ** 2`` views.
        patch: patch size in pixels, used for the order of the views only.

    Raises:
        ConfigError: ``level`` is negative or not an integer.
    """
    level = check_level(level)
    side = range(-level, level + 1)
    return _uniform([(dy, dx) for dy in side for dx in side], patch or 2 * level + 1)


def phases(patch: int, per_axis: int = 2) -> Views:
    """``per_axis ** 2`` evenly spaced phases of the patch grid, the untranslated one among them.

    Args:
        patch: period of the token grid, in pixels.
        per_axis: phases per axis, 1 to ``patch``.
    """
    if not 1 <= per_axis <= patch:
        raise ConfigError(
            f"Expected 1 to {patch} phases per axis, as many as the period has pixels (the patch "
            f"size, or 2 * level where that is less), got {per_axis}. Give level and views='grid' "
            "for a backbone with one token per pixel."
        )
    axis = [designs.wrap(round(i * patch / per_axis), patch) for i in range(per_axis)]
    return _uniform([(dy, dx) for dy in axis for dx in axis], patch)


def best(n: int, patch: int) -> Views:
    """The best ``n``-view design: all phases where ``n`` is a square, else the rank-1 lattice whose
    points lie farthest apart on the torus of patch phases.

    Args:
        n: number of views, 1 to ``patch ** 2``.
        patch: period of the token grid, in pixels.
    """
    if not 1 <= n <= patch * patch:
        raise ConfigError(
            f"Expected a number of views between 1 and {patch * patch} (the distinct phases of a "
            f"{patch}-pixel patch), got views={n}."
        )
    root = math.isqrt(n)
    if root * root == n and root <= patch:
        return phases(patch, root)
    lattice = designs.lattice(n, patch)
    if lattice is not None:
        return _uniform(lattice, patch)
    # Rounding merged lattice points (few distinct phases): take the first n of the full set.
    every = phases(patch, patch)
    return Views(every.translations[:n], every.weights[:n])


def explicit(translations: Sequence[Any]) -> Views:
    """Validated views from a list of ``(dy, dx)`` or ``(dy, dx, weight)``, kept in its order."""
    points: list[tuple[int, int]] = []
    weights: list[float] = []
    for i, item in enumerate(translations):
        entry = tuple(item) if isinstance(item, (tuple, list)) else (item,)
        if len(entry) not in (2, 3) or not all(_is_int(v) for v in entry[:2]):
            raise ConfigError(
                f"Expected views[{i}] to be (dy, dx) or (dy, dx, weight) with whole-pixel dy and "
                f"dx, got {item!r}."
            )
        weight = entry[2] if len(entry) == 3 else 1.0
        if not isinstance(weight, Real) or not math.isfinite(weight) or weight <= 0:
            raise ConfigError(f"Expected a positive weight in views[{i}], got {weight!r}.")
        points.append((int(entry[0]), int(entry[1])))
        weights.append(float(weight))
    if not points:
        raise ConfigError(f"Expected at least one view, got an empty list; use {VIEW_CHOICES}.")
    repeated = sorted({p for p in points if points.count(p) > 1})
    if repeated:
        raise ConfigError(
            f"Expected distinct views, got {repeated} more than once; give a view more weight with "
            "(dy, dx, weight)."
        )
    return Views(tuple(points), tuple(weights))


def resolve(views: ViewsArg, level: int | None, patch: int, *, quiet: bool = False) -> Views:
    """Turn the ``views`` and ``level`` keywords into a validated set of views.

    Args:
        views: ``None`` (the paper's grid where ``level`` is given, else two phases per axis),
            ``"grid"``, ``"phases"``, ``"phases:m"``, an int, or a list of translations.
        level: largest ``|translation|`` in pixels. ``"phases"`` and int designs then span
            ``2 * level`` pixels instead of the whole patch.
        patch: period of the token grid in pixels.
        quiet: do not warn.

    Raises:
        ConfigError: unknown ``views``; ``level`` negative, fractional, or of a whole patch or more.

    Warns:
        UserWarning: translations beyond half a patch, which repeat phases and cost border.
    """
    if level is not None:
        level = check_level(level)
    _check_bound(level or 0, patch)  # before a grid of thousands of views is ordered
    chosen = _build(views, level, patch)
    bound = max(chosen.level, level or 0)
    _check_bound(bound, patch)
    if 2 * bound > patch and not quiet:
        warnings.warn(
            f"translations up to {bound} pixels go beyond half a patch ({patch // 2}): they repeat "
            "phases that smaller ones reach, and lose more of the border",
            stacklevel=2,
        )
    return chosen


def _check_bound(bound: int, patch: int) -> None:
    if bound >= patch > 1:
        raise ConfigError(
            f"Expected translations below one patch ({patch} pixels), got {bound}: from there on "
            f"views repeat each other. Use level <= {patch // 2}."
        )


def check_level(level: Any) -> int:
    """``level`` as an int, or a :class:`ConfigError`."""
    if not _is_int(level) or level < 0:
        raise ConfigError(
            f"Expected level to be a whole number of pixels >= 0, got {level!r}; "
            "level=0 switches SRT off, level=3 is the paper's setting."
        )
    return int(level)


def check_views(views: ViewsArg) -> None:
    """Raise :class:`ConfigError` where ``views`` is wrong whatever the patch size."""
    if views is None:
        return
    if isinstance(views, Views):
        if len(views.translations) != len(views.weights):
            raise ConfigError(
                f"Expected one weight per view, got {len(views.translations)} translations and "
                f"{len(views.weights)} weights."
            )
        views = views.entries()
    if isinstance(views, str):
        _parse_name(views)
    elif _is_int(views):
        if views < 1:  # type: ignore[operator]
            raise ConfigError(f"Expected at least one view, got views={views!r}.")
    elif isinstance(views, (list, tuple)):
        explicit(views)
    else:
        raise ConfigError(f"Expected views to be {VIEW_CHOICES}, got {views!r}.")


def _build(views: ViewsArg, level: int | None, patch: int) -> Views:
    check_views(views)
    if isinstance(views, Views):
        views = views.entries()
    if level == 0 and not isinstance(views, (list, tuple)):
        return Views(((0, 0),), (1.0,))
    period = patch if level is None else min(patch, 2 * level)
    if views is None:
        views = "phases" if level is None else "grid"
    if isinstance(views, str):
        kind, per_axis = _parse_name(views)
        if kind == "phases":
            return phases(period, per_axis)
        if level is None:
            raise ConfigError(
                "Expected level with views='grid', got level=None; the paper's is level=3."
            )
        return grid(level, patch)
    if isinstance(views, (list, tuple)):
        chosen = explicit(views)
        if level is not None and chosen.level > level:
            raise ConfigError(
                f"Expected every translation within level={level}, got one of {chosen.level} "
                "pixels; leave level out when views is a list."
            )
        return chosen
    return best(int(views), period)  # type: ignore[arg-type]


def _parse_name(name: str) -> tuple[str, int]:
    kind, _, count = name.partition(":")
    if kind == "grid" and not count:
        return kind, 0
    if kind == "phases" and (not count or (count.isdigit() and int(count) > 0)):
        return kind, int(count or 2)
    raise ConfigError(f"Expected views to be {VIEW_CHOICES}, got {name!r}.")


def _is_int(value: Any) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool)


def _uniform(points: list[tuple[int, int]], period: int) -> Views:
    ordered = designs.spread(points, period)
    return Views(tuple(ordered), (1.0,) * len(ordered))
