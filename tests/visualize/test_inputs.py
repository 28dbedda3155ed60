"""Where the image lies in what a backbone gets of it, and models of one size only."""

from __future__ import annotations

import numpy as np
import pytest
import timm
import torch
import transformers

from srt_plugins import Settings
from srt_plugins.errors import AdapterError, ConfigError
from srt_plugins.scenes import render
from srt_plugins.visualize.load import load_subject
from srt_plugins.visualize.show import Look, Show
from tests.evaluation import transformers_models

from .test_subjects import DEMO, written

SIZE = (70, 99)  # whole patches on neither side


@pytest.fixture(scope="module")
def halves():
    """White from a quarter of the rows and columns on, else black."""
    image = np.zeros((*SIZE, 3), np.uint8)
    image[SIZE[0] // 4 :, SIZE[1] // 4 :] = 255
    return image


def mmseg(*steps):
    def make(_):
        listed = ["{'type': 'LoadScene'}", *steps, "{'type': 'PackSegInputs'}"]
        return load_subject(DEMO, device="cpu", options=[f"test_pipeline=[{', '.join(listed)}]"])

    return make


def detectron2(name, more=""):
    def make(folder):
        pytest.importorskip("detectron2", reason="needs Detectron2 (make setup DETECTRON2=...)")
        from detectron2.config import LazyConfig, instantiate

        from tests.evaluation import detectron2_models

        source = {"dense": detectron2_models._DENSE, "boxes": detectron2_models._DETECTOR}[name]
        config = folder / "config.py"
        config.write_text(source + more)
        torch.manual_seed(0)
        path = written(folder / "w.pth", instantiate(LazyConfig.load(str(config)).model))
        return load_subject(["detectron2", str(config), path], device="cpu")

    return make


def huggingface(kind, process=None):
    def make(folder):
        path = transformers_models.saved(kind, folder)
        if process is not None:
            process().save_pretrained(path)
        return load_subject([str(path)], device="cpu")

    return make


def with_padding():
    side = {"height": 64, "width": 96}
    whole = {"height": 128, "width": 128}
    return transformers.Mask2FormerImageProcessor(size=side, pad_size=whole)


RESIZE = "{'type': 'Resize', 'scale': (132, 94)}"
PAD = "{'type': 'Pad', 'size': (120, 160)}"
MADE = {
    "mmseg": mmseg(),
    "mmseg resized": mmseg(RESIZE),
    "mmseg resized and padded": mmseg(RESIZE, PAD),
    "mmseg padded": mmseg(PAD),
    "detectron2 classes": detectron2("dense"),
    "detectron2 square": detectron2("boxes", "model.backbone.square_pad = 160\n"),
    "segformer": huggingface("segformer"),
    "zoedepth": huggingface("zoedepth"),
    "mask2former": huggingface("mask2former", with_padding),
}


@pytest.mark.parametrize("name", MADE)
def test_an_edge_of_the_image_is_at_its_place_in_what_is_shown(name, halves, tmp_path):
    given = MADE[name](tmp_path).inputs(halves)
    top, left, height, width = given.shown
    assert top + height <= given.images.shape[-2] and left + width <= given.images.shape[-1]
    shown = given.images[0, 0, top : top + height, left : left + width]
    low, high = shown.min(), shown.max()
    bright = shown > (low + high) / 2
    assert high > low and bright[-1, -1]
    # The first bright row and column; resizing moves an edge by up to half a pixel.
    for lines, side, pixels in ((bright[:, -1], SIZE[0], height), (bright[-1], SIZE[1], width)):
        assert abs(int(lines.nonzero()[0]) - side // 4 * pixels / side) <= 1
        assert bool(lines[int(lines.nonzero()[0]) :].all())  # no padding behind it


def test_segmentors_of_detectron2_are_taken(tmp_path):
    subject = MADE["detectron2 classes"](tmp_path)
    scene = render(2, 0, SIZE).image
    shown = Show(subject, Look(Settings(views=2)))(scene)
    assert {"before", "after", "changed"} <= {name for name, _ in shown.panels}
    found = subject.predict(scene)
    assert found.task == "classes" and found.labels.shape == SIZE


def test_models_on_proposals_show_their_features(tmp_path):
    subject = detectron2("boxes", "model.proposal_generator = None\n")(tmp_path)
    assert subject.task is None and "no predictions" in subject.notes[-1]
    shown = Show(subject, Look(Settings(views=2)))(render(2, 0, SIZE).image)
    assert [name for name, _ in shown.panels] == ["image", "tokens", "srt", "dispersion"]


def test_a_pipeline_of_several_scales_is_told():
    scales = "[{'type': 'Resize', 'scale_factor': 1.0}, {'type': 'Resize', 'scale_factor': 2.0}]"
    step = "{'type': 'TestTimeAug', 'transforms': [" + scales + ", [{'type': 'PackSegInputs'}]]}"
    options = ["test_pipeline=[{'type': 'LoadScene'}, " + step + "]"]
    subject = load_subject(DEMO, device="cpu", options=options)
    with pytest.raises(ConfigError, match="one input of each image, got 2"):
        subject.inputs(render(2, 0, SIZE).image)


def one_size_of_timm(folder):
    path = written(folder / "w.pth", timm.create_model("test_vit_relpos"))
    return load_subject(["timm/test_vit_relpos"], device="cpu", checkpoint=path)


def one_size_of_transformers(folder):
    config = transformers.ViTConfig(
        image_size=64,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
    )
    transformers.ViTModel(config).save_pretrained(folder)
    size = {"height": 64, "width": 64}
    transformers.ViTImageProcessor(size=size).save_pretrained(folder)
    return load_subject([str(folder)], device="cpu")


@pytest.mark.parametrize("make", [one_size_of_timm, one_size_of_transformers])
def test_images_get_the_only_size_that_a_model_takes(make, halves, tmp_path):
    subject = make(tmp_path)
    given = subject.inputs(halves)
    side = 64 if make is one_size_of_transformers else 160
    assert given.shown == (0, 0, side, side) and given.images.shape == (1, 3, side, side)
    shown = Show(subject, Look(Settings(views=2), point=(69, 98)))(halves)
    assert all(panel.picture.shape == halves.shape for _, panel in shown.panels)
    notes = {name: panel.note for name, panel in shown.panels}
    assert f"{side} x {side}" in notes["srt"]


def test_a_model_whose_grids_do_not_divide_its_images_is_told(halves, tmp_path):
    path = written(tmp_path / "w.pth", timm.create_model("levit_128s", num_classes=0))
    subject = load_subject(["timm/levit_128s"], device="cpu", checkpoint=path)
    with pytest.raises(AdapterError, match="70x99 or of its own 224x224"):
        subject.inputs(halves)


def test_a_model_of_any_size_gets_images_as_they_are(halves, tmp_path):
    path = written(tmp_path / "w.pth", timm.create_model("test_convnext"))
    subject = load_subject(["timm/test_convnext"], device="cpu", checkpoint=path)
    assert subject.inputs(halves).shown == (0, 0, *SIZE)
