"""A comparison as a picture: gain over the plain model against cost."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..errors import MissingDependencyError
from .files import replacing
from .results import Comparison, Result

# Colour-blind safe (Okabe and Ito), one hue per kind; rows of a kind differ by marker.
_COLOURS = {"plain": "#555555", "control": "#0072B2", "srt": "#D55E00", "other": "#009E73"}
_MARKERS = {
    "plain": "o",
    "control": "sDv^<>",
    "srt": "oPX*hpDsv^<>",
    "other": "sDv^<>",
}
_GROUPS = {"plain": "Plain model", "control": "1x controls", "srt": "SRT", "other": "Others"}


def save_plot(comparison: Comparison, path: str | Path, title: str = "") -> Path:
    """Write a PNG: gain by the main metric with 95 % intervals against cost in plain forwards.

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
    figure = Figure(figsize=(9.5, 4.8), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    control = comparison[comparison.control]
    axes.axhline(0, color=_COLOURS["plain"], linewidth=1)
    if control.row.kind == "control":
        axes.axhline(control.gain, color=_COLOURS["control"], linewidth=1.2, linestyle="--")
    handles = _points(axes, comparison)
    _legend(axes, handles, comparison)
    _scale(axes, comparison.results)
    axes.set_xlabel("cost in forwards of the plain model (FLOPs; equal costs are fanned out)")
    main = comparison.main
    axes.set_ylabel(
        f"gain over plain: reduction of {main.titled}"
        if main.lower_is_better
        else f"gain over plain, points of {main.label}"
    )
    heading = title or "Gain over the plain model"
    axes.set_title(
        f"{heading}: plain {_value(comparison)}, {comparison.images} images, 95 % intervals",
        fontsize=11,
        loc="left",
        parse_math=False,
    )
    axes.grid(alpha=0.25)
    with replacing(path) as part:
        figure.savefig(part, dpi=150, format="png")
    return Path(path)


def _value(comparison: Comparison) -> str:
    """The plain model's main figure, such as ``"mIoU 55.00"`` or ``"RMSE 0.3970 m"``."""
    main, value = comparison.main, comparison.results[0].value
    unit = "" if main.unit == "percent" else main.unit
    return f"{main.label} {main.shown(value)} {unit}".rstrip()


def _points(axes: Any, comparison: Comparison) -> dict[str, Any]:
    used: dict[str, int] = {}
    handles: dict[str, Any] = {}
    for result, cost in zip(comparison.results, dodged(comparison.results)):
        kind = result.row.kind
        nth = used.setdefault(kind, 0)
        used[kind] += 1
        bounds = result.gain_interval
        # Percentile intervals need not hold the estimate; matplotlib wants lengths >= 0.
        error = (
            None
            if bounds is None or kind == "plain"
            else [[max(0.0, result.gain - bounds[0])], [max(0.0, bounds[1] - result.gain)]]
        )
        handles[result.name] = axes.errorbar(
            [cost],
            [result.gain],
            yerr=error,
            color=_COLOURS[kind],
            marker=_MARKERS[kind][nth % len(_MARKERS[kind])],
            markersize=8,
            markerfacecolor="white" if kind == "control" else _COLOURS[kind],
            linestyle="none",
            capsize=3,
            zorder=3,
        )
    return handles


def _legend(axes: Any, handles: dict[str, Any], comparison: Comparison) -> None:
    """Rows by kind beside the picture, where no label can cover a point."""
    from matplotlib.lines import Line2D

    shown, labels = [], []
    for kind, heading in _GROUPS.items():
        results = comparison.of_kind(kind)
        if not results:
            continue
        if kind != "plain":
            shown.append(Line2D([], [], linestyle="none"))
            labels.append(heading)
        for result in results:
            shown.append(handles[result.name])
            best = " (best, dashed)" if result.name == comparison.control != "plain" else ""
            gain = "" if kind == "plain" else f": {comparison.main.shown_gain(result.gain)}"
            labels.append(f"{result.name.removeprefix('1x ')}{gain}{best}")
    legend = axes.legend(
        shown, labels, loc="upper left", bbox_to_anchor=(1.01, 1), frameon=False, fontsize=9
    )
    for text in legend.get_texts():
        text.set_parse_math(False)
        if text.get_text() in _GROUPS.values():
            text.set_fontweight("bold")


def dodged(results: list[Result], gap: float = 0.065) -> list[float]:
    """Costs, those within a few percent of each other fanned out around their middle."""
    costs = [r.flops_ratio if r.flops_ratio > 0 else 1.0 for r in results]
    groups: list[list[int]] = []
    for i in sorted(range(len(costs)), key=lambda i: costs[i]):
        if groups and costs[i] / costs[groups[-1][0]] < 1.15:
            groups[-1].append(i)
        else:
            groups.append([i])
    placed = [0.0] * len(costs)
    for group in groups:
        middle = sum(costs[i] for i in group) / len(group)
        for place, i in enumerate(sorted(group)):
            placed[i] = middle * (1 + gap) ** (place - (len(group) - 1) / 2)
    return placed


def _scale(axes: Any, results: list[Result]) -> None:
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

    most = max([r.flops_ratio for r in results if r.flops_ratio > 0], default=1.0)
    axes.set_xscale("log", base=2)
    ticks = [1.0]
    while ticks[-1] < most * 1.1:
        ticks.append(2 * ticks[-1])
    axes.xaxis.set_major_locator(FixedLocator(ticks))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))
    axes.set_xlim(0.75, max(ticks[-1], most * 1.4) * 1.05)
