"""Short pieces of HTML: the status line, what a picture's colours mean, what a run cost."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape

import numpy as np

from ..visualize.colours import Scale, heat
from ..visualize.legend import Key
from ..visualize.panels import Panel

# Colours of a bar that the browser fades between.
_STOPS = 12


def status(text: str, kind: str = "") -> str:
    """The status line.

    Args:
        text: what it says, plain text.
        kind: ``"error"``, ``"busy"`` or nothing.
    """
    return f'<div class="srt-status {kind}" role="status">{escape(" ".join(text.split()))}</div>'


def hint(text: str, error: bool = False) -> str:
    """A faint line below the settings."""
    kind = " error" if error else ""
    return f'<div class="srt-hint{kind}">{escape(" ".join(text.split()))}</div>'


def caption(panel: Panel | None) -> str:
    """What is said below a picture: what its colours stand for, and its note."""
    if panel is None:
        return ""
    parts = []
    if panel.scale is not None:
        parts.append(_bar(panel.scale))
    if panel.note:
        parts.append(f"<div>{escape(panel.note)}</div>")
    return f'<div class="srt-caption">{"".join(parts)}</div>' if parts else ""


def _bar(scale: Scale) -> str:
    ramp = heat(np.linspace(0, 1, _STOPS)[None], 0.0, 1.0, scale.name)[0]
    colours = ", ".join(f"rgb({r}, {g}, {b})" for r, g, b in ramp.tolist())
    unit = f" {escape(scale.unit)}" if scale.unit else ""
    return (
        f'<div class="srt-bar"><span>{scale.low:.3g}</span>'
        f'<span class="ramp" style="background: linear-gradient(to right, {colours})"></span>'
        f"<span>{scale.high:.3g}{unit}</span></div>"
    )


def legend(key: Key | None) -> str:
    """The classes of a picture."""
    if key is None or not key.entries:
        return ""
    chips = "".join(
        f'<span class="chip"><i style="background: rgb({int(c[0])}, {int(c[1])}, {int(c[2])})"></i>'
        f"{escape(str(name))}</span>"
        for name, c in key.entries
    )
    return f'<div class="srt-legend">{chips}</div>'


def cost(seconds: Mapping[str, float], views: int, recalled: bool = False) -> str:
    """What the run cost: forwards and seconds, without and with SRT.

    Args:
        seconds: see :class:`.look.Found`.
        views: how many SRT ran.
        recalled: whether plain seconds are those of a run before.
    """
    rows = []
    for name in ("features", "prediction"):
        plain, srt = seconds.get(name), seconds.get(f"{name}_srt")
        if plain is None or srt is None:
            continue
        times = f"{srt / plain:.1f} ×" if plain > 0 else ""
        rows.append(
            f"<tr><th>{name}</th><td>{_seconds(plain)}</td><td>{_seconds(srt)}</td>"
            f"<td>{times}</td></tr>"
        )
    if not rows:
        return ""
    note = "<div>Plain seconds are those of the run before.</div>" if recalled else ""
    return (
        '<div class="srt-cost"><table><tr><th></th><th>plain</th><th>SRT</th><th></th></tr>'
        f"<tr><th>forwards</th><td>1</td><td>{views}</td><td></td></tr>{''.join(rows)}</table>"
        f"{note}</div>"
    )


def _seconds(value: float) -> str:
    return f"{value:.3g} s" if value >= 0.01 else f"{value * 1000:.2g} ms"
