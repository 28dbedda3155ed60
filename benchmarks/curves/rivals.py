"""The rows of what SRT is compared with."""

from __future__ import annotations

import random

from srt_plugins.core.designs import wrap
from srt_plugins.core.views import explicit, phases
from srt_plugins.evaluation.methods import flip, larger_input, output_ensemble

from .points import FEW, KERNELS, PER_AXIS, Point, by, label, srt

SEEDS = (0, 1)


def outputs(c):
    made = []
    for views in marginalized(c.patch):
        name = f"output ensemble, {len(views)} phases"
        method = output_ensemble(views, view_batch=1)
        made.append(Point(name, "outputs", "output ensemble", len(views), by(method)))
    return made


def marginalized(patch):
    """4, 8 and 16 evenly spaced phases: 2 x 2, every second of 4 x 4 (a quincunx), 4 x 4."""
    axis = [wrap(round(i * patch / PER_AXIS), patch) for i in range(PER_AXIS)]
    half = [(y, x) for i, y in enumerate(axis) for j, x in enumerate(axis) if (i + j) % 2 == 0]
    return phases(patch, 2), explicit(half), phases(patch, PER_AXIS)


def flipped(c):
    return [Point("flip TTA", "flip", "flip TTA", 2, by(flip))]


def larger(c):
    return [
        Point(
            f"larger input, x{scale:.3g} per side",
            "larger",
            "larger input",
            cost,
            by(larger_input(scale, c.patch)),
        )
        for cost, scale in c.scales
    ]


def random_views(patch, count, seed):
    """Distinct translations drawn uniformly from the phases of a patch."""
    side = range(patch // 2 - patch + 1, patch // 2 + 1)
    every = [(dy, dx) for dy in side for dx in side]
    return random.Random(seed).sample(every, min(count, len(every)))


def randomly(c):
    made = []
    for seed in SEEDS:
        drawn = random_views(c.patch, max(FEW), seed)
        for n in FEW:
            name = f"random, seed {seed}"
            active = srt(views=drawn[:n])
            made.append(Point(f"{name}, {n} views", "random", name, n, active))
    return made


def sets(c):
    half, quarter = c.patch // 2, c.patch // 4
    sets = {
        "{-p/4, p/4}": (-quarter, quarter),
        "{-p/2, 0, p/2}": (-half, 0, half),
        "{-p/2, -p/4, 0, p/4, p/2}": (-half, -quarter, 0, quarter, half),
    }
    made = []
    for name, axis in sets.items():
        views = [(dy, dx) for dy in axis for dx in axis]
        for smooth in (None, *KERNELS):
            what = label(smooth)
            made.append(
                Point(
                    f"{name} squared, {len(views)} views{what}",
                    "designs",
                    f"{name} squared{what}",
                    len(views),
                    srt(views=views, smooth=smooth),
                )
            )
    return made


def grids(c):
    made = []
    for level in sorted(c.levels):
        views = (2 * level + 1) ** 2
        kinds = [(dict(smooth=smooth), label(smooth)) for smooth in (None, *KERNELS)]
        for keywords, what in (*kinds, (dict(statistic="median"), ", median")):
            name = f"paper's grid, level {level}, {views} views{what}"
            active = srt(level=level, **keywords)
            made.append(Point(name, "grid", f"paper's grid{what}", views, active))
    return made
