"""``srt show``: what is shown, files, mistakes."""

from __future__ import annotations

import copy
import json
import sys

import numpy as np
import pytest
import timm
import torch
from PIL import Image

import srt_plugins
from srt_plugins import Settings, SRTWrapper
from srt_plugins.cli import main
from srt_plugins.errors import ConfigError
from srt_plugins.scenes import render
from srt_plugins.visualize import overlay, show_files, sources
from srt_plugins.visualize.basis import Basis
from srt_plugins.visualize.colours import colour_table
from srt_plugins.visualize.load import load_subject
from srt_plugins.visualize.show import Look, Show
from srt_plugins.visualize.video import frames, write_video
from tests.evaluation import transformers_models

SIZE = (72, 104)  # 4.5 x 6.5 patches
DEMO = ["mmseg", "examples/demo/vit_scenes.py", "examples/demo/vit_scenes.pth"]


@pytest.fixture(scope="module")
def scene():
    return render(2, 1, SIZE).image


@pytest.fixture(scope="module")
def demo():
    return load_subject(DEMO, device="cpu")


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    path = tmp_path_factory.mktemp("timm") / "vit.pth"
    torch.manual_seed(0)
    torch.save(timm.create_model("test_vit").state_dict(), path)
    return str(path)


@pytest.fixture
def run(weights, tmp_path, capsys):
    def run(*words, model=("timm/test_vit",)):
        more = ["--checkpoint", weights] if model[0].startswith("timm") else []
        out = ["--out", str(tmp_path / "out"), "--device", "cpu"]
        code = main(["show", *more, *map(str, words), *out, "--model", *model])
        told = capsys.readouterr()
        return code, told.out, told.err

    run.out = tmp_path / "out"
    return run


@pytest.fixture
def image(scene, tmp_path):
    path = tmp_path / "street.png"
    Image.fromarray(scene).save(path)
    return path


def pictures(shown):
    return {name: panel.picture for name, panel in shown.panels}


def test_every_panel_has_the_size_of_the_image(demo, scene):
    look = Look(Settings(views=2, smooth="guided"), point=(30, 50))
    shown = Show(demo, look)(scene)
    names = ["image", "tokens", "one", "srt", "dispersion", "similarity", "similarity"]
    assert [name for name, _ in shown.panels] == [*names, "before", "after", "changed"]
    assert all(panel.picture.shape == (*SIZE, 3) for _, panel in shown.panels)
    assert shown.key.entries and {name for name, _ in shown.key.entries} <= set(demo.classes)


def test_features_before_and_after_are_those_of_the_backbone(demo, scene):
    show = Show(demo, Look(Settings(views=4, stride=8), panels=["tokens", "srt", "dispersion"]))
    basis = show.fit([scene])
    found = pictures(show(scene))
    given = demo.inputs(scene).images
    with torch.no_grad():
        plain = demo.backbone(given)[-1]
    mean, rows = basis.mean.float(), basis.components.float()

    def picture(tokens, cell):
        shade = torch.einsum("kd,dhw->khw", rows, tokens - mean[:, None, None])
        low, high = basis.low.float()[:, None, None], basis.high.float()[:, None, None]
        shade = ((shade - low) / (high - low)).clamp(0, 1) * 255
        return shade.permute(1, 2, 0).numpy().repeat(cell, 0).repeat(cell, 1)[: SIZE[0], : SIZE[1]]

    assert np.abs(found["tokens"] - picture(plain[0], 16)).max() <= 1
    ensembled = SRTWrapper(copy.deepcopy(demo.backbone), views=4, stride=8)
    with torch.no_grad():
        tokens = ensembled(given)[-1]
    assert np.abs(found["srt"] - picture(tokens[0], 8)).max() <= 1
    assert len(np.unique(found["dispersion"].reshape(-1, 3), axis=0)) > 5


def test_padding_has_no_part_in_the_colours(demo, scene):
    # 4.5 patches high: the half that is padding alone would be the fifth row's other half.
    show = Show(demo, Look(Settings(views=2)))
    tokens = show._tokens(scene[:64, :96])
    assert tokens.shape[-2:] == (4, 6)
    with torch.no_grad():
        wanted = demo.backbone(demo.inputs(scene[:64, :96]).images)[-1]
    assert torch.allclose(tokens, wanted, atol=1e-5)


def test_predictions_and_what_changed(demo, scene):
    settings = Settings(views=4, smooth=3)
    shown = Show(demo, Look(settings, panels=["before", "changed", "after"]))(scene)
    before, after = demo.predict(scene).labels, demo.predict(scene, settings).labels
    differ = before != after
    assert 0 < differ.mean() < 0.5
    assert shown.figures == {"changed": differ.mean()}
    changed = pictures(shown)["changed"]
    assert np.array_equal(changed[differ], demo.palette[after[differ]])
    grey = changed[~differ]
    assert (grey == grey[:, :1]).all()


def test_a_layer_is_looked_at_and_ensembled_there(demo, scene):
    shown = {}
    for layer in (None, 2):
        show = Show(demo, Look(Settings(views=2), layer))
        shown[layer] = pictures(show(scene))
    for name in ("tokens", "srt", "after"):
        assert not np.array_equal(shown[None][name], shown[2][name])
    assert np.array_equal(shown[None]["before"], shown[2]["before"])


def test_colours_are_the_same_in_every_frame(demo, scene):
    show = Show(demo, Look(Settings(views=2)))
    show.fit([scene])
    first = pictures(show(scene))["tokens"]
    show(render(2, 4, SIZE).image)
    assert np.array_equal(pictures(show(scene))["tokens"], first)


def test_one_image(run, image):
    code, out, err = run(image, "--views", 2)
    assert code == 0, err
    path = run.out / "street_show.png"
    assert out.split() == [str(path)]
    assert [p.name for p in run.out.iterdir()] == [path.name]
    assert Image.open(path).width > 4 * SIZE[1]


def test_json_panels_and_separate_files(run, image):
    code, out, _ = run(image, "--views", 2, "--json", "--separate", "--panels", "tokens", "srt")
    assert code == 0
    (record,) = json.loads(out)["files"]
    assert record["panels"] == ["tokens", "srt"] and json.loads(out)["views"] == "2 views"
    assert sorted(record["files"]) == sorted(str(p) for p in run.out.iterdir())
    assert all(Image.open(path).size == SIZE[::-1] for path in record["files"])


def test_a_folder_makes_a_sheet_and_goes_on_after_what_cannot_be_read(run, scene, tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    for i in range(3):
        Image.fromarray(scene[:, i * 8 :]).save(folder / f"{i}.png")
    whole = (folder / "0.png").read_bytes()
    (folder / "0.png").write_bytes(whole[: len(whole) // 2])
    code, out, err = run(folder, "--views", 2)
    assert code == 1
    names = {"1_show.png", "2_show.png", "sheet.png"}
    assert {p.name for p in run.out.iterdir()} == names
    assert {line.rpartition("/")[2] for line in out.split()} == names
    errors = [line for line in err.splitlines() if "error" in line]
    assert len(errors) == 1 and "0.png" in errors[0]


def test_a_video(run, scene, tmp_path):
    path = tmp_path / "drive.mp4"
    wide = render(2, 1, (SIZE[0], 160)).image
    write_video(path, [wide[:, i * 4 : i * 4 + 104] for i in range(6)], 10)
    code, out, err = run(path, "--views", 2, "--every", 2, "--limit", 2, model=DEMO)
    assert code == 0, err
    found = list(frames(out.strip()))
    assert len(found) == 2 and found[0].shape[1] > 4 * 104


def test_the_basis_is_carried_from_run_to_run(run, image, tmp_path):
    path = tmp_path / "colours.npz"
    panels = ["--views", 2, "--panels", "tokens", "--separate"]
    assert run(image, *panels, "--save-basis", path)[0] == 0
    first = np.array(Image.open(run.out / "street_plain_tokens.png"))
    assert Basis.load(path).components.shape == (3, 64)
    other = tmp_path / "other.png"
    Image.fromarray(render(2, 4, SIZE).image).save(other)
    assert run(other, image, *panels, "--basis", path)[0] == 0
    assert np.array_equal(np.array(Image.open(run.out / "street_plain_tokens.png")), first)


def test_a_large_image_is_made_smaller(run, scene, tmp_path):
    path = tmp_path / "large.jpg"
    Image.fromarray(scene).resize((1200, 900)).save(path)
    code, _, err = run(path, "--views", 2, "--size", 96, "--separate", "--panels", "srt")
    assert code == 0, err
    (made,) = run.out.iterdir()
    assert Image.open(made).size == (96, 72)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--panels", "tokns"], "'tokens'"),
        (["--panels", "similarity"], "--point Y X"),
        (["--panels", "before"], "predicts nothing"),
        (["--panels", "one"], "--smooth"),
        (["--point", "72", "0"], "row first"),
        (["--layer", "99"], "99"),
        (["--views", "0"], "views"),
        (["--smoth", "3"], "--smooth"),
        (["--size", "1"], "--size"),
        (["--basis", "no.npz"], "no.npz"),
        (["--checkpoint", "no.pth"], "no.pth"),
        (["nothing.png"], "nothing.png"),
        (["scenes:tset"], "scenes:tset"),
        (["--point", "72", "0", "--panels", "image", "srt"], "row first"),
        (["--save-basis", "no/such/folder.npz"], "no/such, not there"),
        (["--dtype", "bfloat16"], "a model of transformers"),
        (["--target", "net"], "a model of detectron2"),
        (["--options", "a=1"], "mmseg or detectron2"),
    ],
)
def test_mistakes_are_one_line_and_write_nothing(run, image, words, told, tmp_path):
    given = [] if not words[0].startswith("-") else [image]
    code, out, err = run(*given, *words)
    assert code == 2 and out == ""
    (line,) = [one for one in err.splitlines() if one.startswith("srt: error")]
    assert told in line
    assert not run.out.exists() or not list(run.out.iterdir())


@pytest.mark.parametrize(
    ("model", "words", "told"),
    [
        (DEMO, ["--checkpoint", "w.pth"], "--checkpoint with a model of timm"),
        (DEMO, ["--options", "bare"], "--options to be KEY=VALUE"),
        (("test_vit",), [], "did you mean 'timm/test_vit'?"),
    ],
)
def test_mistakes_with_models(run, image, model, words, told):
    code, out, err = run(image, *words, model=model)
    assert code == 2 and out == "" and told in err


def test_instances_have_no_panel_of_changes(scene):
    pytest.importorskip("detectron2", reason="needs Detectron2 (make setup DETECTRON2=...)")
    folder = "examples/detection/vitdet_scenes"
    subject = load_subject(["detectron2", f"{folder}.py", f"{folder}.pth"], device="cpu")
    assert Show(subject, Look()).panels[-2:] == ("before", "after")
    with pytest.raises(ConfigError, match="see before and after"):
        Show(subject, Look(panels=["changed"])).panels  # noqa: B018


def test_a_basis_with_the_background_tells_no_foreground(run, image, tmp_path):
    path = tmp_path / "colours.npz"
    assert run(image, "--views", 2, "--panels", "tokens", "--save-basis", path)[0] == 0
    code, _, err = run(image, "--basis", path, "--no-background")
    assert code == 2 and "--no-background --save-basis" in err


def test_files_of_one_name_do_not_replace_each_other(run, scene, tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    names = ("a.jpg", "a.png", "a_2.png")
    for name in names:
        Image.fromarray(scene[:40, :40]).save(folder / name)
    code, out, _ = run(folder, "--views", 2, "--panels", "image")
    assert code == 0 and len({p.name for p in run.out.glob("*_show.png")}) == 3
    assert str(run.out / "a_2_show.png") == out.split()[2]  # keeps its own


def test_an_image_that_a_point_is_outside_of_is_left_out(run, scene, tmp_path):
    for name, part in (("0", scene), ("1", scene[:20, :20]), ("2", scene)):
        Image.fromarray(part).save(tmp_path / f"{name}.png")
    given = [tmp_path / f"{i}.png" for i in range(3)]
    code, out, err = run(*given, "--views", 2, "--point", 30, 30, "--panels", "image", "--json")
    assert code == 1 and json.loads(out)["failed"] == ["1"]
    assert [f["name"] for f in json.loads(out)["files"]] == ["0", "2", "sheet"]
    (line,) = [one for one in err.splitlines() if one.startswith("srt: error")]
    assert line.startswith("srt: error: 1: ") and "20 x 20" in line


def test_a_narrow_image_makes_no_tower(run, tmp_path):
    path = tmp_path / "narrow.png"
    Image.fromarray(np.zeros((400, 2, 3), np.uint8)).save(path)
    assert run(path, "--views", 2, "--panels", "image")[0] == 0
    assert Image.open(run.out / "narrow_show.png").height < 2000


def test_a_point_is_one_of_the_file(run, image, tmp_path):
    large = tmp_path / "large.png"
    whole = Image.open(image)
    whole.resize((1040, 720)).save(large)
    words = ["--views", 2, "--panels", "image", "--separate"]
    assert run(large, *words, "--size", 104, "--point", 600, 1000)[0] == 0
    seen = np.array(Image.open(run.out / "large_image.png")).astype(int)
    plain = np.array(whole.resize((1040, 720)).resize((104, 72), Image.Resampling.HAMMING))
    rows, columns = np.nonzero(np.abs(seen - plain).max(2) > 60)
    assert abs(np.median(rows) - 60) <= 3 and columns.min() >= 90
    code, _, err = run(large, *words, "--size", 104, "--point", 720, 0)
    assert code == 2 and "720 x 1040 pixels" in err


def test_one_image_is_read_once(run, image, monkeypatch):
    reads = []
    read = sources.read_image
    monkeypatch.setattr(sources, "read_image", lambda path: reads.append(path) or read(path))
    assert run(image, "--views", 2, "--panels", "tokens")[0] == 0
    assert reads == [image]


@pytest.mark.parametrize("count", [1, 2, 7, 8, 9, 15, 16, 100])
@pytest.mark.parametrize("most", [1, 2, 8])
def test_colours_are_fitted_on_images_evenly_spread(count, most):
    places = sources.spread(count, most)
    assert len(places) == len(set(places)) == min(count, most) and places[0] == 0
    if most > 1:
        assert places[-1] == count - 1
        assert max(np.diff(places), default=1) - min(np.diff(places), default=1) <= 1


def test_colours_of_a_video_are_fitted_on_all_of_it(run, tmp_path, monkeypatch):
    path = tmp_path / "grey.mp4"
    write_video(path, [np.full((16, 16, 3), 15 * i, np.uint8) for i in range(15)], 10)
    seen = []
    fit = Show.fit

    def fitted(self, images, *words):
        def kept():
            for one in images:
                seen.append(int(one.mean()) / 15)
                yield one

        return fit(self, kept(), *words)

    monkeypatch.setattr(Show, "fit", fitted)
    assert run(path, "--views", 2, "--panels", "tokens", "--limit", 15)[0] == 0
    assert 5 <= len(seen) <= 8 and max(seen) > 13


def test_padding_has_no_part_in_dispersion(demo, scene):
    look = Look(Settings(views=4), panels=["dispersion"])
    image = scene[:64, :96]
    figure = Show(demo, look)(image).figures["dispersion"]
    model = SRTWrapper(copy.deepcopy(demo.backbone), views=4, dispersion=True)
    options = ["model.data_preprocessor.test_cfg={'size': (128, 192), 'size_divisor': None}"]
    padded = load_subject(DEMO, device="cpu", options=options)
    with torch.no_grad():
        model(padded.inputs(image).images)
    wanted = srt_plugins.dispersion(model)[-1][0, 0, :4, :6]
    assert padded.inputs(image).shown == (0, 0, 64, 96)
    found = Show(padded, look)(image)
    assert np.isclose(found.figures["dispersion"], float(wanted.mean()), rtol=1e-5)
    assert not np.isclose(found.figures["dispersion"], figure, rtol=1e-3)
    assert np.isclose(found.panels[0][1].scale.high, np.quantile(wanted, 0.98), rtol=1e-5)


def test_a_tolerance_says_how_many_views_there_were(demo, scene):
    shown = Show(demo, Look(Settings(tolerance=1e9), panels=["srt"]))(scene)
    panel = dict(shown.panels)["srt"]
    assert panel.title == "SRT, up to 16 views"
    assert panel.note.startswith("2 views here") and shown.figures["views"] == 2


def test_classes_that_one_image_sums_up_are_no_classes_of_the_sheet():
    labels = np.arange(30)[None]
    key = overlay.key_of(labels, None)
    assert key.entries[-1][0] == "7 more"
    names = [name for name, _ in show_files._joined([key, None, key]).entries]
    assert names == [f"class {i}" for i in range(23)]


def test_frames_have_one_range_of_depth(scene):
    folder = "examples/depth/vit_scenes_depth_linear"
    subject = load_subject(["mmseg", f"{folder}.py", f"{folder}.pth"], device="cpu")
    show = Show(subject, Look(Settings(views=2), panels=["before", "after", "changed"]))
    other = render(2, 4, SIZE).image

    def scales(image):
        return [panel.scale for _, panel in show(image).panels]

    assert scales(scene) != scales(other)
    with show.steady():
        first = scales(scene)
        assert scales(other) == first
    assert scales(other) != first


def test_relative_depth_is_called_inverse(scene, tmp_path):
    titles = {}
    for kind in ("metric", "relative"):
        subject = load_subject([str(transformers_models.saved(kind, tmp_path))], device="cpu")
        panel = dict(Show(subject, Look(Settings(views=2), panels=["before"]))(scene).panels)
        titles[kind] = (panel["before"].title, panel["before"].scale.name)
    # Near is bright in both.
    assert titles["metric"] == ("plain depth", "magma_r")
    assert titles["relative"] == ("plain inverse depth", "magma")


@pytest.mark.parametrize(
    ("package", "words", "code"),
    [
        ("PIL", [], 2),
        ("matplotlib", [], 2),
        ("matplotlib", ["--panels", "image", "tokens", "srt"], 0),
        ("av", [], 0),
    ],
)
def test_a_package_that_is_missing(run, image, package, words, code, monkeypatch):
    colour_table.cache_clear()
    monkeypatch.setitem(sys.modules, package, None)
    found, _, err = run(image, "--views", 2, *words)
    assert found == code, err
    if code:
        (line,) = err.splitlines()
        assert "pip install 'srt-plugins[show]'" in line and not run.out.exists()


def test_ctrl_c_leaves_no_part_of_a_file(run, scene, tmp_path, monkeypatch):
    path = tmp_path / "drive.mp4"
    write_video(path, [scene] * 99, 10)
    look, made, parts = Show.__call__, [], []

    def interrupted(self, image, *words):
        parts.extend(run.out.iterdir())
        if parts:
            raise KeyboardInterrupt
        made.append(made[0] if made else look(self, image, *words))
        return made[0]

    monkeypatch.setattr(Show, "__call__", interrupted)
    assert run(path, "--views", 2, "--panels", "tokens")[0] == 130
    assert parts and len(made) < 99  # the encoder had begun to write
    assert not list(run.out.iterdir())


def test_a_name_that_timm_does_not_know(run, image):
    code, _, err = run(image, model=("timm/test_vitt",))
    assert code == 2 and "'test_vit'" in err


def test_predictions_alone_need_no_colours(demo, scene):
    show = Show(demo, Look(Settings(views=2), panels=["before", "after"]))
    calls = []
    handle = demo.backbone.register_forward_pre_hook(lambda *_: calls.append(1))
    show(scene)
    handle.remove()
    # One plain forward, and one call that runs the views.
    assert show.basis is None and len(calls) == 2
