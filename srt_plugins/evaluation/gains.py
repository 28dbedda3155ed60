"""From what was measured to a comparison: figures, gains and their intervals."""

from __future__ import annotations

import math

import numpy as np

from .bootstrap import MIN_IMAGES, RESAMPLES, draw, interval
from .calibration_rows import calibrated
from .metrics import Metric
from .results import Comparison, Measured, Result, Score


def compare(
    measured: list[Measured], classes: list[str], *, seed: int = 0, resamples: int = RESAMPLES
) -> Comparison:
    """Figures of all rows; the first is the plain one.

    The control that gains are held against is chosen for each metric by its value on all images,
    and stays the same in every resample. The plain model is among the candidates, so that a gain is
    never flattered by controls that do harm.
    """
    plain = measured[0]
    results = [_result(m, plain) for m in measured]
    free = [i for i, m in enumerate(measured) if m.row.kind in ("plain", "control")]
    controls = {}
    for metric in plain.metrics:
        main = metric.main
        scores = [r.scores.setdefault(main.name, Score()) for r in results]
        best = max(free, key=lambda i: main.rank(scores[i].value))
        controls[main.name] = results[best].name
        for score in scores:
            score.gain = main.gain(score.value, scores[0].value)
            score.gain_over_control = main.gain(score.value, scores[best].value)
            if main.lower_is_better:
                score.relative_gain = _percent(score.gain, scores[0].value)
        if metric.images >= MIN_IMAGES:
            _add_intervals(scores, best, measured, metric, draw(metric.images, resamples, seed))
    mains = {metric.main.name: metric.main for metric in plain.metrics}
    found = Comparison(results, plain.metrics[0].images, classes, controls, mains)
    if plain.calibration is not None:
        _add_calibration(found, measured, free, seed, resamples)
    return found


def _add_calibration(
    found: Comparison, measured: list[Measured], free: list[int], seed: int, resamples: int
) -> None:
    made, controls = calibrated(
        [m.calibration for m in measured], free, seed=seed, resamples=resamples
    )
    for result, calibration in zip(found.results, made):
        result.calibration = calibration
    found.calibration_controls = {name: found.results[i].name for name, i in controls.items()}


def _percent(part: float, whole: float) -> float:
    return 100 * part / whole if whole else math.nan


def _add_intervals(
    scores: list[Score], best: int, measured: list[Measured], metric: Metric, counts: np.ndarray
) -> None:
    main = metric.main
    found = [next((n for n in m.metrics if n.main.name == main.name), None) for m in measured]
    drawn = [None if one is None else one.resampled(counts) for one in found]
    plain, control = drawn[0], drawn[best]
    for score, own in zip(scores, drawn):
        if own is not None and plain is not None and control is not None:
            score.gain_interval = interval(main.gain(own, plain))
            score.gain_over_control_interval = interval(main.gain(own, control))


def _result(m: Measured, plain: Measured) -> Result:
    figures: dict[str, float] = {}
    per_class: dict[str, dict[str, float]] = {}
    for metric in m.metrics:
        figures.update(metric.figures())
        per_class.update(metric.per_class())
    # The median: a busy machine and first-time compilation show up in single images.
    seconds, plain_seconds = float(np.median(m.seconds)), float(np.median(plain.seconds))
    return Result(
        row=m.row,
        figures=figures,
        per_class=per_class,
        reported=m.reported,
        seconds_per_image=seconds,
        seconds_ratio=seconds / plain_seconds,
        other_seconds={name: float(np.median(s)) for name, s in m.other_seconds.items()},
        mean_views=float(m.row.views if m.mean_views is None else m.mean_views),
        flops=m.flops,
        flops_ratio=m.flops / plain.flops if plain.flops else math.nan,
        peak_memory=m.peak_memory,
        scores={metric.main.name: Score(figures[metric.main.name]) for metric in m.metrics},
    )
