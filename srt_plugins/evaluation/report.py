"""A comparison as a table for the terminal."""

from __future__ import annotations

from typing import Any

from .results import Comparison, Interval, Result, shown_interval


def table(comparison: Comparison) -> Any:
    """A ``rich`` table, one line per row."""
    from rich.table import Table

    made = Table(
        title=f"{comparison.images} images; mIoU in percent; 95 % intervals over images",
        title_justify="left",
        box=None,
        pad_edge=False,
        header_style="bold",
        padding=(0, 2, 0, 0),
    )
    made.add_column("row", no_wrap=True)
    for header in _FIGURES:
        made.add_column(header, justify="right", no_wrap=True)
    for result in comparison.results:
        made.add_row(*_cells(result, comparison), style=_STYLES.get(result.row.kind))
    return made


_FIGURES = ("views", "mIoU", "gain over plain", "over best 1x", "s/image", "FLOPs", "memory")
_STYLES = {"control": "cyan", "srt": "bold green"}


def _cells(r: Result, comparison: Comparison) -> list[str]:
    plain = r.row.kind == "plain"
    best = r.name == comparison.control
    return [
        r.name,
        str(r.row.views),
        f"{r.mIoU:.2f}",
        "" if plain else _gain(r.gain, r.gain_interval),
        "(best 1x)" if best else _gain(r.gain_over_control, r.gain_over_control_interval),
        f"{r.seconds_per_image:.3f} (x{r.seconds_ratio:.1f})",
        f"{r.flops / 1e9:.4g} G (x{r.flops_ratio:.1f})",
        "" if r.peak_memory is None else f"{r.peak_memory / 2**20:.0f} MiB",
    ]


def _gain(gain: float, bounds: Interval) -> str:
    return f"{gain:+.2f} {shown_interval(bounds)}".strip()


def footnotes(comparison: Comparison) -> str:
    """What the columns mean, and the notes, as lines."""
    lines = [
        f"Best 1x: {comparison.control}, the best of the rows that cost one forward, chosen by "
        "mIoU on all of these images and held fixed in the resamples.",
        f"s/image: median, the model alone. Memory: peak, {comparison.context['peak_memory_is']}.",
        *comparison.notes,
    ]
    return "\n".join(lines)
