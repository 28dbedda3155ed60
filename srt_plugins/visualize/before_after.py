"""Predictions without and with SRT side by side, and what changed."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from . import overlay
from .colours import Scale, palette
from .panels import Key, Panel, resize_nearest
from .subject import SCORE, Prediction, Subject

Ranges = dict[str, tuple[float, float]]


@dataclass
class BeforeAfter:
    """Two predictions of an image.

    Attributes:
        panels: ``"before"``, ``"after"`` and, but for instances, ``"changed"``; pictures have the
            size of the image.
        key: colours of the classes; None where there are none.
        figures: ``changed``: the share of pixels whose class differs; of depth, the mean absolute
            difference in the model's unit.
    """

    panels: dict[str, Panel]
    key: Key | None = None
    figures: dict[str, float] = field(default_factory=dict)


def before_after(
    subject: Subject,
    image: np.ndarray,
    before: Prediction,
    after: Prediction,
    views: str,
    ranges: Ranges | None = None,
) -> BeforeAfter:
    """Pictures of two predictions.

    Args:
        subject: the model, for names and colours of its classes.
        image: ``(H, W, 3)`` uint8 RGB.
        before: without SRT.
        after: with it.
        views: how many views it had, in words.
        ranges: values that the colours of depth end at, by name: taken from there, and put there
            where they are missing, so that frames have the same; None = this image's own.
    """
    if before.task == "depth":
        return _depth(subject, image, before, after, views, {} if ranges is None else ranges)
    draw = _classes if before.task == "classes" else _instances
    return draw(subject, image, before, after, views)


def colours_of(subject: Subject, count: int) -> np.ndarray:
    """Colours of so many classes or more, ``(K, 3)`` uint8: the model's own, or distinct ones."""
    count = max(count, len(subject.classes))
    if subject.palette is None or len(subject.palette) < count:
        return palette(count)
    return subject.palette


def _classes(
    subject: Subject, image: np.ndarray, before: Prediction, after: Prediction, views: str
) -> BeforeAfter:
    assert before.labels is not None and after.labels is not None
    labels = (before.labels, after.labels)
    colours = colours_of(subject, int(max(one.max() for one in labels)) + 1)
    first, second = (overlay.classes(image, one, colours) for one in labels)
    changed, share = overlay.changed(image, *labels, colours)
    return BeforeAfter(
        {
            "before": Panel(first, "plain prediction"),
            "after": Panel(second, "SRT prediction", views),
            "changed": Panel(changed, "what changed", f"{share:.1%} of pixels"),
        },
        overlay.key_of(list(labels), subject.classes, colours),
        {"changed": share},
    )


def _depth(
    subject: Subject,
    image: np.ndarray,
    before: Prediction,
    after: Prediction,
    views: str,
    ranges: Ranges,
) -> BeforeAfter:
    assert before.depth is not None and after.depth is not None
    size = (image.shape[0], image.shape[1])
    made = overlay.depths(
        before.depth,
        after.depth,
        "",
        ranges.get("depth"),
        ranges.get("difference", (0.0, None))[1],
        "magma" if subject.inverse else "magma_r",
    )
    ranges.setdefault("depth", (made.scale.low, made.scale.high))
    ranges.setdefault("difference", (made.signed_scale.low, made.signed_scale.high))
    what = "inverse depth" if subject.inverse else "depth"

    def panel(picture: np.ndarray, title: str, scale: Scale, note: str = "") -> Panel:
        return Panel(resize_nearest(picture, size), title, note, scale)

    return BeforeAfter(
        {
            "before": panel(made.before, f"plain {what}", made.scale),
            "after": panel(made.after, f"SRT {what}", made.scale, views),
            "changed": panel(made.difference, "SRT minus plain", made.signed_scale),
        },
        figures={"changed": _mean_difference(before.depth, after.depth)},
    )


def _mean_difference(before: np.ndarray, after: np.ndarray) -> float:
    known = np.isfinite(before) & np.isfinite(after)
    return float(np.abs(after[known] - before[known]).mean()) if known.any() else 0.0


def _instances(
    subject: Subject, image: np.ndarray, before: Prediction, after: Prediction, views: str
) -> BeforeAfter:
    panels = {}
    for name, title, found in (("before", "plain", before), ("after", "SRT", after)):
        assert found.labels is not None and found.boxes is not None
        colours = colours_of(subject, int(max([0, *found.labels])) + 1)
        picture = overlay.instances(
            image, found.boxes, found.labels, found.scores, subject.classes, found.masks, colours
        )
        note = f"{len(found.labels)} above a score of {SCORE}"
        panels[name] = Panel(picture, f"{title} instances", note)
    return BeforeAfter(panels)
