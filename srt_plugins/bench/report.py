"""A benchmark as tables: Markdown whose columns also line up in a terminal."""

from __future__ import annotations

from collections.abc import Sequence

from .bars import Bar, bars
from .results import AggregationResult, Benchmark, Measurement, RowResult
from .rows import NAIVE, PIXEL_MEAN
from .timing import Spread

_MIB = 2**20


def markdown(benchmark: Benchmark) -> str:
    """The bars, then the tables of every measurement, what the columns mean, and the command."""
    parts = ["# What SRT costs beyond its forwards", _setting(benchmark), "## Bars"]
    parts.append(_bars_table(bars(benchmark.measurements)))
    for m in benchmark.measurements:
        parts += [f"## {m.title}", _facts(m), "As a whole:", _rows_table(m)]
        parts += ["Aggregation alone, on stored features:", _aggregation_table(m)]
    parts.append("\n".join(f"- {line}" for line in _notes(benchmark)))
    command = benchmark.context.get("command")
    parts += [f"```\n{command}\n```"] if command else []
    return "\n\n".join(parts) + "\n"


def _setting(benchmark: Benchmark) -> str:
    versions = benchmark.context.get("versions", {})
    named = ", ".join(f"{k} {versions[k]}" for k in ("torch", "timm", "python") if k in versions)
    return f"{benchmark.context.get('hardware', 'unknown hardware')}; {named}; random weights."


def _facts(m: Measurement) -> str:
    """The plain model in a line."""
    batches = ", ".join(f"{batch}: {s * 1e3:.4g}" for batch, s in m.batches.items())
    threads = f", {m.threads} CPU thread" + ("s" if m.threads != 1 else "")
    return (
        f"{m.tokens[0]}x{m.tokens[1]} tokens of {m.patch} pixels, {m.channels} channels, weights "
        f"{m.weights / _MIB:.1f} MiB{threads}. Plain forward, ms per view by batch: "
        f"{batches}."
    )


def _bars_table(judged: Sequence[Bar]) -> str:
    rows = []
    for bar in judged:
        sign = "<=" if bar.at_most else ">="
        limit, aim = (f"{sign} {_figure(bar, value)}" for value in (bar.limit, bar.aim))
        rows.append([bar.where, bar.what, _figure(bar, bar.value), limit, aim, bar.verdict])
    return table(["measured on", "bar", "measured", "must be", "aim", "verdict"], rows, 2)


def _figure(bar: Bar, value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value * 100:.1f} %" if bar.unit == "percent" else f"{value:.3g}"


def _rows_table(m: Measurement) -> str:
    headers = ["row", "views", "per forward", "ms", "over N plain", "from - to", "views/s"]
    headers += ["peak MiB", "beyond one forward", "with weights", "without"]
    body = []
    for n in m.plain:
        body.append(_plain_cells(m, n))
        body += [_cells(m, row) for row in m.rows if row.views == n]
    return table(headers, body, 1)


def _plain_cells(m: Measurement, views: int) -> list[str]:
    """N plain forwards: the limit, and by its spread the noise."""
    spread = m.plain[views]
    cells = _time_cells(views, spread.times(views), spread.times(1 / spread.median))
    peak = m.forward_peaks.get(m.best[views])
    memory = "" if peak is None else _mib(peak)
    return [f"{views} x plain", str(views), str(m.best[views]), *cells, memory, "", "", ""]


def _cells(m: Measurement, row: RowResult) -> list[str]:
    name = [row.name, str(row.views), str(row.chunk)]
    if row.failed:
        return [*name, row.failed, *[""] * 7]
    memory = ["-"] * 4
    if row.peak is not None and row.extra is not None:
        shares = (m.extra_share(row), m.extra_share_of_activations(row))
        memory = [_mib(row.peak), _mib(row.extra), *map(_percent, shares)]
    return [*name, *_time_cells(row.views, row.seconds, row.ratio), *memory]


def _time_cells(views: int, seconds: Spread | None, ratio: Spread | None) -> list[str]:
    if seconds is None or ratio is None:
        return ["-"] * 4
    span = "-" if ratio.count == 1 else f"{ratio.low:.3f} - {ratio.high:.3f}"
    return [_ms(seconds), f"{ratio.median:.3f}", span, f"{views / seconds.median:.4g}"]


def _aggregation_table(m: Measurement) -> str:
    headers = ["statistic", "views", "ms", "from - to", "over N plain forwards", "naive / ours"]
    return table(headers, [_aggregation_cells(m, a) for a in m.aggregations], 1)


def _aggregation_cells(m: Measurement, a: AggregationResult) -> list[str]:
    if a.seconds is None:
        return [a.name, str(a.views), a.failed or "-", "", "", ""]
    low, high = a.seconds.low * 1e3, a.seconds.high * 1e3
    span = "-" if a.seconds.count == 1 else f"{low:.4g} - {high:.4g}"
    naive, faster = m.aggregation(NAIVE, a.views), ""
    if a.name == PIXEL_MEAN and naive and naive.seconds:
        faster = f"{naive.seconds.median / a.seconds.median:.1f}"
    return [a.name, str(a.views), _ms(a.seconds), span, _percent(m.share(a)), faster]


def _notes(benchmark: Benchmark) -> list[str]:
    kinds = sorted({m.device for m in benchmark.measurements})
    counted = {
        "cpu": "tensors counted one by one (what an operator uses inside is not seen)",
        "cuda": "torch.cuda.max_memory_allocated",
    }
    process = ["Times: seconds that the cores spent on this process, not the time of day."]
    if benchmark.context.get("clock") != "process":
        process = []
    memory = "; ".join(f"{kind}: {counted[kind]}" for kind in kinds)

    return [
        *process,
        "Medians, with the lowest and highest. Rows of one number of views are measured in turns, "
        "each between two looks at the plain model at its best batch, which its ratio is over. "
        "The spread of N x plain is that of the looks: the noise of the machine.",
        f"Peak MiB: tensors that a call makes, without weights ({memory}). Beyond one forward: "
        "MiB over the peak of one plain forward of as many views as run at once; in percent of "
        "all that this forward holds with the weights, and of what it makes without them.",
        "The naive loop runs one view at a time, upsamples its map to pixels by nearest neighbour, "
        "rolls it back and adds it to a sum of pixels. Aggregation alone leaves out the forwards, "
        "in both.",
        "1 view with smoothing is the plain model with its token grid smoothed.",
    ]


def table(headers: Sequence[str], rows: Sequence[Sequence[str]], left: int) -> str:
    """A Markdown table, the first ``left`` columns flush left, cells padded to line up."""
    widths = [max(map(len, column)) for column in zip(headers, *rows)]

    def line(cells: Sequence[str]) -> str:
        padded = [
            cell.ljust(width) if i < left else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(cells, widths))
        ]
        return f"| {' | '.join(padded)} |"

    rule = ["-" * w if i < left else "-" * (w - 1) + ":" for i, w in enumerate(widths)]
    return "\n".join([line(headers), line(rule), *map(line, rows)])


def _ms(seconds: Spread) -> str:
    return f"{seconds.median * 1e3:.4g}"


def _mib(size: int) -> str:
    return f"{size / _MIB:.1f}"


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{share * 100:.1f} %"
