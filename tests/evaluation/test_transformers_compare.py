"""`srt compare transformers` on real models, against models and processors run by hand."""

from __future__ import annotations

import json
import math
import os
import re
import shutil

import numpy as np
import pytest
import torch

pytest.importorskip("transformers", reason="transformers is not installed")

import transformers
from PIL import Image

from srt_plugins import srt_enabled
from srt_plugins.cli import main
from srt_plugins.evaluation import compare_transformers
from srt_plugins.evaluation.depth import FIGURES
from srt_plugins.evaluation.transformers_session import batched
from srt_plugins.scenes import Scenes

from . import transformers_models as tiny
from .transformers_models import ByHand

SRT, OE = "SRT 4 views", "output ensemble (OE), 4 views"
ROWS = [
    "plain",
    "1x smoothing [1 2 1]/4",
    "1x smoothing [1 4 6 4 1]/16",
    "1x smoothing guided 0.75 0.4",
    SRT,
    f"{SRT} + [1 2 1]/4",
    OE,
    "flip TTA",
]
ALL = ["controls", "oe", "flip", "larger"]
SETTINGS = {
    ROWS[1]: dict(views=[(0, 0)], smooth=3),
    ROWS[2]: dict(views=[(0, 0)], smooth=5),
    ROWS[3]: dict(views=[(0, 0)], smooth="guided"),
    SRT: {},
    ROWS[5]: dict(smooth=3),
}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("transformers")
    tiny.write_folder(folder / "data")
    return folder


def run(root, kind: str, *options: str):
    """The command with all default rows on the folder; folder of its files, and the JSON."""
    out = root / f"out_{kind}"
    argv = ["compare", "transformers", str(tiny.saved(kind, root)), str(root / "data")]
    assert main([*argv, "--out", str(out), "--device", "cpu", *options]) == 0
    return out, json.loads((out / "compare.json").read_text())


@pytest.fixture(scope="module")
def depth(root):
    return run(root, "metric", "--depth-scale", str(tiny.DEPTH_SCALE))


@pytest.fixture(scope="module")
def labels(root):
    return run(root, "segformer")


def check_rows(found, hand: ByHand, images, patch: int, figures) -> None:
    """Every row's figures are those of a loop over images."""
    *names, larger = [row["name"] for row in found["rows"]]
    assert names == ROWS
    scale = float(re.fullmatch(r"larger input, x([\d.]+) per side", larger).group(1))
    assert scale > 1
    ways = {
        "plain": None,
        OE: hand.ensemble(patch),
        "flip TTA": hand.flipped,
        larger: hand.larger(scale, patch),
    }
    values = []
    for row in found["rows"]:
        if row["name"] in SETTINGS:
            with srt_enabled(hand.model, **SETTINGS[row["name"]]):
                predictions = [hand.predicted(image) for image, _ in images]
        else:
            predictions = [hand.predicted(image, ways[row["name"]]) for image, _ in images]
        own, expected = figures(row, predictions, [truth for _, truth in images])
        assert own == pytest.approx(expected, rel=1e-3), row["name"]
        values.append(own[0])
        low, high = row["gain_interval"]
        assert low <= high
    assert len({round(value, 5) for value in values}) == len(values)


def depth_of(row, predictions, truths):
    return [row[name] for name in FIGURES], tiny.depth_figures(predictions, truths)


def iou_of(row, predictions, truths):
    return [row["mIoU"]], [tiny.mean_iou(predictions, truths)]


def test_depth_rows_by_hand(root, depth):
    images = tiny.read_folder(root / "data", "depth")
    check_rows(depth[1], ByHand(root / "metric", "depth"), images, 14, depth_of)


def test_semantic_rows_by_hand(root, labels):
    images = tiny.read_folder(root / "data", "labels")
    check_rows(labels[1], ByHand(root / "segformer", "labels"), images, 32, iou_of)


def test_files_and_record(root, depth, labels):
    for (out, found), kind, processor in (
        (depth, "metric", "DPTImageProcessor"),
        (labels, "segformer", "SegformerImageProcessor"),
    ):
        assert sorted(os.listdir(out)) == ["compare.json", "compare.md", "compare.png"]
        assert (out / "compare.png").read_bytes().startswith(b"\x89PNG")
        text = (out / "compare.md").read_text()
        assert text.startswith(f"# {kind}\n") and "srt compare transformers" in text
        assert all(row["name"] in text for row in found["rows"])
        assert found["image_processor"] == processor and found["images"] == len(tiny.SIZES)
        assert found["dataset"] == str(root / "data") and found["dtype"] == "float32"
        assert "transformers" in found["versions"] and found["missing_keys"] == []
    assert depth[1]["depth"] == {
        "min_depth": 1e-3,
        "max_depth": 80.0,
        "crop": None,
        "align": "none",
        "disparity": False,
        "clamp": True,
        "depth_scale": tiny.DEPTH_SCALE,
    }
    assert labels[1]["labels"] == {"ignore_index": 255, "reduce_labels": False}
    ratios = [row["flops_ratio"] for row in depth[1]["rows"]]
    # The larger input costs what SRT costs, up to whole patches.
    assert ratios[0] == 1 and 0.6 < ratios[-1] / ratios[4] < 1.6
    assert labels[1]["metric"] == "mIoU" and depth[1]["metric"] == "RMSE"
    assert set(labels[1]["rows"][0]["IoU"]) == {f"LABEL_{i}" for i in range(tiny.CLASSES)}


@pytest.mark.parametrize("kind", ["mask2former", "maskformer", "oneformer"])
def test_mask_classification_by_hand(root, kind):
    images = tiny.read_folder(root / "data", "labels")[:2]
    words = kind == "oneformer"
    found = compare_transformers(
        tiny.saved_oneformer(root) if words else tiny.saved(kind, root),
        root / "data",
        [{}],
        skip=["controls", "larger"],
        limit=2,
        device="cpu",
    )
    assert [r.name for r in found.results] == ["plain", SRT, OE, "flip TTA"]
    hand = ByHand(root / kind, "masks")
    if words:
        tokens = transformers.AutoTokenizer.from_pretrained(root / kind)(
            "the task is semantic", padding="max_length", max_length=8, truncation=True
        )
        ids = torch.tensor(tokens["input_ids"]) * torch.tensor(tokens["attention_mask"])
        hand.others = {"task_inputs": ids[None]}
    truths = [truth for _, truth in images]
    ways = {"plain": None, SRT: None, OE: hand.ensemble(32), "flip TTA": hand.flipped}
    for result in found.results:
        with srt_enabled(hand.model, enabled=result.name == SRT):
            made = [hand.predicted(image, ways[result.name]) for image, _ in images]
        assert result.mIoU == pytest.approx(tiny.mean_iou(made, truths), rel=1e-3), result.name
    assert len({round(r.mIoU, 5) for r in found.results}) > 2


def test_padding_that_post_processing_undoes(root):
    images = tiny.read_folder(root / "data", "depth")
    found = compare_transformers(
        tiny.saved("zoedepth", root),
        root / "data",
        [{}],
        skip=["controls", "larger"],
        depth_scale=tiny.DEPTH_SCALE,
        max_depth=40,
        device="cpu",
    )
    hand = ByHand(root / "zoedepth", "depth")
    for name, way in {"plain": None, OE: hand.ensemble(8), "flip TTA": hand.flipped}.items():
        made = [hand.predicted(image, way) for image, _ in images]
        expected = tiny.depth_figures(made, [truth for _, truth in images], high=40.0)
        assert [found[name].figures[f] for f in FIGURES] == pytest.approx(expected, rel=1e-3)
    assert "between 0.001 and 40 m" in found.notes[0]


def test_relative_depth_is_fitted_to_the_truth(root, recwarn):
    images = tiny.read_folder(root / "data", "depth")
    found = compare_transformers(
        tiny.saved("relative", root),
        root / "data",
        [{}],
        skip=ALL,
        align="scale_shift",
        disparity=True,
        depth_scale=tiny.DEPTH_SCALE,
        device="cpu",
    )
    assert not [w for w in recwarn if "relative" in str(w.message)]
    assert any("fitted to the truth" in note for note in found.notes)
    hand, rows = ByHand(root / "relative", "depth"), []
    for image, truth in images:
        predicted, near = hand.predicted(image).astype(np.float64), (truth > 1e-3) & (truth < 80)
        columns = np.stack([predicted[near], np.ones(near.sum())], 1)
        scale, shift = np.linalg.lstsq(columns, 1 / truth[near], rcond=None)[0]
        disparity = scale * predicted + shift
        rows.append(np.where(disparity > 0, 1 / np.where(disparity > 0, disparity, 1), 80))
    expected = tiny.depth_figures(rows, [truth for _, truth in images])
    assert [found["plain"].figures[f] for f in FIGURES] == pytest.approx(expected, rel=1e-3)


def test_images_without_depth_are_left_out_and_told(root, tmp_path):
    shutil.copytree(root / "data", tmp_path / "data")
    known = sorted((tmp_path / "data" / "depth").glob("*"))
    shape = tiny.read_folder(root / "data", "depth")[0][1].shape
    options = dict(skip=ALL, device="cpu", depth_scale=tiny.DEPTH_SCALE)
    model = tiny.saved("metric", root)
    found = compare_transformers(model, tmp_path / "data", [{}], **options)
    assert not any("judged pixels" in note for note in found.notes)
    Image.fromarray(np.zeros(shape, np.uint16)).save(known[0])
    found = compare_transformers(model, tmp_path / "data", [{}], **options)
    assert "depth: images without judged pixels, left out of means: 1." in found.notes
    images = tiny.read_folder(root / "data", "depth")[1:]
    expected = ByHand(model, "depth")
    rows = [expected.predicted(image) for image, _ in images]
    figures = tiny.depth_figures(rows, [truth for _, truth in images])
    assert [found["plain"].figures[f] for f in FIGURES] == pytest.approx(figures, rel=1e-3)


def test_relative_depth_judged_in_metres_is_told(root):
    model, data = tiny.saved("relative", root), root / "data"
    with pytest.warns(UserWarning, match="--align scale_shift --disparity"):
        found = compare_transformers(model, data, [{}], skip=ALL, limit=1, device="cpu")
    assert any("depth_estimation_type='relative'" in note for note in found.notes)
    with pytest.warns(UserWarning, match="most DPT models"):
        compare_transformers(
            tiny.saved("dpt", root), data, [{}], skip=ALL, limit=1, device="cpu", align="none"
        )


@pytest.mark.filterwarnings("ignore:depth. most DPT")
def test_a_larger_input_that_a_model_refuses_is_left_out(root):
    found = compare_transformers(
        tiny.saved("hybrid", root),
        root / "data",
        [{}],
        skip=["controls", "oe", "flip"],
        limit=1,
        device="cpu",
    )
    assert [r.name for r in found.results] == ["plain", SRT]
    assert any(note.startswith("larger input: left out, ValueError") for note in found.notes)


def test_labels_as_the_processor_reduces_them(root, tmp_path):
    (tmp_path / "images").symlink_to(root / "data" / "images")
    (tmp_path / "annotations").mkdir()
    images = tiny.read_folder(root / "data", "labels")
    for i, (_, truth) in enumerate(images):
        stored = np.where(truth == 255, 0, truth + 1).astype(np.uint8)
        tiny.Image.fromarray(stored).save(tmp_path / "annotations" / f"{i}.png")
    model = tiny.saved("beit", root)
    found = compare_transformers(model, tmp_path, [{}], skip=ALL, device="cpu")
    assert any("do_reduce_labels" in note for note in found.notes)
    assert found.context["labels"] == {"ignore_index": 255, "reduce_labels": True}
    hand = ByHand(model, "labels")
    made = [hand.predicted(image) for image, _ in images]
    expected = tiny.mean_iou(made, [truth for _, truth in images])
    assert found["plain"].mIoU == pytest.approx(expected, rel=1e-3)


def test_scenes(root):
    scenes = list(Scenes("test", 2))
    images = [tiny.Image.fromarray(scene.image) for scene in scenes]
    given = dict(skip=ALL, limit=2, device="cpu")
    found = compare_transformers(tiny.saved("scenes", root), "scenes:test", [{}], **given)
    hand = ByHand(root / "scenes", "labels")
    made = [hand.predicted(image) for image in images]
    expected = tiny.mean_iou(made, [scene.labels for scene in scenes], classes=10)
    assert found["plain"].mIoU == pytest.approx(expected, rel=1e-3)
    found = compare_transformers(tiny.saved("metric", root), "scenes:test", [{}], **given)
    hand = ByHand(root / "metric", "depth")
    made = [hand.predicted(image) for image in images]
    expected = tiny.depth_figures(made, [scene.depth for scene in scenes])
    assert [found["plain"].figures[f] for f in FIGURES] == pytest.approx(expected, rel=1e-3)
    assert found.images == 2


def test_batches_and_workers_change_nothing(root, depth):
    plain = depth[1]["rows"][0]
    found = compare_transformers(
        root / "metric",
        root / "data",
        [{}],
        skip=ALL,
        batch_size=3,
        workers=1,
        depth_scale=tiny.DEPTH_SCALE,
        device="cpu",
    )
    assert pytest.approx(plain["RMSE"], rel=1e-5) == found["plain"].RMSE
    assert batched([(4, 6), (4, 6), (5, 6), (4, 6)], 3) == [[0, 1], [2], [3]]
    assert batched([(4, 6)] * 3, 2) == [[0, 1], [2]]
    assert batched([(4, 6)] * 2, None) == [[0], [1]]


def test_half_precision(root, depth):
    found = compare_transformers(
        root / "metric",
        root / "data",
        [{}],
        skip=["controls", "larger"],
        limit=1,
        dtype="bfloat16",
        depth_scale=tiny.DEPTH_SCALE,
        device="cpu",
    )
    assert found.context["dtype"] == "bfloat16"
    exact = compare_transformers(
        root / "metric",
        root / "data",
        [{}],
        skip=["controls", "larger"],
        limit=1,
        depth_scale=tiny.DEPTH_SCALE,
        device="cpu",
    )
    for one, other in zip(found.results, exact.results):
        assert pytest.approx(other.RMSE, rel=0.02) == one.RMSE and one.RMSE != other.RMSE
    assert not math.isnan(found[OE].RMSE)
