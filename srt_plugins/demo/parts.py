"""What the page is made of, top to bottom."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import gradio as gr

from .choice import KINDS, OUTPUTS, SMOOTHING
from .files import SCENES, scene

_INTRO = (
    '<div class="srt-head"><h1>SRT demo</h1><p>Features and predictions of a vision transformer, '
    "without and with its views ensembled. Everything stays on this machine.</p></div>"
)
# Panels with a caption of their own, by tab.
FEATURES = ("tokens", "one", "srt", "dispersion")
PREDICTIONS = ("before", "after", "changed")
SIMILAR = ("similar_plain", "similar_srt")
LABELS = {
    "tokens": "plain tokens",
    "one": "smoothed, 1 view",
    "srt": "SRT",
    "dispersion": "dispersion over views",
    "before": "plain",
    "after": "SRT",
    "changed": "what SRT changed",
    "similar_plain": "similarity, plain",
    "similar_srt": "similarity, SRT",
}
_HEIGHT = 230


@dataclass
class Choosing:
    """The left column: what to look at, and how."""

    model: Any
    image: Any
    scenes: Any
    views: Any
    level: Any
    per_axis: Any
    count: Any
    layer: Any
    smooth: Any
    flip: Any
    hint: Any
    run: Any
    stop: Any

    @property
    def choice(self) -> list[Any]:
        """Components in the order of :class:`.choice.Choice`'s fields."""
        return [
            self.views,
            self.level,
            self.per_axis,
            self.count,
            self.layer,
            self.smooth,
            self.flip,
        ]


@dataclass
class Results:
    """The right column.

    Attributes:
        status: one line.
        tabs: of what follows.
        predictions: all that shows predictions.
        absent: why there are none.
        pictures: by the names in :data:`LABELS`.
        captions: below each of them.
        columns: with a picture and its caption each; some are shown only where there is one.
        sliders: ``features`` and ``predictions``, before and after in one picture.
        target: the image to click on.
    """

    status: Any
    tabs: Any
    predictions: Any
    absent: Any
    pictures: dict[str, Any]
    captions: dict[str, Any]
    columns: dict[str, Any]
    sliders: dict[str, Any]
    legend: Any
    target: Any
    cost: Any
    lines: Any


def intro() -> None:
    """The page's head."""
    gr.HTML(_INTRO)


def choosing(names: list[str]) -> Choosing:
    """Build the left column.

    Args:
        names: of the models.
    """
    model = gr.Dropdown(
        [(name, i) for i, name in enumerate(names)],
        value=0,
        label="Model",
        interactive=True,
        elem_id="model",
    )
    image = gr.Image(
        label="Image",
        type="filepath",
        image_mode=None,
        format="png",
        sources=["upload", "clipboard"],
        height=260,
        elem_id="image",
    )
    scenes = gr.Gallery(
        [scene(i) for i in range(SCENES)],
        label="Scenes",
        show_label=False,
        columns=SCENES,
        rows=1,
        height="auto",
        object_fit="cover",
        allow_preview=False,
        format="png",
        interactive=False,
        buttons=[],
        elem_id="scenes",
    )
    with gr.Row():
        run = gr.Button("Run", variant="primary", elem_id="run")
        stop = gr.Button("Stop", elem_id="stop", min_width=60, scale=0)
    with gr.Group():
        views = gr.Radio(KINDS, value=KINDS[0], label="Views", elem_id="views")
        per_axis = gr.Slider(2, 4, 2, step=1, label="Phases per axis", elem_id="per_axis")
        count = gr.Number(
            4, precision=0, minimum=1, label="Number of views", visible=False, elem_id="count"
        )
        level = gr.Slider(
            0,
            8,
            8,
            step=1,
            label="Level",
            info="largest translation in pixels; 0 switches SRT off",
            elem_id="level",
        )
        layer = gr.Dropdown(
            [("the backbone's outputs", OUTPUTS)],
            value=OUTPUTS,
            label="Layer",
            interactive=True,
            elem_id="layer",
        )
        smooth = gr.Radio(list(SMOOTHING), value="none", label="Smoothing", elem_id="smooth")
        flip = gr.Checkbox(label="Flip every second view", elem_id="flip")
    hint = gr.HTML(elem_id="hint")
    return Choosing(
        model,
        image,
        scenes,
        views,
        level,
        per_axis,
        count,
        layer,
        smooth,
        flip,
        hint,
        run,
        stop,
    )


def results() -> Results:
    """Build the right column."""
    pictures: dict[str, Any] = {}
    captions: dict[str, Any] = {}
    sliders: dict[str, Any] = {}
    columns: dict[str, Any] = {}

    def row(names: tuple[str, ...]) -> None:
        with gr.Row():
            for name in names:
                with gr.Column(min_width=180, visible=name != "one") as columns[name]:
                    pictures[name] = _picture(LABELS[name], name)
                    captions[name] = gr.HTML(elem_id=f"{name}_caption")

    def slider(name: str) -> None:
        sliders[name] = gr.ImageSlider(
            label="plain | SRT",
            type="filepath",
            format="png",
            interactive=False,
            max_height=560,
            elem_id=f"{name}_slider",
        )

    status = gr.HTML(elem_id="status")
    with gr.Tabs() as tabs:
        with gr.Tab("Features", id="features"):
            row(FEATURES)
            slider("features")
        with gr.Tab("Predictions", id="predictions"):
            absent = gr.HTML(visible=False, elem_id="absent")
            with gr.Column() as predictions:
                row(PREDICTIONS)
                legend = gr.HTML(elem_id="legend")
                slider("predictions")
        with gr.Tab("Similarity", id="similarity"), gr.Row():
            with gr.Column(min_width=180):
                target = _picture("click on a point", "target")
                gr.HTML('<div class="srt-caption">Cosine of all features to the point\'s.</div>')
            for name in SIMILAR:
                with gr.Column(min_width=180):
                    pictures[name] = _picture(LABELS[name], name)
                    captions[name] = gr.HTML(elem_id=f"{name}_caption")
        with gr.Tab("Use these settings", id="settings"):
            lines = gr.Code(
                label="Lines to paste", language="python", interactive=False, elem_id="lines"
            )
    cost = gr.HTML(elem_id="cost")
    return Results(
        status,
        tabs,
        predictions,
        absent,
        pictures,
        captions,
        columns,
        sliders,
        legend,
        target,
        cost,
        lines,
    )


def _picture(label: str, name: str) -> Any:
    return gr.Image(
        label=label,
        type="filepath",
        format="png",
        interactive=False,
        height=_HEIGHT,
        buttons=["download", "fullscreen"],
        elem_id=name,
    )
