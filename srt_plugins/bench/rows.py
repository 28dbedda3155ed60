"""What is measured: one row per statistic and number of views."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

TOKEN_MEAN, PIXEL_MEAN, NAIVE = "token mean", "pixel mean", "naive loop, pixel mean"
BLIND, GUIDED = "smooth=3", "smooth=guided"
_BLIND: dict[str, Any] = {"smooth": 3}
_GUIDED: dict[str, Any] = {"smooth": "guided"}
STATISTICS: dict[str, dict[str, Any]] = {
    TOKEN_MEAN: {},
    "token mean and dispersion": {"dispersion": True},
    "median": {"statistic": "median"},
    PIXEL_MEAN: {"stride": 1},
}


@dataclass(frozen=True)
class Row:
    """A row of the table.

    Attributes:
        name: without the number of views.
        kind: ``"srt"`` or ``"naive"``.
        views: number of views.
        keywords: settings of SRT, which say the views of a naive row too.
    """

    name: str
    kind: str
    views: int
    keywords: dict[str, Any] = field(default_factory=dict)


def view_keywords(count: int) -> dict[str, Any]:
    """Settings of a number of views: 1 is the image alone, 4 the default, 49 the paper's level 3,
    any other the best design.
    """
    return {1: {"level": 0}, 4: {}, 49: {"level": 3}}.get(count, {"views": count})


def rows(counts: Sequence[int], blocks: int) -> list[Row]:
    """All rows, fewest views first.

    Args:
        counts: numbers of views.
        blocks: blocks of the backbone; 0 leaves out the rows that ensemble at one.
    """
    smoothing = {BLIND: _BLIND, GUIDED: _GUIDED}
    made = [Row(name, "srt", 1, {**view_keywords(1), **k}) for name, k in smoothing.items()]
    ours = {**STATISTICS, **_layers(blocks), **smoothing}
    for count in counts:
        views = view_keywords(count)
        made += [Row(name, "srt", count, {**views, **k}) for name, k in ours.items()]
        made.append(Row(NAIVE, "naive", count, views))
    return made


def _layers(blocks: int) -> dict[str, dict[str, Any]]:
    """A middle and a late block."""
    indices = sorted({blocks // 2 - 1, blocks * 5 // 6 - 1} - {-1, blocks - 1})
    return {f"layer={i} of {blocks}": {"layer": i} for i in indices if i >= 0}
