"""Choosing settings without labels: what stands in for them, and what is done with it."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from srt_plugins.cli import main
from srt_plugins.errors import ConfigError
from srt_plugins.evaluation import Plan, tune_mmseg
from srt_plugins.evaluation.candidates import Ways
from srt_plugins.evaluation.held_out import reference

ALONE = Ways(fewer=False, levels=False, layers=False, flip=False, padding=False)
FEW = Plan(budget=1000, views=4, finer=False, ways=ALONE, labels=False, images=3)


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """Few candidates, so that they take no time."""
    from srt_plugins.evaluation import candidates as grid

    monkeypatch.setattr(grid, "SPACES", (0.7,))
    monkeypatch.setattr(grid, "COLOURS", (0.7,))
    monkeypatch.setattr(grid, "KERNELS", (None, 3))
    monkeypatch.setattr("srt_plugins.evaluation.tune._ROUNDS", 0)


def moved(images, dy, dx):
    """Content moved down and right, pixels outside replicated."""
    rows = (torch.arange(images.shape[-2]) - dy).clamp(0, images.shape[-2] - 1)
    columns = (torch.arange(images.shape[-1]) - dx).clamp(0, images.shape[-1] - 1)
    return images[..., rows, :][..., columns]


def by_hand(inference, images, patch):
    """Mean over four views of the enlarged image, every pixel over the views that show it."""
    height, width = (round(n * 1.5 / patch) * patch for n in images.shape[-2:])
    enlarged = F.interpolate(images, (height, width), mode="bilinear", align_corners=False)
    total, count = 0, torch.zeros(height, width)
    step = patch // 4
    for dy, dx, flip in ((1, 1, 0), (1, -1, 1), (-1, 1, 1), (-1, -1, 0)):
        view = moved(enlarged, dy * step, dx * step)
        logits = inference(view.flip(-1)).flip(-1) if flip else inference(view)
        shown = moved(torch.ones(1, 1, height, width), 0, 0)[0, 0]
        back = torch.zeros_like(logits)
        for y in range(height):
            for x in range(width):
                v, u = y + dy * step, x + dx * step
                if 0 <= v < height and 0 <= u < width:
                    back[..., y, x] = logits[..., v, u]
                else:
                    shown[y, x] = 0
        total, count = total + back, count + shown
    return F.interpolate(total / count, images.shape[-2:], mode="bilinear", align_corners=False)


def test_the_reference_by_hand():
    torch.manual_seed(0)
    layer = torch.nn.Conv2d(3, 2, 5, padding=2).double()
    images = torch.rand(1, 3, 16, 24, dtype=torch.float64)
    with torch.no_grad():
        found = reference(8)(lambda x, metas: layer(x), images, [{}])
        torch.testing.assert_close(found, by_hand(layer, images, 8))


def areas(prediction, truth, classes):
    inside = [((prediction == k) & (truth == k)).sum() for k in range(classes)]
    either = [((prediction == k) | (truth == k)).sum() for k in range(classes)]
    return np.array(inside), np.array(either)


def images_of(tiny, folder):
    """A folder with some of the images, under names of its own."""
    folder.mkdir()
    for i in range(3):
        shutil.copy(tiny.root / f"data/images/{i}.png", folder / f"photo {i}.png")
    (folder / "notes.txt").write_text("no image")
    return folder


def test_mmseg_on_a_folder(tiny, tmp_path):
    folder = images_of(tiny, tmp_path / "photos")
    config = tiny.write("no_data", "test_dataloader = dict(dataset=dict(data_root='gone'))")
    found = tune_mmseg(config, tiny.checkpoint, FEW, images_from=folder, device="cpu")
    assert found.images == [0, 1, 2] and found.context["judged"] == "held-out views"
    assert found.context["data"] == str(folder)
    # The plain model against the reference, by the model's own predictions.
    model = tiny.build(tiny.config)
    model.load_state_dict(torch.load(tiny.checkpoint)["state_dict"])
    model.eval()
    inside, either = 0, 0
    for i in range(3):
        image = torch.from_numpy(np.array(Image.open(folder / f"photo {i}.png")))
        inputs = F.pad((image.permute(2, 0, 1)[None].float() - 120) / 60, (0, 4, 0, 6))
        with torch.no_grad():
            expected = by_hand(lambda x: whole(model, x), inputs, 8)[..., :42, :60].argmax(1)[0]
            plain = whole(model, inputs)[..., :42, :60].argmax(1)[0]
        one, other = areas(plain.numpy(), expected.numpy(), 3)
        inside, either = inside + one, either + other
    plain = found.comparison.results[0]
    assert plain.mIoU == pytest.approx(100 * np.mean(inside / either), abs=0.05)


def whole(model, inputs):
    """Logits at the size of the input."""
    logits = model.decode_head(model.backbone(inputs))
    return F.interpolate(logits, inputs.shape[-2:], mode="bilinear", align_corners=False)


def test_mmseg_reads_no_labels(tiny, tmp_path):
    """On the config's own data, as if there were none."""
    config = tiny.write(
        "unseen", "test_dataloader = dict(dataset=dict(data_prefix=dict(seg_map_path='gone')))"
    )
    found = tune_mmseg(config, tiny.checkpoint, FEW, device="cpu")
    seen = tune_mmseg(tiny.config, tiny.checkpoint, FEW, device="cpu")
    assert [r.mIoU for r in found.comparison.results] == [r.mIoU for r in seen.comparison.results]


def test_the_command(tiny, tmp_path, capsys):
    folder, out = images_of(tiny, tmp_path / "photos"), tmp_path / "out"
    argv = ["tune", "mmseg", tiny.config, tiny.checkpoint, "--device", "cpu", "--own-stride"]
    argv += ["--images-from", str(folder), "--budget", "1000", "--views", "4", "--out", str(out)]
    argv += ["--no-levels", "--no-layers", "--no-flip", "--no-padding"]
    assert main(argv) == 0
    captured = capsys.readouterr()
    assert "held-out views as truth" in captured.out and "Judged without labels" in captured.out
    assert "so the gains flatter" not in captured.out
    assert "srt: 6 candidates on 3 images: 12 forwards of the backbone" in captured.err
    record = json.loads((out / "tune.json").read_text())
    kept = "SRT's default, which is kept" in captured.out
    assert kept == record["default_kept"]
    if kept:
        assert record["chosen"]["keywords"] == {"views": "phases"}
    assert main([*argv, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["judged"] == "held-out views"


def test_detectron2_wants_labels():
    pytest.importorskip("detectron2", reason="needs Detectron2 (make setup DETECTRON2=...)")
    from srt_plugins.evaluation import tune_detectron2

    with pytest.raises(ConfigError, match="read labels from files themselves"):
        tune_detectron2("config.yaml", "weights.pth", FEW)


@pytest.mark.parametrize("kind", ["segformer", "metric"])
def test_transformers(kind, tmp_path, capsys):
    pytest.importorskip("transformers", reason="transformers is not installed")
    from srt_plugins.evaluation import tune_transformers

    from . import transformers_models as models

    torch.set_num_threads(1)
    model = models.saved(kind, tmp_path)
    data = models.write_folder(tmp_path / "data")
    few = replace(FEW, images=1)
    found = tune_transformers(model, data / "images", few, device="cpu")
    assert [r.row.views for r in found.comparison.results] == [1, 1, 1, 4, 4, 4]
    seen = tune_transformers(model, data, few, device="cpu")
    assert found.comparison.results[3].value == seen.comparison.results[3].value
    with pytest.raises(ConfigError, match="leave --(ignore-index|crop) out"):
        asked = {"ignore_index": 3} if kind == "segformer" else {"crop": "eigen"}
        tune_transformers(model, data / "images", FEW, device="cpu", **asked)
    argv = ["tune", "transformers", str(model), str(tmp_path / "none"), "--without-labels"]
    assert main(argv) == 2
    assert "which does not exist" in capsys.readouterr().err
