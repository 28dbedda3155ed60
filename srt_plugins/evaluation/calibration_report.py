"""Calibration as tables."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .calibration import BINS, BOTH, CONFIDENCE, DEPTH, DISPERSION, FREE
from .calibration_rows import ECE, FIGURES, Calibrated, Gained
from .figure import Interval

if TYPE_CHECKING:
    from .results import Comparison

# Title, headers, and cells with the kind of row that they belong to.
Table = tuple[str, list[str], list[tuple[str, list[str]]]]

_RANKED = {
    CONFIDENCE: "1 - p",
    DEPTH: "depth",
    DISPERSION: "dispersion",
    BOTH: "both",
}


def tables(comparison: Comparison) -> list[Table]:
    """A table of what is free, probabilities or depth, and one of what dispersion says beside."""
    rows = [(r.row.kind, r.name, r.calibration) for r in comparison.results if r.calibration]
    known = {name for _, _, one in rows for name in one.figures}
    free = next((source for source in FREE if f"AUSE_{source}" in known), None)
    made = [] if free is None else [_free(rows, free, comparison.calibration_controls)]
    rows = [row for row in rows if f"AUSE_{DISPERSION}" in row[2].figures]
    return [*made, _dispersion(rows, free)] if rows else made


def _free(rows: list[tuple[str, str, Calibrated]], free: str, controls: dict[str, str]) -> Table:
    names = [f"AUSE_{free}", f"correlation_{free}"]
    names = [ECE, *names] if any(ECE in one.figures for _, _, one in rows) else names
    headers = ["row"]
    for name in names:
        label = FIGURES[name].titled
        headers += [label if name == ECE else f"{label} {_RANKED[free]}"]
        headers += ["p - accuracy"] if name == ECE else []
        headers += ["gain over plain", "over best 1x"]
    cells = []
    for kind, row, one in rows:
        line = [row]
        for name in names:
            value, *gains = _judged(name, one, kind == "plain", row == controls.get(name))
            over = one.overconfidence
            gap = ["-" if over is None else FIGURES[ECE].shown_gain(over)] if name == ECE else []
            line += [value, *gap, *gains]
        cells.append((kind, line))
    what = "predicted depth tells" if free == DEPTH else "the softmax probability p tells"
    which = "ECE and AUSE" if ECE in names else "AUSE"
    return f"What {what} of errors, for free ({which}: lower is better)", headers, cells


def _judged(name: str, row: Calibrated, plain: bool, best: bool) -> list[str]:
    found = row.figures.get(name)
    if found is None:
        return ["-", "", ""]
    main = FIGURES[name]

    def gain(value: float, bounds: Interval) -> str:
        return f"{main.shown_gain(value)} {main.shown_interval(bounds)}".rstrip()

    over = gain(found.gain_over_control, found.gain_over_control_interval)
    return [
        main.shown(found.value),
        "" if plain else gain(found.gain, found.gain_interval),
        "(best 1x)" if best else over,
    ]


def _dispersion(rows: list[tuple[str, str, Calibrated]], free: str | None) -> Table:
    sources = (DISPERSION,) if free is None else (free, DISPERSION, BOTH)
    added = () if free is None else (DISPERSION, BOTH)
    headers = ["row"]
    for figure in ("AUSE", "correlation"):
        headers += [f"{figure} {_RANKED[source]}" for source in sources]
        headers += [f"{_RANKED[source]} over {_RANKED[free or BOTH]}" for source in added]
    cells = []
    for kind, row, one in rows:
        line = [row]
        for figure in ("AUSE", "correlation"):
            line += [_value(f"{figure}_{source}", one.figures) for source in sources]
            for source in added:
                name = f"{figure}_{source}"
                line.append(_gain(name, one.added.get(f"{name}_over_{free}")))
        cells.append((kind, line))
    title = "What the dispersion of the views tells of errors (AUSE: lower is better)"
    return title, headers, cells


def _value(name: str, figures: dict[str, Gained]) -> str:
    return FIGURES[name].shown(figures[name].value) if name in figures else "-"


def _gain(name: str, added: tuple[float, Interval] | None) -> str:
    if added is None:
        return "-"
    main, (gain, bounds) = FIGURES[name], added
    return f"{main.shown_gain(gain)} {main.shown_interval(bounds)}".rstrip()


def notes(comparison: Comparison) -> list[str]:
    """What the columns mean."""
    rows = [r.calibration for r in comparison.results if r.calibration]
    if not rows:
        return []
    found = [
        "AUSE: area under the sparsification error curve, by true error against by uncertainty, "
        "normalised by the error of all pixels (0 = best order); correlation: Spearman's, of "
        "uncertainty with the error of pixels. Both within images; means over images.",
        "Dispersion: of features over views in rows of SRT; of logits or depth in the output "
        "ensemble and flip TTA. Its cost is within s/image and memory.",
    ]
    if any(ECE in one.figures for one in rows):
        found.insert(
            0,
            f"ECE: {BINS} bins of equal width of the largest softmax probability, over all judged "
            "pixels; p - accuracy, in percent: above 0 where p promises too much. A gain in ECE or "
            "AUSE is a reduction.",
        )
    if comparison.calibration_controls:
        found.append("Best 1x of calibration: the best row of one forward by each figure itself.")
    return found
