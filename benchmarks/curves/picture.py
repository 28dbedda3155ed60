"""The picture: gain over the plain model, and over the best 1x control, against views."""

from __future__ import annotations

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullLocator

from srt_plugins.evaluation.files import replacing

# Colour-blind safe (Okabe and Ito).
ORANGE, SKY, GREEN, YELLOW = "#D55E00", "#56B4E9", "#009E73", "#E6A700"
BLUE, PINK, GREY, BLACK = "#0072B2", "#CC79A7", "#888888", "#000000"
PURPLE, BROWN = "#6A3D9A", "#8C564B"
# What is drawn: of these rows the best family; colour.
LINES = (
    (lambda p: p.family == "SRT", ORANGE),
    (lambda p: p.family.startswith("SRT, stride"), YELLOW),
    (lambda p: _srt(p) and "smooth" in p.family, PINK),
    (lambda p: _srt(p) and "guided" in p.family, BLACK),
    (lambda p: p.group == "mirrored", PURPLE),
    (lambda p: p.family == "paper's grid", BLUE),
    (lambda p: p.group == "grid" and "smooth" in p.family, SKY),
    (lambda p: p.family == "random, seed 0", GREY),
    (lambda p: p.family == "random, seed 1", GREY),
    (lambda p: p.group == "outputs", GREEN),
    (lambda p: p.group == "larger", BROWN),
    (lambda p: p.group == "flip", BROWN),
)
MARKERS = "osPX^Ddv<h>*"
TICKS = (1, 2, 3, 4, 6, 9, 16, 25, 49)


def save_picture(tables, path, title):
    """Write a PNG.

    Args:
        tables: the first is drawn, and of others what it lacks.
    """
    figure = Figure(figsize=(15, 6), layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2)
    lines = _lines(tables)
    for axes, over in ((left, "gain"), (right, "gain_over_control")):
        handles = [_draw(axes, line, over, i / len(lines)) for i, line in enumerate(lines)]
        handles += _controls(axes, tables[0], over)
        _frame(axes, tables[0], over)
    figure.legend(handles=handles, loc="outside right upper", frameon=False, fontsize=9)
    main = tables[0].main
    unit = "" if main.unit == "percent" else f" {main.unit}"
    plain = f"{main.label} {main.shown(tables[0].result('plain').value)}{unit}"
    figure.suptitle(f"{title}: plain {plain}, {tables[0].images} images", x=0.01, ha="left")
    with replacing(path) as part:
        figure.savefig(part, dpi=130, format="png")


def _srt(point):
    return point.group in ("srt", "controls")


def _lines(tables):
    """``(label, points, table, colour, marker)`` of what there is to draw."""
    found = []
    for (counts, colour), marker in zip(LINES, MARKERS):
        for table in tables:
            points = [p for p in table.points if counts(p)]
            if points:
                family, own = _best_family(points, table)
                note = "" if table is tables[0] else f" (first {table.images} images)"
                found.append((family + note, own, table, colour, marker))
                break
    return found


def _best_family(points, table):
    """The family with the best row of more than one view, with its rows in order of views."""
    many = [p for p in points if p.views > 1] or points
    main = table.main
    family = max(many, key=lambda p: main.rank(table.result(p.name).value)).family
    own = sorted((p for p in points if p.family == family), key=lambda p: p.views)
    if family == "SRT" and own[0].views > 1:  # at one view it is the plain model
        own.insert(0, table.points[0])
    return family, own


def _draw(axes, line, over, place):
    # A little apart, so that intervals of equal views can be told from each other.
    label, points, table, colour, marker = line
    results = [table.result(p.name) for p in points]
    gains = [getattr(r, over) for r in results]
    bounds = [getattr(r, f"{over}_interval") or (g, g) for r, g in zip(results, gains)]
    views = [p.views * 2 ** (0.16 * (place - 0.5)) for p in points]
    # Percentile intervals need not hold the estimate; matplotlib wants lengths >= 0.
    lengths = [[max(0, g - b[0]) for g, b in zip(gains, bounds)]]
    lengths += [[max(0, b[1] - g) for g, b in zip(gains, bounds)]]
    axes.errorbar(views, gains, yerr=lengths, color=colour, linestyle="none", alpha=0.35)
    (handle,) = axes.plot(views, gains, color=colour, marker=marker, markersize=5, label=label)
    return handle


def _controls(axes, table, over):
    handles = []
    for kind, style in (("blind", "--"), ("guided", ":")):
        best = table.best(kind)
        gain = getattr(table.result(best), over)
        text = f"best {kind} control: {best}"
        handles.append(axes.axhline(gain, color=GREY, linestyle=style, linewidth=1.3, label=text))
    return handles


def _frame(axes, table, over):
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_locator(FixedLocator(TICKS))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(lambda x, _: f"{x:g}")
    axes.set_xlabel("views (a larger input: cost in forwards)")
    axes.grid(alpha=0.25)
    axes.axhline(0, color=BLACK, linewidth=0.8)
    main = table.main
    what = f"reduction of {main.titled}" if main.lower_is_better else f"points of {main.label}"
    over = "plain model" if over == "gain" else f"best 1x control ({table.best('any')})"
    axes.set_title(f"Gain over the {over}", fontsize=10, loc="left")
    axes.set_ylabel(what)
