"""What a user gets wrong: one line on stderr with the next step, exit code 2, no output."""

from __future__ import annotations

import json
import os
import shutil

import numpy as np
import pytest
import torch

pytest.importorskip("transformers", reason="transformers is not installed")

from PIL import Image

from srt_plugins.cli import main
from srt_plugins.errors import CheckpointError, ConfigError
from srt_plugins.evaluation import compare_transformers
from tests.transformers import models

from . import transformers_models as tiny


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("transformers")
    tiny.write_folder(folder / "data")
    for kind in ("metric", "segformer"):
        tiny.saved(kind, folder)
    return folder


@pytest.fixture
def refused(root, tmp_path, capsys):
    """Runs the command, expects exit code 2, gives the one line on stderr."""

    def run(*options, model="metric", data="data"):
        out = tmp_path / "out"
        capsys.readouterr()
        # Absolute paths stay as they are.
        dataset = str(data) if str(data).startswith("scenes") else str(root / data)
        argv = ["compare", "transformers", str(root / model), dataset]
        assert main([*argv, "--out", str(out), "--device", "cpu", *options]) == 2
        captured = capsys.readouterr()
        lines = captured.err.strip().splitlines()
        assert len(lines) == 1 and lines[0].startswith("srt: error: "), captured.err
        assert captured.out == ""
        assert not out.exists() or os.listdir(out) == []
        return lines[0]

    return run


@pytest.fixture
def data(root, tmp_path):
    """A copy of the data to break."""
    return shutil.copytree(root / "data", tmp_path / "data")


@pytest.fixture
def changed(root, tmp_path):
    """A copy of a model with a changed file."""

    def change(kind, name="preprocessor_config.json", **values):
        folder = shutil.copytree(root / kind, tmp_path / kind)
        path = folder / name
        path.write_text(json.dumps({**json.loads(path.read_text()), **values}))
        return folder

    return change


def test_no_model(refused, root, tmp_path):
    assert f"did you mean '{root / 'segformer'}'?" in refused(model="segfomer")
    message = refused(model="gone")
    assert "model to be a folder that save_pretrained wrote" in message and "gone" in message
    (tmp_path / "empty").mkdir()
    assert "hold config.json, which is missing" in refused(model=tmp_path / "empty")
    folder = shutil.copytree(root / "metric", tmp_path / "metric")
    (folder / "preprocessor_config.json").unlink()
    message = refused(model=folder)
    assert "hold preprocessor_config.json" in message and "image processor's save_pretr" in message


def test_models_of_other_tasks(refused, tmp_path):
    models.dinov2_classifier().save_pretrained(tmp_path / "classifier")
    tiny.KINDS["metric"][1]().save_pretrained(tmp_path / "classifier")
    message = refused(model=tmp_path / "classifier")
    assert "got Dinov2ForImageClassification" in message and "semantic segmentation" in message


def test_an_image_processor_of_another_task(refused, root, tmp_path):
    folder = shutil.copytree(root / "segformer", tmp_path / "segformer")
    tiny.KINDS["zoedepth"][1]().save_pretrained(folder)
    message = refused(model=folder)
    assert "post_process_semantic_segmentation, got ZoeDepthImageProcessor" in message


def test_weights(refused, root, tmp_path):
    folder = shutil.copytree(root / "metric", tmp_path / "metric")
    weights = folder / "model.safetensors"
    kept = weights.read_bytes()
    weights.write_bytes(b"no weights")
    assert "hold weights of DepthAnything" in refused(model=folder)
    weights.unlink()
    assert "hold weights of DepthAnything" in refused(model=folder)
    from collections import UserDict

    from safetensors.torch import load

    torch.save({**load(kept), "more": UserDict(a=1)}, folder / "pytorch_model.bin")
    assert "--trust-checkpoint" in refused(model=folder)
    with pytest.raises(CheckpointError, match="trust_checkpoint=True"):
        compare_transformers(folder, root / "data", device="cpu")


def test_weights_that_are_missing_are_told(root, tmp_path):
    from safetensors.torch import load_file, save_file

    folder = shutil.copytree(root / "metric", tmp_path / "metric")
    weights = load_file(folder / "model.safetensors")
    gone = sorted(weights)[0]
    del weights[gone]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    found = compare_transformers(
        folder,
        root / "data",
        [{}],
        skip=["controls", "oe", "flip", "larger"],
        limit=1,
        device="cpu",
    )
    assert "1 missing" in found.notes[0] and gone in found.notes[0]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--views", "fases"], "Expected views to be"),
        (["--level", "14"], "below one patch (14 pixels)"),
        (["--row", "levle=3"], "did you mean 'level'"),
        (["--row", "3"], "name=value pairs"),
        (["--limit", "0"], "limit to be at least 1"),
        (["--batch-size", "0"], "batch_size to be at least 1"),
        (["--device", "abacus"], "device to be one such as"),
        (["--min-depth", "9", "--max-depth", "3"], "min_depth < max_depth"),
        (["--depth-scale", "0"], "depth_scale to be units per metre"),
        (["--depth-scale", "1", "--limit", "1"], "check --depth-scale (units per metre)"),
        (["--crop", "eigen"], "(480, 640)"),
        (["--ignore-index", "0"], "no ignore_index with DepthAnythingForDepthEstimation"),
        (["--no-reduce-labels"], "leave --reduce-labels out"),
    ],
)
def test_options_of_depth(refused, options, message):
    assert message in refused(*options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--align", "median"], "no align with SegformerForSemanticSegmentation"),
        (["--disparity"], "leave --disparity out"),
        (["--ignore-index", "254"], "ignore_index=254 in"),
        (["--reduce-labels", "--ignore-index", "0"], "ignore_index to be no class"),
    ],
)
def test_options_of_labels(refused, options, message):
    assert message in refused(*options, model="segformer")


def test_data_that_are_not_there(refused, tmp_path, data):
    assert "dataset to be a folder, or scenes" in refused(data="gone")
    assert "split of train, val, test, got 'scenes:vla'" in refused(data="scenes:vla")
    message = refused(data="scenes", model="segformer")
    assert "10 classes of the scenes (sky, road" in message and "id2label has 5" in message
    (tmp_path / "nothing").mkdir()
    assert "images that end in .jpg, .jpeg, .png, got no such" in refused(data=tmp_path / "nothing")
    shutil.rmtree(data / "depth")
    assert "folder depth beside images" in refused(data=data)
    shutil.rmtree(data / "labels")
    assert "folder labels or annotations" in refused(data=data, model="segformer")
    shutil.rmtree(data / "images")
    (data / "images").mkdir()
    assert "got none" in refused(data=data)


def test_images_without_truth(refused, data):
    (data / "depth" / "2.png").unlink()
    message = refused(data=data)
    assert "2.npy for" in message and "2.png, got none" in message
    shutil.copy(data / "depth" / "0.png", data / "depth" / "1.png")
    assert "1.jpg, got both" in refused("--limit", "2", data=data)
    Image.new("RGB", (60, 40)).save(data / "images" / "0.jpg")
    assert "got 0.jpg and 0.png" in refused(data=data)


def test_images_that_are_none(refused, data):
    (data / "images" / "2.png").write_bytes(b"no image")
    assert "2.png to be an image" in refused(data=data)


@pytest.mark.parametrize("ending", ["png", "npy"])
def test_truth_of_another_size(refused, data, ending):
    path = data / "depth" / f"{2 if ending == 'png' else 3}.{ending}"
    if ending == "png":
        Image.fromarray(np.ones((44, 52), np.uint16)).save(path)
    else:
        np.save(path, np.ones((1, 45, 61)))
    message = refused(data=data)
    assert f"{path} of the size of {path.stem}.png" in message and "(height, width)" in message


def test_depth_that_holds_no_metres(refused, data):
    Image.fromarray(np.ones((52, 44), np.uint8)).save(data / "depth" / "2.png")
    message = refused(data=data)
    assert "depth/2.png to be a 16-bit PNG" in message and "'L', which has 8 bits" in message
    np.save(data / "depth" / "1.npy", np.ones((40, 60), int))
    message = refused("--limit", "2", data=data)
    assert "1.npy to hold depth in metres as floats, got int64" in message
    (data / "depth" / "1.npy").write_bytes(b"no array")
    assert "1.npy to hold a map" in refused("--limit", "2", data=data)


def test_labels_that_are_no_ids(refused, data):
    labels = np.array(Image.open(data / "labels" / "2.png"))
    labels[3, 4] = 5
    Image.fromarray(labels).save(data / "labels" / "2.png")
    message = refused(data=data, model="segformer")
    assert "labels 0 to 4 or ignore_index=255 in" in message and "2.png" in message
    assert "got 5; check --reduce-labels" in message
    Image.new("RGB", (44, 52)).save(data / "labels" / "2.png")
    assert "2.png to be an 8-bit PNG of class ids" in refused(data=data, model="segformer")


def test_processors_that_crop_or_pad(refused, root, changed):
    crop = {"do_center_crop": True, "crop_size": {"height": 40, "width": 40}}
    tiny.saved("beit", root)
    message = refused(model=changed("beit", **crop))
    assert "whole images of 40 x 60" in message and "Set do_center_crop" in message
    message = refused(model=changed("metric", do_pad=True, size_divisor=48))
    assert "got a crop or padding" in message and "'size_divisor': 48" in message


def test_keywords_in_python(root):
    with pytest.raises(ConfigError, match="did you mean 'batch_size'"):
        compare_transformers(root / "metric", root / "data", batchsize=2)
    with pytest.raises(ConfigError, match="at least one SRT row"):
        compare_transformers(root / "metric", root / "data", [])
    with pytest.raises(ConfigError, match="dtype to be one of float32"):
        compare_transformers(root / "metric", root / "data", dtype="float64")


def test_without_transformers(refused, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "transformers", None)
    assert "needs transformers, which is not installed" in refused()
