"""What a row of the table is, which is a point of the picture."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Callable

from srt_plugins import srt_enabled
from srt_plugins.core.guided import Guided
from srt_plugins.evaluation.methods import inference_by

# Phases per axis: those of the anytime order.
PER_AXIS = 4
# Numbers of views where not all are run.
FEW = (2, 4, 8, 16)
KERNELS = (3, 5)
# In this order: all after "srt" mostly run views that it ran.
GROUPS = {
    "controls": "smoothing at one forward, blind and guided",
    "srt": "the first n of 4 x 4 phases, with each smoothing, at either stride",
    "outputs": "the whole model on each phase, outputs averaged (Phase Marginalization)",
    "padding": "the default views padded in other ways",
    "mirrored": "as srt, every second view mirrored",
    "flip": "mean of the outputs of the image and its mirror image",
    "larger": "the input enlarged to the cost of 2 and 4 forwards",
    "random": "random translations, as many as the phases",
    "designs": "other sets of phases",
    "grid": "the paper's grids",
    "layer": "the default views ensembled after every second block",
}


@dataclass(frozen=True)
class Point:
    """One row.

    Attributes:
        name: unique; tells all settings.
        group: one of :data:`GROUPS`, or ``"plain"``.
        family: rows that differ in the number of views alone: a line of the picture.
        views: forwards, or what the row costs in forwards.
        active: of a model, a context in which the model is what the row says.
        control: ``"blind"`` or ``"guided"`` where the row costs one forward.
    """

    name: str
    group: str
    family: str
    views: int
    active: Callable[[Any], Any]
    control: str = ""


@dataclass(frozen=True)
class Choice:
    """What the rows depend on.

    Attributes:
        patch: pixels.
        stride: finer stride, in pixels.
        guided: strengths of the guided filter in all SRT rows.
        more_guided: further strengths for the controls.
        levels: of the paper's grid.
        scales: per side, of the larger input, by the cost in forwards.
        blocks: of the backbone.
    """

    patch: int
    stride: int | None
    guided: tuple = ("guided",)
    more_guided: tuple = ()
    levels: tuple = (1, 2, 3)
    scales: tuple = ()
    blocks: int = 0

    @property
    def strides(self):
        return (None,) if self.stride is None else (None, self.stride)


def finer_stride(patch):
    """4 pixels, or half a patch where that divides it and 4 do not; else None."""
    if patch % 4 == 0 and patch > 4:
        return 4
    return patch // 2 if patch % 2 == 0 else None


def label(smooth, stride=None):
    """Settings in words, to be appended to a name."""
    parts = []
    if isinstance(smooth, str):
        how = Guided.parse(smooth)
        parts.append(f"guided {how.space:g}:{how.colour:g}")
    elif smooth is not None:
        parts.append(f"smooth {smooth}")
    if stride is not None:
        parts.append(f"stride {stride}")
    return "".join(f", {part}" for part in parts)


def srt(**keywords):
    """SRT with these settings, as a row's ``active``."""
    # One view at a time, so that each is remembered by itself.
    return lambda model: srt_enabled(model, view_batch=1, **keywords)


def by(method):
    """Inference by a method, as a row's ``active``."""
    return lambda model: inference_by(model, method)
