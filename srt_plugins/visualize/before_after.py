"""Predictions without and with SRT side by side, and what changed."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from . import overlay
from .colours import Scale, palette
from .panels import Key, Panel, resize_nearest
from .subject import SCORE, Prediction, Subject


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
    subject: Subject, image: np.ndarray, before: Prediction, after: Prediction, views: str
) -> BeforeAfter:
    """Pictures of two predictions.

    Args:
        subject: the model, for names and colours of its classes.
        image: ``(H, W, 3)`` uint8 RGB.
        before: without SRT.
        after: with it.
        views: how many views it had, in words.
    """
    draw = {"classes": _classes, "depth": _depth, "instances": _instances}
    return draw[str(before.task)](subject, image, before, after, views)


def colours_of(subject: Subject, count: int) -> np.ndarray:
    """Colours of so many classes or more, ``(K, 3)`` uint8: the model's own, or distinct ones."""
    if subject.palette is None or len(subject.palette) < count:
        return palette(max(count, len(subject.classes)))
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
    subject: Subject, image: np.ndarray, before: Prediction, after: Prediction, views: str
) -> BeforeAfter:
    assert before.depth is not None and after.depth is not None
    size = (image.shape[0], image.shape[1])
    made = overlay.depths(before.depth, after.depth, "")

    def panel(picture: np.ndarray, title: str, scale: Scale, note: str = "") -> Panel:
        return Panel(resize_nearest(picture, size), title, note, scale)

    return BeforeAfter(
        {
            "before": panel(made.before, "plain depth", made.scale),
            "after": panel(made.after, "SRT depth", made.scale, views),
            "changed": panel(made.difference, "SRT minus plain", made.signed_scale),
        },
        figures={"changed": float(np.abs(after.depth - before.depth).mean())},
    )


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
