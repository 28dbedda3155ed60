"""What a comparison says, in a few sentences."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from .bootstrap import MIN_IMAGES

if TYPE_CHECKING:
    from .results import Comparison, Result


def conclusion(comparison: Comparison) -> str:
    """What SRT adds beyond the best control, and what is ahead of it, by each metric."""
    several = len(comparison.metrics) > 1
    return "\n".join(
        (f"{main.label}: " if several else "")
        + (f"A gain is a reduction of {main.titled}. " if main.lower_is_better else "")
        + _of_metric(comparison, metric)
        for metric, main in comparison.metrics.items()
    )


def _of_metric(comparison: Comparison, metric: str) -> str:
    best = comparison.best("srt", metric)
    if best is None:
        return "No row of SRT has this figure."
    main, value = comparison.metrics[metric], best.scores[metric].value
    rivals = [
        r for r in comparison.of_kind("other") if main.gain(r.scores[metric].value, value) > 0
    ]
    text = _beyond_control(comparison, metric, best)
    if not rivals:
        return text
    ahead = ", ".join(
        f"{r.name} ({main.shown_gain(r.scores[metric].gain)} over plain)" for r in rivals
    )
    return f"{text} Ahead of SRT here: {ahead}."


def _beyond_control(comparison: Comparison, metric: str, srt: Result) -> str:
    control, score = comparison[comparison.controls[metric]], srt.scores[metric]
    main = comparison.metrics[metric]
    if control.row.kind == "plain":
        start = "No 1x control beats the plain model."
    else:
        name = control.name.removeprefix("1x ")
        start = f"Best 1x control: {name}: {main.shown_gain(control.scores[metric].gain)}."
    if math.isnan(score.gain_over_control):
        return f"{start} {srt.name}: its gain beyond it cannot be told."
    bounds = score.gain_over_control_interval
    gain = main.shown_gain(score.gain_over_control)
    if bounds is None:
        few = comparison.images < MIN_IMAGES
        why = "too few images for an interval" if few else "no interval"
        return f"{start} {srt.name}: {gain} beyond it; {why}."
    gain += f" {main.shown_interval(bounds)}"
    if bounds[0] <= 0 <= bounds[1]:
        return (
            f"{start} {srt.name}: {gain} beyond it, which cannot be distinguished from 0 on "
            f"these {comparison.images} images."
        )
    verb = "adds" if score.gain_over_control > 0 else "is worse:"
    return f"{start} {srt.name} {verb} {gain} beyond it."
