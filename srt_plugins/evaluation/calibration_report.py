"""Calibration as tables."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .calibration import BINS, BOTH, CONFIDENCE, DISPERSION
from .calibration_rows import ECE, FIGURES, Calibrated, Gained
from .figure import Interval

if TYPE_CHECKING:
    from .results import Comparison

# Title, headers, and cells with the kind of row that they belong to.
Table = tuple[str, list[str], list[tuple[str, list[str]]]]

_RANKED = {
    CONFIDENCE: "1 - p",
    DISPERSION: "dispersion",
    BOTH: "both",
}


def tables(comparison: Comparison) -> list[Table]:
    """A table of the softmax probabilities, and one of what dispersion says beside them."""
    rows = [(r.row.kind, r.name, r.calibration) for r in comparison.results if r.calibration]
    made = [_confidence(rows, comparison.calibration_controls), _dispersion(rows)]
    return [one for one in made if one is not None]


def _confidence(rows: list[tuple[str, str, Calibrated]], controls: dict[str, str]) -> Table | None:
    names = (ECE, f"AUSE_{CONFIDENCE}", f"correlation_{CONFIDENCE}")
    if not any(name in one.figures for _, _, one in rows for name in names):
        return None
    headers = ["row"]
    for name in names:
        label = FIGURES[name].titled
        headers += [label if name == ECE else f"{label} {_RANKED[CONFIDENCE]}"]
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
    title = "Calibration of the softmax probability p (ECE and AUSE: lower is better)"
    return title, headers, cells


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


def _dispersion(rows: list[tuple[str, str, Calibrated]]) -> Table | None:
    rows = [row for row in rows if f"AUSE_{DISPERSION}" in row[2].figures]
    if not rows:
        return None
    sure = any(f"AUSE_{CONFIDENCE}" in one.figures for _, _, one in rows)
    sources = (CONFIDENCE, DISPERSION, BOTH) if sure else (DISPERSION,)
    headers = ["row"]
    for figure in ("AUSE", "correlation"):
        headers += [f"{figure} {_RANKED[source]}" for source in sources]
        headers += ["dispersion over 1 - p", "both over 1 - p"] if sure else []
    cells = []
    for kind, row, one in rows:
        line = [row]
        for figure in ("AUSE", "correlation"):
            line += [_value(f"{figure}_{source}", one.figures) for source in sources]
            for source in (DISPERSION, BOTH) if sure else ():
                name = f"{figure}_{source}"
                line.append(_gain(name, one.added.get(f"{name}_over_{CONFIDENCE}")))
        cells.append((kind, line))
    return (
        "What the dispersion of the views tells of errors (AUSE: lower is better)",
        headers,
        cells,
    )


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
