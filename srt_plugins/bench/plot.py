"""A benchmark as a picture: time over N plain forwards, and peak memory beside it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..errors import MissingDependencyError
from ..evaluation.files import replacing
from .results import Benchmark, Measurement, RowResult

# Colour-blind safe (Okabe and Ito).
_COLOURS = {"srt": "#D55E00", "naive": "#0072B2", "forward": "#BBBBBB"}
_MIB = 2**20


def save_plot(benchmark: Benchmark, path: str | Path) -> Path:
    """Write a PNG with a pair of bar charts for each measurement.

    Raises:
        MissingDependencyError: matplotlib is not installed.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingDependencyError(
            "The picture needs matplotlib, which is not installed: pip install "
            "'srt-plugins[plots]'."
        ) from error
    shown = benchmark.measurements
    heights = [1.3 + 0.21 * len(m.rows) for m in shown]
    figure = Figure(figsize=(11, sum(heights)), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(len(shown), 2, squeeze=False, height_ratios=heights, width_ratios=[3, 2])
    for m, (time, memory) in zip(shown, axes):
        _time(time, m)
        _memory(memory, m)
    with replacing(path) as part:
        figure.savefig(part, dpi=130, format="png")
    return Path(path)


def _time(axes: Any, m: Measurement) -> None:
    for place, row in enumerate(m.rows):
        if row.ratio is None:
            axes.text(0.02, place, row.failed or "not measured", va="center", fontsize=8)
            continue
        ratio = row.ratio
        error = [[ratio.median - ratio.low], [ratio.high - ratio.median]]
        axes.barh(place, ratio.median, xerr=error, color=_COLOURS[row.kind], capsize=2, height=0.7)
        axes.text(ratio.high, place, f"  {ratio.median:.3f}", va="center", fontsize=8)
    axes.axvline(1, color="#555555", linewidth=1.2, linestyle="--")
    axes.set_xlim(0, 1.12 * max([1.0, *(r.ratio.high for r in m.rows if r.ratio)]))
    _label(axes, m.rows)
    axes.set_xlabel("time over N plain forwards at their best batch (dashed: the limit)")
    axes.set_title(f"{m.title}: time", fontsize=10, loc="left", parse_math=False)


def _memory(axes: Any, m: Measurement) -> None:
    """The weights and one plain forward, and what comes on top, in one bar."""
    most = 1.0
    for place, row in enumerate(m.rows):
        if row.peak is None:
            continue
        forward = (m.weights + m.forward_peaks[row.chunk]) / _MIB
        extra = max(0.0, (row.extra or 0) / _MIB)
        share = m.extra_share(row) or 0.0
        axes.barh(place, forward, color=_COLOURS["forward"], height=0.7)
        axes.barh(place, extra, left=forward, color=_COLOURS[row.kind], height=0.7)
        axes.text(forward + extra, place, f"  {share * 100:+.1f} %", va="center", fontsize=8)
        most = max(most, forward + extra)
    axes.set_xlim(0, 1.2 * most)
    _label(axes, m.rows)
    axes.set_yticklabels([])
    axes.set_xlabel("peak MiB (grey: weights and one plain forward)")
    axes.set_title("peak memory", fontsize=10, loc="left")


def _label(axes: Any, rows: list[RowResult]) -> None:
    axes.set_yticks(range(len(rows)))
    axes.set_yticklabels([f"{row.name}, {row.views}" for row in rows], fontsize=8)
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.grid(axis="x", alpha=0.25)
    axes.set_axisbelow(True)
