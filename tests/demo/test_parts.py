"""What is behind the page, without a browser."""

from __future__ import annotations

import argparse
import shlex
import threading

import numpy as np
import pytest
import torch
from PIL import Image

from srt_plugins import ConfigError, Settings, attach, detach, views
from srt_plugins.demo import markup
from srt_plugins.demo.actions import Actions
from srt_plugins.demo.choice import Choice
from srt_plugins.demo.files import scene, taken, written
from srt_plugins.demo.models import Models
from srt_plugins.demo.paste import lines
from srt_plugins.demo.watch import Stopped, watched
from srt_plugins.errors import MediaError
from srt_plugins.visualize.colours import Scale
from srt_plugins.visualize.legend import Key
from srt_plugins.visualize.panels import Panel
from tests.demo.conftest import BACKBONE, DEMO, SEGMENTOR

PATCH = 14
LAZY = DEMO.parent / "detection" / "vitdet_scenes.py"


def silent(*_):
    pass


@pytest.mark.parametrize(
    ("choice", "count", "keywords"),
    [
        (Choice(level=7), 4, {"views": "phases"}),
        (Choice(level=9, per_axis=4), 16, {"views": "phases:4"}),
        (Choice(level=3), 4, {"level": 3, "views": "phases"}),
        (Choice("grid", 3), 49, {"level": 3}),
        (Choice("grid", 7.0), 225, {"level": 7}),
        (Choice("number", 7, count=5), 5, {"views": 5}),
        (Choice("number", 0, count=5), 1, {"level": 0}),
        (Choice(level=7, layer="2", smooth="3"), 4, {"views": "phases", "layer": 2, "smooth": 3}),
        (
            Choice("grid", 1, smooth="guided", flip=True),
            9,
            {"level": 1, "smooth": "guided", "flip": True},
        ),
    ],
)
def test_what_is_chosen_as_settings(choice, count, keywords):
    assert choice.keywords(PATCH) == keywords
    assert choice.view_count(PATCH) == count
    kept = {k: v for k, v in keywords.items() if k != "layer"}
    assert choice.settings(PATCH) == Settings(**kept)


def test_half_a_patch_is_the_whole_patch_for_phases():
    chosen = Choice(level=7).settings(PATCH)
    made = views.resolve(chosen.views, chosen.level, PATCH)
    assert set(made.translations) == {(0, 0), (0, 7), (7, 0), (7, 7)}


@pytest.mark.parametrize(
    ("choice", "text"),
    [
        (Choice("grid", 14), "below one patch"),
        (Choice("grid", -1), "level to be a whole number of pixels"),
        (Choice("grid", 1.5), "level to be a whole number, got 1.5"),
        (Choice("grid", None), "level to be a whole number, got nothing"),
        (Choice("number", 7, count=0), "at least 1, got 0"),
        (Choice("number", 7, count=None), "number of views to be a whole number, got nothing"),
        (Choice("number", 7, count=999), "between 1 and 196"),
        (Choice(level=1, per_axis=3), "1 to 2 phases"),
    ],
)
def test_a_choice_that_cannot_be_is_told(choice, text):
    with pytest.raises(ConfigError, match=text):
        choice.settings(PATCH)


def test_models_are_loaded_when_chosen_and_one_is_kept(weights):
    models = Models([["timm/nothing_of_the_kind"], BACKBONE], device="cpu", checkpoint=weights)
    assert models.names == ["timm/nothing_of_the_kind", BACKBONE[0]]
    found = models.get(1)
    assert models.get(1) is found
    facts = models.facts(1)
    assert (facts.task, facts.patch, facts.blocks) == (None, 16, 8)
    with pytest.raises(ConfigError, match="Expected a model of timm, got 'nothing_of_the_kind'"):
        models.get(0)
    assert models.get(1) is not found  # it was given up before


def test_models_of_one_name_are_told_apart():
    models = Models([["mmseg", "a/x.py", "1.pth"], ["mmseg", "a/x.py", "2.pth"], ["b/vit/"]])
    assert models.names == ["mmseg a/x.py 1.pth", "mmseg a/x.py 2.pth", "vit"]
    with pytest.raises(ConfigError, match="at least one --model"):
        Models([])


def test_views_are_counted_and_stopped_between_two(looked):
    backbone = looked(BACKBONE).backbone
    seen, stop = [], threading.Event()
    images = torch.zeros(2, 3, 32, 32)
    attach(backbone, views=4)
    try:
        with watched(backbone, seen.append, stop), torch.no_grad():
            backbone(images[:1])
            assert seen == [1, 2, 3, 4]
            stop.set()
            with pytest.raises(Stopped):
                backbone(images)
        backbone(images[:1])  # nothing is left behind
        assert seen == [1, 2, 3, 4]
    finally:
        detach(backbone)


def test_an_image_is_named_as_its_owner_knows_it(tmp_path):
    path = tmp_path / "0123abcd.png"
    path.write_bytes(b"nothing")
    with pytest.raises(MediaError, match="got cat.png, which") as error:
        taken({"path": str(path), "orig_name": "cat.png"}, 100)
    assert "0123abcd" not in str(error.value)
    with pytest.raises(MediaError, match="got none"):
        taken(None, 100)
    grey = (np.arange(60 * 40).reshape(60, 40) * 20).astype(np.uint16)
    Image.fromarray(grey).save(path)
    image, note = taken({"path": str(path), "orig_name": "cat.png"}, 30)
    assert image.shape == (30, 20, 3) and image.dtype == np.uint8
    assert note.startswith("cat.png: 60 x 40 pixels, made smaller to 30 x 20")


def test_pictures_are_written_as_they_are(tmp_path):
    picture = scene(1)
    path = written("srt", picture, tmp_path)
    assert path.endswith("srt.png") and path != written("srt", picture, tmp_path)
    np.testing.assert_array_equal(np.asarray(Image.open(path)), picture)


def test_what_comes_from_outside_is_escaped():
    evil = "<img src=x onerror=alert(1)>"
    made = [
        markup.status(evil, "error"),
        markup.hint(evil),
        markup.caption(Panel(scene(0), evil, evil, Scale(0, 1, unit=evil))),
        markup.legend(Key([(evil, (1, 2, 3))])),
    ]
    assert all("<img" not in text and "&lt;img" in text for text in made)


def test_cost_is_that_of_both():
    seconds = {"features": 0.5, "features_srt": 2.0, "prediction": 0.001, "prediction_srt": 0.004}
    text = markup.cost(seconds, 4)
    assert all(part in text for part in ("<td>1</td><td>4</td>", "0.5 s", "2 s", "4.0 ×", "4 ms"))
    assert markup.cost({"features": 0.5}, 4) == ""


CHOICES = [
    Choice(level=8),
    Choice("grid", 3, layer="1"),
    Choice("number", 8, count=5, smooth="5", flip=True),
]


@pytest.mark.parametrize("choice", CHOICES)
def test_lines_to_paste_give_these_settings(choice, looked):
    keywords = choice.keywords(16)
    want = Settings(**keywords)
    backbone = looked(BACKBONE).backbone
    try:
        exec(lines(BACKBONE, keywords).split("# pictures")[0], {"model": backbone})
        assert backbone._srt.settings == want
    finally:
        detach(backbone)


@pytest.mark.parametrize("choice", CHOICES)
def test_lines_for_a_config_give_these_settings(choice):
    pytest.importorskip("mmseg")
    from mmengine.registry import HOOKS
    from mmengine.utils import import_modules_from_strings

    keywords = choice.keywords(16)
    config: dict = {}
    text = lines(SEGMENTOR, keywords).split("# MMSegmentation")[1].split("# pictures")[0]
    exec("# " + text, config)
    import_modules_from_strings(**config["custom_imports"])
    hook = HOOKS.build(dict(config["custom_hooks"][0]))
    assert Settings(**hook.keywords) == Settings(**keywords)


@pytest.mark.parametrize("choice", CHOICES)
def test_the_command_to_paste_is_one_of_srt_show(choice):
    from srt_plugins.evaluation.keywords import given_keywords
    from srt_plugins.visualize.show_command import add_parser

    keywords = choice.keywords(16)
    words = ["detectron2", "a b.yaml", "w.pth"]
    command = lines(words, keywords, "net").splitlines()[-1]
    parser = argparse.ArgumentParser()
    add_parser(parser.add_subparsers())
    args = parser.parse_args(shlex.split(command)[1:])
    assert (args.model, args.target) == (words, "net")
    assert given_keywords(args) == keywords


@pytest.mark.parametrize("choice", CHOICES)
def test_lines_for_detectron2_give_these_settings(choice):
    pytest.importorskip("detectron2")
    from detectron2.config import LazyConfig, get_cfg

    keywords = choice.keywords(16)
    cfg = get_cfg()
    builder = cfg.MODEL.BACKBONE.NAME
    exec(_between(lines(["detectron2", "c.yaml", "w"], keywords, "net")), {"cfg": cfg})
    given = {k.lower(): v for k, v in cfg.MODEL.SRT.items() if v is not None}
    assert (given.pop("backbone"), given.pop("target")) == (builder, "net")
    names = {"level", "views", "layer", "smooth", "flip"}
    assert {k: v for k, v in given.items() if k in names and v is not False} == keywords
    model = LazyConfig.load(str(LAZY)).model
    exec(_between(lines(["detectron2", "c.py", "w"], keywords)), {"model": model})
    assert {k: model.backbone[k] for k in keywords} == keywords


def _between(text):
    return "# " + text.split("# Detectron2")[1].split("# pictures")[0]


@pytest.fixture(scope="module")
def actions(weights):
    words = [BACKBONE, ["timm/nothing_of_the_kind"]]
    return Actions(Models(words, device="cpu", checkpoint=weights), 256)


def test_a_run_gives_more_and_more_and_recalls_what_is_plain(actions):
    image, told = scene(0)[:64, :80], []
    said = list(
        actions.run(0, image, Choice(level=8), "me", lambda *step: told.append(step)),
    )
    found = said[-1]["found"]
    assert set(found.panels) == {"tokens", "srt", "dispersion"} and not found.recalled
    assert found.done and found.views == 4
    assert ("features, SRT", 3, 4) in told and set(found.seconds) == {"features", "features_srt"}
    again = list(actions.run(0, image, Choice(level=8, per_axis=3), "me", silent))[-1]
    assert again["found"].recalled and ": 9 views." in again["status"]
    other = list(actions.run(0, image, Choice(level=8, layer="2"), "me", silent))[-1]
    assert not other["found"].recalled
    pictures = [one.panels["tokens"].picture for one in (found, other["found"])]
    assert np.any(pictures[0] != pictures[1])


def test_mistakes_are_a_status_line(actions, capsys):
    said = list(actions.run(1, scene(0), Choice(level=8), "me", silent))
    assert len(said) == 1 and "Expected a model of timm" in said[0]["status"]
    assert actions.chosen_model(1)["facts"] is None
    said = list(actions.run(0, scene(0), Choice("grid", 99), "me", silent))
    assert "below one patch" in said[-1]["status"] and "error" in said[-1]["status"]
    assert "an image first" in next(actions.run(0, None, Choice(), "me", silent))["status"]
    assert "an image first" in actions.similar(0, None, Choice(), (0, 0), "me", silent)["status"]
    assert (
        "below one patch"
        in actions.chosen(0, actions.chosen_model(0)["facts"], Choice("grid", 99))["hint"]
    )
    assert not capsys.readouterr().err

    # What nobody thought of is told too; its traceback is for the terminal.
    def fails(*_):
        raise RuntimeError("out of memory\nat length")

    said = list(actions.run(0, scene(0), Choice(level=8), "me", fails))
    assert "take a smaller image" in said[-1]["status"] and "\n" not in said[-1]["status"]
    assert "Traceback" in capsys.readouterr().err
    assert list(actions.run(0, scene(0), Choice(level=8), "me", silent))[-1]["found"].done


def test_a_run_is_stopped_by_its_own_session_only(actions):
    for session, stopped in (("you", False), ("me", True)):

        def progress(what, done, count, session=session):
            if what == "features, SRT" and done == 1:
                actions.stop(session)

        said = list(actions.run(0, scene(1), Choice(level=8), "me", progress))
        assert ("Stopped." in said[-1]["status"]) == stopped
        assert ("found" in said[-1]) == (not stopped)
    actions.stop("me")  # nothing runs


def test_points_outside_are_moved_to_the_border(actions):
    image = scene(1)[:40, :50]
    found = actions.similar(0, image, Choice(level=8), (99, -3), "me", silent)
    assert found["point"] == (39, 0) and len(found["panels"]) == 2
    assert [panel.picture.shape for panel in found["panels"]] == [image.shape] * 2
