"""From statistics to the table and the record."""

from __future__ import annotations

import math

from srt_plugins.evaluation.gains import compare
from srt_plugins.evaluation.record import plain_values
from srt_plugins.evaluation.results import Measured
from srt_plugins.evaluation.rows import Row

# Which controls gains are held against; the plain model is among them, always.
AGAINST = {"blind": ("blind",), "guided": ("guided",), "any": ("blind", "guided")}


class Table:
    """All rows over the same images.

    Attributes:
        points: rows, the plain one first.
        images: the first so many.
        found: a comparison for each of :data:`AGAINST`.
    """

    def __init__(self, points, results, like, images, seed=0):
        self.points, self.images = points, images
        metrics = {p.name: results.metric(like, p, images) for p in points}
        self.found = {}
        for name, kinds in AGAINST.items():
            measured = [
                Measured(
                    Row(p.name, _kind(p, kinds), "srt", views=p.views),
                    [metrics[p.name]],
                    {},
                    [math.nan],  # views are shared among rows, so that none has a time of its own
                    results.flops[p.name],
                )
                for p in points
            ]
            self.found[name] = compare(measured, like_classes(like), seed=seed)

    @property
    def main(self):
        """The figure that gains are in."""
        return self.found["any"].main

    def best(self, against):
        """Name of the best control."""
        return self.found[against].control

    def result(self, name, against="any"):
        """A row's result, whose gain over the control is that over the best of these controls."""
        return self.found[against][name]

    def markdown(self):
        """The table, with the best controls named above it."""
        main = self.main
        best = "; ".join(
            f"best {kind} one: **{self.best(kind)}** ({self._value(self.best(kind))})"
            for kind in ("blind", "guided")
        )
        gain = f"reduction of {main.label}" if main.lower_is_better else f"gain in {main.label}"
        lines = [
            f"{self.images} images. Controls that cost one forward, {best}. Each cell: {gain}, "
            "95 % interval (paired bootstrap over images).",
            "",
            f"| row | views | cost | {main.titled} | over plain | over the best blind 1x control "
            "| over the best guided 1x control |",
            "|---|---|---|---|---|---|---|",
        ]
        for point in self.points:
            cells = [point.name, str(point.views), f"{self.result(point.name).flops_ratio:.2f}"]
            cells.append(self._value(point.name))
            blind, guided = (self.result(point.name, kind) for kind in ("blind", "guided"))
            cells.append(self._gain(blind.gain, blind.gain_interval))
            cells += [
                self._gain(r.gain_over_control, r.gain_over_control_interval)
                for r in (blind, guided)
            ]
            lines.append(f"| {' | '.join(cells)} |")
        return "\n".join(lines) + "\n"

    def record(self):
        """Plain values for JSON."""
        return plain_values(
            {
                "images": self.images,
                "metric": self.main.titled,
                "lower_is_better": self.main.lower_is_better,
                "best_1x_control": {kind: self.best(kind) for kind in AGAINST},
                "rows": [self._row(point) for point in self.points],
            }
        )

    def _row(self, point):
        result = self.result(point.name)
        over = {
            kind: {
                "gain": self.result(point.name, kind).gain_over_control,
                "interval": self.result(point.name, kind).gain_over_control_interval,
            }
            for kind in AGAINST
        }
        return {
            "name": point.name,
            "group": point.group,
            "family": point.family,
            "control": point.control or None,
            "views": point.views,
            "flops": result.flops,
            "cost_in_forwards": result.flops_ratio,
            **result.figures,
            **result.per_class,
            "gain_over_plain": {"gain": result.gain, "interval": result.gain_interval},
            "gain_over_best_1x_control": over,
        }

    def _value(self, name):
        return self.main.shown(self.result(name).value)

    def _gain(self, gain, interval):
        return f"{self.main.shown_gain(gain)} {self.main.shown_interval(interval)}".rstrip()


def like_classes(metric):
    """Names of the classes of a metric; none where there are none."""
    return list(getattr(metric, "classes", ()))


def _kind(point, kinds):
    if point.group == "plain":
        return "plain"
    return "control" if point.control in kinds else "srt"
