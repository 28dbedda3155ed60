"""All rows, in the order in which they run."""

from __future__ import annotations

import re
from contextlib import nullcontext

from . import ours, rivals
from .points import GROUPS, Point

_MAKERS = {
    "controls": ours.controls,
    "srt": ours.nested,
    "outputs": rivals.outputs,
    "padding": ours.padded,
    "mirrored": ours.mirrored,
    "flip": rivals.flipped,
    "larger": rivals.larger,
    "random": rivals.randomly,
    "designs": rivals.sets,
    "grid": rivals.grids,
    "layer": ours.layers,
}


def points(choice, groups, only=None):
    """All rows of some groups, the plain one first; with ``only``, those whose names it matches."""
    made = [Point("plain", "plain", "plain", 1, nullcontext)]
    for group in GROUPS:
        if group in groups:
            made += _MAKERS[group](choice)
    # One of each name: strengths may be given twice, in different words.
    found = {point.name: point for point in made if not only or re.search(only, point.name)}
    return list({"plain": made[0], **found}.values())
