"""A comparison as tables, for the terminal and as Markdown."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from . import calibration_report
from .figure import Interval, MainFigure
from .results import Comparison, Result

_STYLES = {"control": "cyan", "srt": "bold green"}


@dataclass(frozen=True)
class Sheet:
    """A table as text: a title, headers, and cells with the kind of row that they belong to."""

    title: str
    headers: list[str]
    rows: list[tuple[str, list[str]]]


def sheets(comparison: Comparison) -> list[Sheet]:
    """The main figure with cost, then a table per metric: its gains, where it is not the main one,
    and all its figures, then those of calibration.
    """
    calibration = [Sheet(*one) for one in calibration_report.tables(comparison)]
    return [_main_sheet(comparison), *_metric_sheets(comparison), *calibration]


def _main_sheet(comparison: Comparison) -> Sheet:
    main = comparison.main
    stages = list(comparison.results[0].other_seconds)
    headers = ["row", "views", main.label, *_gain_headers(main), "s/image"]
    rows = []
    for r in comparison.results:
        cells = [
            r.name,
            _views(r),
            *_judged(r, comparison, comparison.metric),
            f"{r.seconds_per_image:.3f} (x{r.seconds_ratio:.1f})",
            *(f"{r.other_seconds[stage]:.3f}" for stage in stages),
            f"{r.flops / 1e9:.4g} G (x{r.flops_ratio:.1f})",
            "" if r.peak_memory is None else f"{r.peak_memory / 2**20:.0f} MiB",
        ]
        rows.append((r.row.kind, cells))
    return Sheet(
        f"{comparison.images} images; {_title(main)}; 95 % intervals over images",
        [*headers, *(f"{stage} s" for stage in stages), "FLOPs", "memory"],
        rows,
    )


def _metric_sheets(comparison: Comparison) -> list[Sheet]:
    made = []
    for metric, main in comparison.metrics.items():
        first = metric == comparison.metric
        if first and not main.beside:
            continue
        rows = []
        for r in comparison.results:
            cells = _judged(r, comparison, metric)[: 1 if first else None]
            cells += [main.shown(r.figures.get(name, math.nan)) for name in main.beside]
            rows.append((r.row.kind, [r.name, *cells]))
        gains = [] if first else _gain_headers(main)
        names = [name.rpartition("/")[2] for name in main.beside]
        made.append(Sheet(_title(main), ["row", main.label, *gains, *names], rows))
    return made


def _views(r: Result) -> str:
    return f"{r.mean_views:.1f} of {r.row.views}" if r.row.adaptive else str(r.row.views)


def _title(main: MainFigure) -> str:
    return f"{main.titled}, lower is better" if main.lower_is_better else main.titled


def _gain_headers(main: MainFigure) -> list[str]:
    relative = ["in %"] if main.lower_is_better else []
    return ["gain over plain", *relative, "over best 1x"]


def rich_table(sheet: Sheet) -> Any:
    """A sheet for the terminal."""
    from rich.table import Table

    made = Table(
        title=sheet.title,
        title_justify="left",
        box=None,
        pad_edge=False,
        header_style="bold",
        padding=(0, 2, 0, 0),
    )
    for i, header in enumerate(sheet.headers):
        made.add_column(header, justify="right" if i else "left", no_wrap=True)
    for kind, cells in sheet.rows:
        made.add_row(*cells, style=_STYLES.get(kind))
    return made


def markdown(comparison: Comparison, title: str) -> str:
    """Everything that the terminal shows, as Markdown."""
    parts = [f"# {title}", *comparison.conclusion().splitlines()]
    for sheet in sheets(comparison):
        lines = [_line(sheet.headers), _line(["---"] * len(sheet.headers))]
        lines += [_line(cells) for _, cells in sheet.rows]
        parts += [f"{sheet.title}:", "\n".join(lines)]
    parts += ["\n".join(f"- {line}" for line in footnotes(comparison).splitlines())]
    command = comparison.context.get("command")
    parts += [f"```\n{command}\n```"] if command else []
    return "\n\n".join(parts) + "\n"


def _line(cells: list[str]) -> str:
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def _judged(r: Result, comparison: Comparison, metric: str) -> list[str]:
    """The value by a metric, and under :func:`_gain_headers` the gains."""
    score, main = r.scores[metric], comparison.metrics[metric]
    plain, best = r.row.kind == "plain", r.name == comparison.controls[metric]
    relative = [] if score.relative_gain is None else [_relative(score.relative_gain)]
    return [
        main.shown(score.value),
        "" if plain else _gain(main, score.gain, score.gain_interval),
        *([""] if plain and relative else relative),
        "(best 1x)"
        if best
        else _gain(main, score.gain_over_control, score.gain_over_control_interval),
    ]


def _gain(main: MainFigure, gain: float, bounds: Interval) -> str:
    return f"{main.shown_gain(gain)} {main.shown_interval(bounds)}".rstrip()


def _relative(gain: float) -> str:
    return "-" if math.isnan(gain) else f"{gain:+.1f}"


def footnotes(comparison: Comparison) -> str:
    """What the columns mean, and the notes, as lines."""
    label = comparison.main.label
    stages = comparison.results[0].other_seconds
    apart = f" {' and '.join(stages)} s: the same, beside the model." if stages else ""
    lines = [
        f"Best 1x: {comparison.control}, the best of the rows that cost one forward, chosen by "
        f"{label} on all of these images and held fixed in the resamples.",
        f"s/image: median, the model alone.{apart} Memory: peak, "
        f"{comparison.context['peak_memory_is']}.",
        *_readings(comparison),
        *([_ADAPTIVE] if any(r.row.adaptive for r in comparison.results) else []),
        *calibration_report.notes(comparison),
        *comparison.notes,
    ]
    return "\n".join(lines)


_ADAPTIVE = (
    "Views with a tolerance: the mean over images, of at most so many; FLOPs are those of an image "
    "with the mean number of views."
)


def _readings(comparison: Comparison) -> list[str]:
    """How metrics are to be read that are no percentages of what is right."""
    lines = []
    for main in comparison.metrics.values():
        if main.lower_is_better:
            lines.append(
                f"A gain in {main.label} is plain − row, so that positive is better; in %: of the "
                "plain model's."
            )
        lines += [main.note] if main.note else []
    return lines
