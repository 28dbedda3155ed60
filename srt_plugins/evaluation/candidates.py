"""The settings that tuning tries."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from ..core.guided import Guided
from ..core.resample import Smooth

# Strengths of guided smoothing: in tokens, and in standard deviations of the image's colours.
SPACES = (0.3, 0.5, 0.75, 1.0)
COLOURS = (0.2, 0.4, 0.7, 1.0)
KERNELS: tuple[Smooth, ...] = (None, 3, 5)
# Factor per step beyond the weakest and the strongest of them.
_STEP = 1.4
# Cells per token and axis where the output is finer.
_FINER = 4
# Numbers of views that are tried, as far as they can be paid for.
_COUNTS = (2, 4, 9, 16, 25, 36, 49, 64)
# Shares of the blocks after which views are averaged.
_DEPTHS = (1 / 3, 2 / 3)


@dataclass(frozen=True)
class Ways:
    """Which ways of views are tried beside phases of the patch.

    Attributes:
        fewer: all numbers of views that the budget pays for.
        levels: the paper's full grids.
        layers: averages after a third and after two thirds of the blocks, of more views.
        flip: every second view mirrored.
        padding: pixels outside the image reflected.
    """

    fewer: bool = True
    levels: bool = True
    layers: bool = True
    flip: bool = True
    padding: bool = True


def candidates(patch: int, views: int = 4, finer: bool = True) -> list[dict[str, Any]]:
    """Keywords of every candidate: one view and ``views`` of them, each smoothed in every way, at
    the backbone's own stride and at a finer one.

    The first is one view without anything, which is the plain model.

    Args:
        patch: pixels, the period of the views.
        views: forwards per image; 1 = candidates of one view only.
        finer: whether what reads the backbone takes maps of a finer stride.
    """
    strides = [None, finer_stride(patch)] if finer and patch > 1 else [None]
    strengths = [guided_keyword(space, colour) for space in SPACES for colour in COLOURS]
    smoothings: Sequence[Smooth] = (*KERNELS, *strengths)
    choices: list[Any] = [[(0, 0)]]
    if views > 1:
        choices.append(views_keyword(views))
    return [
        {
            "views": chosen,
            **({} if smooth is None else {"smooth": smooth}),
            **({} if stride is None else {"stride": stride}),
        }
        for chosen in choices
        for stride in strides
        for smooth in smoothings
    ]


def affordable(budget: float, patch: int) -> list[int]:
    """Numbers of views that cost no more than ``budget`` forwards, at most one per pixel."""
    return [count for count in _COUNTS if count <= min(budget, patch**2)]


def variants(
    best: dict[str, Any], views: int, budget: float, patch: int, blocks: int, ways: Ways
) -> list[dict[str, Any]]:
    """Other ways of views, each with the smoothing and the stride of the best candidate.

    Args:
        best: keywords of the best candidate of several views.
        views: how many it has.
        budget: forwards of the plain model that a candidate may cost.
        patch: pixels, the period of the views.
        blocks: of the backbone, 0 where they are not known.
        ways: which are tried.
    """
    rest = {k: v for k, v in best.items() if k in ("smooth", "stride")}
    counts = affordable(budget, patch) if ways.fewer else []
    found = [{"views": views_keyword(n), **rest} for n in counts if n != views]
    if ways.levels:
        sides = range(1, patch // 2 + 1)
        found += [{"level": n, **rest} for n in sides if (2 * n + 1) ** 2 <= budget]
    if ways.flip:
        found.append({"views": views_keyword(views), "flip": True, **rest})
    if ways.padding:
        found.append({"views": views_keyword(views), "padding": "reflect", **rest})
    if ways.layers and blocks:
        rest.pop("stride", None)  # the rest of the backbone needs its own number of tokens
        for depth in _DEPTHS:
            after = max(1, round(depth * blocks))
            # Views run the blocks before, one pass runs those after.
            part = after / blocks
            many = affordable((budget - (1 - part)) / part, patch)
            if after < blocks and many:
                found.append({"views": views_keyword(many[-1]), "layer": after - 1, **rest})
    return found


def beyond(best: Guided, known: Collection[Guided]) -> list[Guided]:
    """Strengths one step beyond a grid, next to one at its edge; none for one inside.

    Args:
        best: one of the grid.
        known: the grid.
    """
    spaces, colours = (sorted({getattr(one, name) for one in known}) for name in _AXES)
    found = [
        Guided(space, colour)
        for space in _outside(best.space, spaces)
        for colour in _around(best.colour, colours)
    ]
    found += [
        Guided(space, colour)
        for colour in _outside(best.colour, colours)
        for space in _around(best.space, spaces)
    ]
    return found


_AXES = ("space", "colour")


def _outside(value: float, values: Sequence[float]) -> list[float]:
    found = []
    if value == values[0]:
        found.append(round(value / _STEP, 2))
    if value == values[-1]:
        found.append(round(value * _STEP, 2))
    return [new for new in found if new > 0 and new != value]


def _around(value: float, values: Sequence[float]) -> Sequence[float]:
    place = values.index(value)
    return values[max(0, place - 1) : place + 2]


def guided_keyword(space: float, colour: float) -> str:
    """What ``smooth=`` is for a strength."""
    return f"guided:{space:g}:{colour:g}"


def views_keyword(count: int) -> Any:
    """What ``views=`` is for so many views: phases of the patch for squares, else the number."""
    side = math.isqrt(count)
    if side * side != count or side < 2:
        return count
    return "phases" if side == 2 else f"phases:{side}"


def finer_stride(patch: int) -> int:
    """A quarter of the patch in pixels, or the divisor nearest to it by ratio."""
    divisors = [d for d in range(1, patch) if patch % d == 0]
    return min(divisors, key=lambda d: abs(math.log(d * _FINER / patch)))
