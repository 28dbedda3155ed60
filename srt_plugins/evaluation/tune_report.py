"""What tuning found, as text: the winner to paste, and a table of all candidates."""

from __future__ import annotations

import shlex
from typing import Any

from .report import Sheet
from .tune import Tuning

_FLATTERS = (
    "Measured on the images that chose, so the gains flatter; on other images expect less. The "
    "last line measures them on the test data."
)
_UNLABELLED = (
    "Judged without labels: figures say how well a candidate foretells what the plain model says "
    "in held-out views, not how right it is. Where measured, such choices were on average no worse "
    "than the default, but up to 2 mIoU behind those by labels (docs/tuning.md): label ten images "
    "if you can."
)
_KEPT = (
    "No candidate foretells held-out views clearly better than SRT's default, which is kept; "
    "without labels no more can be told."
)
_NO_BETTER = (
    "On these images it is no better than that one, which costs one forward; but it is not clearly "
    "worse either, and views were asked for. --views 1 leaves them out, more images tell more."
)


def sheet(tuning: Tuning) -> Sheet:
    """All candidates, the best first."""
    comparison, main = tuning.comparison, tuning.comparison.main
    rows = []
    for result in tuning.ranked():
        score = result.scores[comparison.metric]
        chosen = "<- chosen" if result.name == tuning.best else ""
        gains = [(score.gain, score.gain_interval)]
        gains.append((score.gain_over_control, score.gain_over_control_interval))
        shown = [f"{main.shown_gain(g)} {main.shown_interval(i)}".rstrip() for g, i in gains]
        if result.name == comparison.results[0].name:
            shown[0] = ""
        if result.name == comparison.control:
            shown[1] = "(best 1x)"
        forwards = f"{result.flops_ratio:.2f}"
        cells = [result.name, forwards, main.shown(score.value), *shown, chosen]
        rows.append((result.row.kind, cells))
    headers = ["candidate", "forwards", _label(tuning), "gain over plain", "over best 1x", ""]
    lower = ", lower is better" if main.lower_is_better else ""
    what = main.titled if _labelled(tuning) else f"{main.titled}, with held-out views as truth"
    title = f"{len(rows)} candidates on {comparison.images} images; {what}{lower}; 95 % "
    return Sheet(f"{title}intervals over images", headers, rows)


def conclusion(tuning: Tuning) -> str:
    """What was chosen and what it gains, in lines."""
    comparison, main = tuning.comparison, tuning.comparison.main
    best, free = comparison[tuning.best], comparison[comparison.control]
    score = best.scores[comparison.metric]
    label = _label(tuning)
    if best.row.kind == "plain":
        lines = [f"Chosen: the plain model, {label} {main.shown(score.value)}."]
        return "\n".join(lines if _labelled(tuning) else [*lines, _UNLABELLED])

    def gain(value: float, bounds: Any) -> str:
        return f"{main.shown_gain(value)} {main.shown_interval(bounds)}".rstrip()

    lines = [
        f"Chosen: {best.name}: {label} {main.shown(score.value)}, "
        f"{gain(score.gain, score.gain_interval)} over plain."
    ]
    if best.row.views > 1:
        over = gain(score.gain_over_control, score.gain_over_control_interval)
        lines[0] = lines[0][:-1] + f", {over} over the best candidate of one view ({free.name})."
        if not score.gain_over_control > 0:
            lines.append(_NO_BETTER)
        lines.append(f"For one forward per image, by the same ranking: {tuning.free}.")
    if tuning.context.get("default_kept"):
        lines.append(_KEPT)
    return "\n".join([*lines, _FLATTERS if _labelled(tuning) else _UNLABELLED])


def _labelled(tuning: Tuning) -> bool:
    return bool(tuning.context.get("judged", "labels") == "labels")


def _label(tuning: Tuning) -> str:
    label = tuning.comparison.main.label
    return label if _labelled(tuning) else f"{label} with held-out views"


def footnotes(tuning: Tuning) -> str:
    """How candidates are ranked, and the notes, as lines."""
    context, metric = tuning.context, tuning.comparison.metric
    roots = "classes count by the square root of their pixels"
    steadier = [roots] if metric.endswith("mIoU") else []
    steadier += ["neighbouring strengths share theirs"] if _labelled(tuning) else []
    lines = [
        "Ranked by a score that is steadier than the figure on few images: "
        f"{', '.join([*steadier, 'several views are kept unless one is clearly better'])} "
        "(docs/tuning.md).",
        f"forwards: operations over those of the plain model; budget {context['budget']:g}.",
        f"{context['seconds']:.0f} s; the backbone ran {context['backbone_calls']} times and was "
        f"recalled {context['backbone_calls_recalled']} times.",
        *tuning.notes,
    ]
    return "\n".join(lines)


def pastes(tuning: Tuning, framework: str) -> dict[str, str]:
    """The chosen settings, ready to paste, by where they go.

    Args:
        tuning: what was found.
        framework: ``"mmseg"``, ``"detectron2"`` or ``"transformers"``.
    """
    chosen, context = tuning.settings, tuning.context
    if tuning.best == tuning.comparison.results[0].name:
        return {}
    words = "".join(f", {k}={v!r}" for k, v in chosen.items())
    target = context.get("target")
    part = f", target={target!r}" if target else ""
    found = {"Python": f"attach(model{part}{words})"}
    if framework == "mmseg":
        found["MMSegmentation"] = f"custom_hooks = [dict(type='SRTHook'{words})]"
    if framework == "detectron2" and context.get("builder") is None:
        found["LazyConfig"] = f"with_srt(model.backbone{part}{words})"
    elif framework == "detectron2":
        keys = {
            "MODEL.BACKBONE.NAME": "build_srt_backbone",
            "MODEL.SRT.BACKBONE": context["builder"],
        }
        own = {**({"target": target} if target else {}), **chosen}
        keys.update((f"MODEL.SRT.{k.upper()}", str(v)) for k, v in own.items())
        found["yacs"] = shlex.join(word for pair in keys.items() for word in pair)
    if framework != "transformers" or _labelled(tuning):  # there may be no labels to measure with
        found["to measure"] = _compare(tuning, framework)
    return found


def _compare(tuning: Tuning, framework: str) -> str:
    """The command that measures the chosen settings on all data."""
    context = tuning.context
    inputs = [context.get("config"), context.get("checkpoint")]
    if framework == "transformers":
        inputs = [context["model"], context["dataset"]]
    words = ["srt", "compare", framework, *(str(one) for one in inputs)]
    asked = context.get("asked", [])
    row = ",".join(f"{k}={v}".replace(" ", "") for k, v in tuning.settings.items())
    return shlex.join([*words, *asked, "--row", row])


def markdown(tuning: Tuning, framework: str, title: str) -> str:
    """Everything that the terminal shows, as Markdown."""
    table = sheet(tuning)
    lines = [table.headers, ["---"] * len(table.headers), *(cells for _, cells in table.rows)]
    pasted = "\n".join(f"# {k}\n{v}" for k, v in pastes(tuning, framework).items())
    parts = [f"# {title}", *conclusion(tuning).splitlines()]
    parts += [f"```\n{pasted}\n```"] if pasted else []
    parts += [f"{table.title}:", "\n".join(f"| {' | '.join(cells)} |" for cells in lines)]
    parts += ["\n".join(f"- {line}" for line in footnotes(tuning).splitlines())]
    command = tuning.context.get("command")
    parts += [f"```\n{command}\n```"] if command else []
    return "\n\n".join(parts) + "\n"
