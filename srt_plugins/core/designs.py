"""Point sets on the torus of patch phases: a whole patch of translation shows the same grid."""

from __future__ import annotations

Point = tuple[int, int]


def lattice(n: int, period: int) -> list[Point] | None:
    """The rank-1 lattice of ``n`` whole-pixel points that lie farthest apart on the torus.

    None where rounding to pixels merges points of every such lattice.
    """
    best: tuple[int, int, list[Point]] | None = None
    for g in range(1, n):
        points = [
            (wrap(round(i * period / n), period), wrap(round((i * g % n) * period / n), period))
            for i in range(n)
        ]
        if len(set(points)) < n:
            continue
        gap = min(_squared_gap(p, q, period) for k, p in enumerate(points) for q in points[:k])
        if best is None or gap > best[0]:
            best = (gap, g, points)
    return None if best is None else best[2]


def spread(points: list[Point], period: int) -> list[Point]:
    """Farthest-point order on the torus, from the centre, so that every prefix is spread out."""
    remaining = sorted(set(points), key=lambda p: (p[0] ** 2 + p[1] ** 2, p))
    ordered = [remaining.pop(0)]
    distance = {p: _squared_gap(p, ordered[0], period) for p in remaining}
    while remaining:
        total = (sum(p[0] for p in ordered), sum(p[1] for p in ordered))
        # Ties go to the point that pulls the sum of all back to zero.
        chosen = max(
            remaining,
            key=lambda p: (distance[p], -((p[0] + total[0]) ** 2 + (p[1] + total[1]) ** 2)),
        )
        remaining.remove(chosen)
        ordered.append(chosen)
        for p in remaining:
            distance[p] = min(distance[p], _squared_gap(p, chosen, period))
    return ordered


def _squared_gap(p: Point, q: Point, period: int) -> int:
    dy, dx = (abs(a - b) % period for a, b in zip(p, q))
    return min(dy, period - dy) ** 2 + min(dx, period - dx) ** 2


def wrap(d: int, period: int) -> int:
    """``d`` modulo the period, in ``(-period / 2, period / 2]``."""
    d %= period
    return d - period if 2 * d > period else d
