"""The page: its parts, and which of them changes when something happens."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import gradio as gr

from ..visualize.marks import marked
from ..visualize.panels import Panel
from . import markup
from .actions import Actions, Changes
from .choice import KINDS, OUTPUTS, PAPERS_LEVEL, Choice
from .files import written
from .look import Found, Progress
from .parts import LABELS, SIMILAR, Choosing, Results, choosing, intro, results

TITLE = "SRT demo"
# What the page's parts become, by part.
Updates = dict[Any, Any]
# All that runs a model waits in one line.
_QUEUE = {"concurrency_limit": 1, "concurrency_id": "model"}
_QUIET = {"show_progress": "hidden", "queue": False}
# Values as they were entered: what is wrong with them is told in words of ours.
_RAW = {"preprocess": False}
_PROGRESS = gr.Progress()
_SLIDERS = {"features": ("tokens", "srt"), "predictions": ("before", "after")}


def build(actions: Actions) -> Any:
    """The page as Gradio's Blocks, not launched."""
    with gr.Blocks(title=TITLE, analytics_enabled=False, fill_width=True) as page:
        intro()
        with gr.Row():
            with gr.Column(scale=2, min_width=320):
                left = choosing(actions.models.names)
            with gr.Column(scale=5, min_width=320):
                right = results()
        _Wiring(actions, left, right).connect(page)
    return page


class _Wiring:
    """Passes what happens to the actions, and what they give to the page's parts."""

    def __init__(self, actions: Actions, left: Choosing, right: Results) -> None:
        self.actions, self.left, self.right = actions, left, right
        # The image as it was read, what is known of the model, the kind of views before.
        self.image, self.facts, self.before = gr.State(None), gr.State(None), gr.State(KINDS[0])
        self.shown = [
            *right.pictures.values(),
            *right.captions.values(),
            *right.sliders.values(),
            right.columns["one"],
            right.legend,
            right.cost,
        ]

    def connect(self, page: Any) -> None:
        """Say what happens when."""
        left, right = self.left, self.right
        model = [left.level, left.layer, right.predictions, right.absent, right.columns["changed"]]
        model += [right.status, self.facts, *self.shown]
        told = [left.hint, right.lines]
        given = [left.model, self.facts, *left.choice]
        image = [left.image, right.target, self.image, right.status, *self.shown]
        busy = {"show_progress_on": right.status, **_QUEUE}
        for event in (page.load, left.model.input):
            event(self.choose_model, left.model, model, **busy).then(
                self.choose, given, told, **_QUIET, **_RAW
            )
        # A run that is on its way is of another model or image: it must not fill the page.
        left.model.input(self.stop, None, None, **_QUIET)
        page.load(lambda: self.choose_scene(0), None, image, **_QUIET)
        left.scenes.select(self.pick_scene, None, image, **_QUIET)
        left.image.upload(self.give, left.image, image, **_QUIET, **_RAW)
        left.image.clear(self.clear, None, image, **_QUIET)
        kinds = [left.level, left.per_axis, left.count, self.before]
        left.views.input(self.choose_views, [left.views, self.before, self.facts], kinds, **_QUIET)
        for component in left.choice:
            component.change(self.choose, given, told, **_QUIET, **_RAW)
        run = [left.model, self.image, *left.choice]
        left.run.click(self.run, run, [right.status, *self.shown], **busy, **_RAW)
        left.stop.click(self.stop, None, None, **_QUIET)
        similar = [right.status, right.tabs, right.target]
        similar += [parts[name] for parts in (right.pictures, right.captions) for name in SIMILAR]
        for picture in (left.image, right.target):
            picture.select(self.similar, run, similar, **busy, **_RAW)

    def choose_model(self, model: int) -> Updates:
        """A model was chosen, or the page was opened."""
        changes = self.actions.chosen_model(model)
        facts = changes["facts"]
        left, right = self.left, self.right
        found = {right.status: changes["status"], self.facts: facts, **self.nothing()}
        if facts is not None:
            half = facts.patch // 2
            blocks = [(f"block {i}", str(i)) for i in range(facts.blocks)]
            found[left.level] = gr.Slider(maximum=max(1, half), value=half)
            found[left.layer] = gr.Dropdown(
                [("the backbone's outputs", OUTPUTS), *blocks], value=OUTPUTS
            )
            predicts = facts.task is not None
            text = f"{facts.name} is a backbone alone: it predicts nothing here."
            found[right.predictions] = gr.Column(visible=predicts)
            # What differs between two lists of instances has no picture.
            found[right.columns["changed"]] = gr.Column(visible=facts.task != "instances")
            found[right.absent] = gr.HTML(markup.hint(text), visible=not predicts)
        return found

    def choose_views(self, views: str, before: str, facts: Any) -> Updates:
        """A kind of views was chosen: what goes with it is shown, at a level that makes sense."""
        left = self.left
        found: Updates = {
            left.per_axis: gr.Slider(visible=views == KINDS[0]),
            left.count: gr.Number(visible=views == KINDS[2]),
            self.before: views,
        }
        # The full grid of half a patch is hundreds of views; phases are best spread over all of it.
        if facts is not None and views != before and "grid" in (views, before):
            half = facts.patch // 2
            found[left.level] = min(PAPERS_LEVEL, half) if views == "grid" else half
        return found

    def choose(self, model: int, facts: Any, *choice: Any) -> Updates:
        """A setting was chosen."""
        changes = self.actions.chosen(model, facts, Choice(*choice))
        return {self.left.hint: changes["hint"], self.right.lines: changes["lines"]}

    def give(self, request: gr.Request, file: Any = None) -> Updates:
        """An image was given."""
        self.stop(request)
        return self._image(self.actions.given(file))

    def clear(self, request: gr.Request) -> Updates:
        """The image was taken away."""
        self.stop(request)
        return self._image({"image": None, "status": markup.status("No image.")})

    def pick_scene(self, request: gr.Request, event: gr.SelectData) -> Updates:
        """A scene was clicked."""
        self.stop(request)
        return self.choose_scene(int(event.index))

    def choose_scene(self, index: int) -> Updates:
        """A scene was chosen, or the page was opened."""
        return self._image(self.actions.chosen_scene(index))

    def _image(self, changes: Changes) -> Updates:
        image = changes["image"]
        path = None if image is None else written("image", image)
        return {
            self.left.image: path,
            self.right.target: path,
            self.image: image,
            self.right.status: changes["status"],
            **self.nothing(),
        }

    def run(
        self,
        request: gr.Request,
        progress: gr.Progress = _PROGRESS,
        model: int = 0,
        image: Any = None,
        *choice: Any,
    ) -> Iterator[Updates]:
        """Run was pressed."""
        sent = self.nothing()
        yield {self.right.status: markup.status("Running …", "busy"), **sent}
        paths: dict[str, str] = {}
        actions = self.actions.run(
            model, image, Choice(*choice), str(request.session_hash), _teller(progress)
        )
        for changes in actions:
            new: Updates = {}
            if "found" in changes:
                new = self._found(changes["found"], paths)
                sent.update(new)
                # A busy browser may leave out what comes in between.
                new = sent if changes["found"].done else new
            yield {self.right.status: changes["status"], **new}

    def similar(
        self,
        request: gr.Request,
        event: gr.SelectData,
        progress: gr.Progress = _PROGRESS,
        model: int = 0,
        image: Any = None,
        *choice: Any,
    ) -> Updates:
        """A point of the image was clicked."""
        x, y = (int(v) for v in event.index)
        session = str(request.session_hash)
        changes = self.actions.similar(
            model, image, Choice(*choice), (y, x), session, _teller(progress)
        )
        right = self.right
        found: Updates = {right.status: changes["status"]}
        if "panels" in changes:
            found[right.tabs] = gr.Tabs(selected="similarity")
            found[right.target] = written("image", marked(image, changes["point"]))
            for name, panel in zip(SIMILAR, changes["panels"]):
                found.update(self._panel(name, panel)[0])
        return found

    def stop(self, request: gr.Request) -> None:
        """Stop was pressed."""
        self.actions.stop(str(request.session_hash))

    def nothing(self) -> Updates:
        """All results empty."""
        right = self.right
        found: Updates = {
            picture: gr.Image(value=None, label=LABELS[name])
            for name, picture in right.pictures.items()
        }
        found.update(dict.fromkeys(right.captions.values(), ""))
        found.update(dict.fromkeys(right.sliders.values()))
        found.update({right.legend: "", right.cost: ""})
        found[right.columns["one"]] = gr.Column(visible=False)
        return found

    def _found(self, found: Found, paths: dict[str, str]) -> Updates:
        """What of a run's results the page has not got yet.

        Args:
            found: results so far.
            paths: of pictures by name; gets the new ones.
        """
        right = self.right
        new: Updates = {}
        names = [n for n in found.panels if n in right.pictures and n not in paths]
        for name in names:
            changes, paths[name] = self._panel(name, found.panels[name])
            new.update(changes)
        for name, pair in _SLIDERS.items():
            if set(pair) & set(names) and set(pair) <= set(paths):
                new[right.sliders[name]] = tuple(paths[one] for one in pair)
        if "one" in names:
            new[right.columns["one"]] = gr.Column(visible=True)
        if found.done:
            new[right.legend] = markup.legend(found.key)
            new[right.cost] = markup.cost(found.seconds, found.views, found.recalled)
        return new

    def _panel(self, name: str, panel: Panel) -> tuple[Updates, str]:
        path = written(name, panel.picture)
        right = self.right
        return {
            right.pictures[name]: gr.Image(value=path, label=panel.title),
            right.captions[name]: markup.caption(panel),
        }, path


def _teller(progress: gr.Progress) -> Progress:
    def tell(what: str, done: int, count: int) -> None:
        progress((done, count), desc=what, unit="views")

    return tell
