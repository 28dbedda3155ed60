"""What a user of `srt compare detectron2` gets wrong, checkpoints above all: one line, exit code 2,
and no code of a file is run.
"""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from collections import UserDict

import numpy as np
import pytest

pytest.importorskip("detectron2", reason="needs Detectron2 (make setup DETECTRON2=...)")

import torch
from omegaconf import ListConfig
from torch import nn

from srt_plugins.cli import main
from srt_plugins.errors import CheckpointError, ConfigError
from srt_plugins.evaluation import compare_detectron2
from srt_plugins.evaluation.detectron2_checkpoint import load_detectron2_weights
from srt_plugins.evaluation.detectron2_methods import larger_images, on_logits
from srt_plugins.evaluation.methods import flip

from ..detectron2 import tiny
from . import detectron2_models as models


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A semantic segmentor with a yacs config and a checkpoint."""
    return models.yacs(tmp_path_factory.mktemp("mistakes"), "linear")


@pytest.fixture
def refused(made, tmp_path, capsys):
    """Runs the command, expects exit code 2, gives the one line on stderr."""

    def run(*options, config=None, checkpoint=None):
        out = tmp_path / "out"
        argv = ["compare", "detectron2", config or made.config, checkpoint or made.checkpoint]
        assert main([*argv, "--out", str(out), "--device", "cpu", *options]) == 2
        captured = capsys.readouterr()
        lines = captured.err.strip().splitlines()
        assert len(lines) == 1 and lines[0].startswith("srt: error: "), captured.err
        assert captured.out == ""
        assert not out.exists() or os.listdir(out) == []
        return lines[0]

    return run


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--views", "fases"], "Expected views to be"),
        (["--smooth", "4"], "odd kernel length"),
        (["--row", "levle=3"], "did you mean 'level'"),
        (["--limit", "0"], "limit to be at least 1"),
        (["--batch-size", "0"], "batch_size to be at least 1"),
        (["--device", "abacus"], "device to be one such as"),
        (
            ["--target", "net"],
            "Expected target to be a part of ResNet that takes images, got 'net'",
        ),
        (["--opts", "MODEL.NOTHING", "1"], "Non-existent key: MODEL.NOTHING"),
        (["--opts", "MODEL.NOTHING"], "--opts (cfg_options) to be KEY VALUE pairs"),
        (["--opts", "MODEL.META_ARCHITECTURE", "Nothing"], "Nothing"),
        (["--opts", "DATASETS.TEST", "()"], "DATASETS.TEST, which is empty"),
        (["--dataset", "scenes_vall"], "near ones are"),
        (["--dataset", "coco_2017_vall"], "'coco_2017_val'"),
        (["--dataset", "coco_2017_val"], "DETECTRON2_DATASETS"),
        (["--dataset", "scenes_val_0_64x96"], "length"),
    ],
)
def test_bad_settings(refused, options, message):
    assert message in refused(*options)


def test_files_that_are_no_configs(refused, tmp_path):
    assert "config to be a file, got gone.py" in refused(config="gone.py")
    assert "checkpoint to be a file, got gone.pth" in refused(checkpoint="gone.pth")
    texts = {
        "text.txt": ("", "yacs file (.yaml) or a LazyConfig (.py)"),
        "broken.py": ("model = dict(", "is not a config that Detectron2 reads"),
        "other.yaml": ("MODEL:\n  UNKNOWN: 1\n", "Non-existent config key: MODEL.UNKNOWN"),
        "empty.py": ("x = 1\n", "model, dataloader.test, dataloader.evaluator are missing"),
        "part.py": ("model = {'a': 1}\ndataloader = {'test': {'b': 1}}\n", "evaluator is missing"),
    }
    for name, (text, message) in texts.items():
        (tmp_path / name).write_text(text)
        assert message in refused(config=str(tmp_path / name))


def test_an_evaluator_that_does_not_fit(refused, tmp_path):
    dense = models._DENSE + models._DATA.format(images=2, evaluator="COCOEvaluator")
    (tmp_path / "dense.py").write_text(
        "from types import SimpleNamespace\n"
        + dense.replace("L(COCOEvaluator)(", "L(SimpleNamespace)(")
    )
    message = refused(config=str(tmp_path / "dense.py"))
    assert "dataloader.evaluator to be a DatasetEvaluator, got SimpleNamespace" in message


def test_python_mistakes(made):
    with pytest.raises(ConfigError, match="at least one SRT row"):
        compare_detectron2(made.config, made.checkpoint, [])
    with pytest.raises(ConfigError, match="did you mean 'oe'"):
        compare_detectron2(made.config, made.checkpoint, skip=["eo"])
    with pytest.raises(ConfigError, match="path, a CfgNode or a DictConfig, got dict"):
        compare_detectron2({}, made.checkpoint, device="cpu")
    with pytest.raises(ConfigError, match="padding to be one of"):
        compare_detectron2(made.config, made.checkpoint, complete="mirror")


def test_a_config_object_is_not_changed(made):
    before = made.cfg.dump()
    skip = ["controls", "oe", "flip", "larger"]
    found = compare_detectron2(
        made.cfg,
        made.checkpoint,
        [{}],
        skip=skip,
        limit=1,
        device="cpu",
        cfg_options={"INPUT.MIN_SIZE_TEST": 48},
    )
    assert made.cfg.dump() == before and found.images == 1


class Evil:
    """Writes a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


def small() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 2))


def test_training_states_are_read_without_their_objects(tmp_path):
    """A LazyConfig's optimizer keeps lists of omegaconf; they are not needed and not made."""
    weights = {k: v + 1 for k, v in small().state_dict().items()}
    state = {"optimizer": {"betas": ListConfig([0.9, 0.99])}, "other": UserDict(a=1)}
    torch.save({"model": weights, "trainer": state}, tmp_path / "state.pth")
    torch.save({"model": weights, "evil": Evil(tmp_path / "ran")}, tmp_path / "evil.pth")
    trust = torch.__version__ < "2.6"
    for name in ("state", "evil"):
        model = small()
        if trust and name == "evil":
            with pytest.raises(CheckpointError, match="--trust-checkpoint"):
                load_detectron2_weights(model, tmp_path / "evil.pth")
            continue
        report = load_detectron2_weights(model, tmp_path / f"{name}.pth", trust=trust)
        assert report.warning() is None
        assert all(torch.equal(v, weights[k]) for k, v in model.state_dict().items())
    assert not (tmp_path / "ran").exists()


def test_model_zoo_pickles(tmp_path):
    """Files of numpy arrays as the model zoo has them, names matched by Detectron2."""
    weights = {k: v.numpy() + 1 for k, v in small().state_dict().items()}
    (tmp_path / "zoo.pkl").write_bytes(pickle.dumps({"model": weights, "__author__": "zoo"}))
    model = small()
    assert load_detectron2_weights(model, tmp_path / "zoo.pkl").warning() is None
    assert np.array_equal(model[0].weight.detach().numpy(), weights["0.weight"])
    more = {"model": weights, "__author__": "zoo", "matching_heuristics": True}
    (tmp_path / "named.pkl").write_bytes(pickle.dumps(more))
    model = nn.ModuleDict({"prefix": small()})
    load_detectron2_weights(model, tmp_path / "named.pkl")
    assert np.array_equal(model["prefix"][0].weight.detach().numpy(), weights["0.weight"])
    evil = {"model": weights, "__author__": Evil(tmp_path / "ran")}
    (tmp_path / "evil.pkl").write_bytes(pickle.dumps(evil))
    with pytest.raises(CheckpointError, match=r"\(_?io.open\).*--trust-checkpoint"):
        load_detectron2_weights(small(), tmp_path / "evil.pkl")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("form", ["model", "state_dict", "bare", "module"])
def test_forms_of_checkpoints(tmp_path, form):
    weights = {k: v + 1 for k, v in small().state_dict().items()}
    if form == "module":
        weights = {f"module.{k}": v for k, v in weights.items()}
    content = weights if form in ("bare", "module") else {form: weights}
    torch.save(content, tmp_path / "some.pth")
    model = small()
    assert load_detectron2_weights(model, tmp_path / "some.pth").warning() is None
    assert torch.equal(model[0].bias, next(v for k, v in weights.items() if k.endswith("0.bias")))


def test_keys_that_do_not_meet(refused, made, tmp_path):
    weights = made.model.state_dict()
    name = "sem_seg_head.predictor.bias"
    torch.save({"model": {**weights, name: torch.ones(3)}}, tmp_path / "wide.pth")
    message = refused(checkpoint=str(tmp_path / "wide.pth"))
    assert f"{name} is (3,), not (10,)" in message
    torch.save({"model": {"encoder.weight": torch.ones(1)}}, tmp_path / "other.pth")
    message = refused(checkpoint=str(tmp_path / "other.pth"))
    assert "'encoder.weight'" in message and "'backbone." in message
    torch.save([1, 2], tmp_path / "list.pth")
    assert "state dict, got list" in refused(checkpoint=str(tmp_path / "list.pth"))
    (tmp_path / "text.pth").write_bytes(b"not a checkpoint")
    assert "is not a checkpoint" in refused(checkpoint=str(tmp_path / "text.pth"))
    (tmp_path / "text.pkl").write_bytes(b"not a pickle")
    assert "is not a checkpoint" in refused(checkpoint=str(tmp_path / "text.pkl"))
    del weights[name]
    torch.save({"model": {**weights, "extra": torch.ones(1)}}, tmp_path / "some.pth")
    found = compare_detectron2(
        made.config,
        tmp_path / "some.pth",
        [{}],
        limit=1,
        skip=["controls", "oe", "flip", "larger"],
        device="cpu",
    )
    (note,) = found.notes
    assert "1 missing" in note and name in note and "'extra'" in note
    assert found.to_dict()["missing_keys"] == [name]


def test_nothing_but_ours_is_printed(made, tmp_path, capfd):
    argv = ["compare", "detectron2", made.config, made.checkpoint, "--out", str(tmp_path)]
    skip = ["--skip", "controls", "oe", "flip", "larger"]
    assert main([*argv, "--device", "cpu", "--limit", "2", *skip]) == 0
    captured = capfd.readouterr()
    assert captured.err == ""
    lines = captured.out.splitlines()
    assert lines[0].startswith("2 images; mIoU") and lines[-1] == str(tmp_path / "compare.png")


def test_help(capsys):
    assert main(["compare", "detectron2", "--help"]) == 0
    text = capsys.readouterr().out
    assert "examples:" in text and "--target" in text and "--dataset" in text


def test_without_detectron2(made, tmp_path):
    """A Python that cannot find detectron2, as where it is not installed."""
    code = (
        "import sys; sys.modules['detectron2'] = None\n"
        "from srt_plugins.cli import main\n"
        f"sys.exit(main(['compare', 'detectron2', {made.config!r}, {made.checkpoint!r}, '--out', "
        f"{str(tmp_path / 'nothing')!r}]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 2, done.stderr
    (line,) = done.stderr.strip().splitlines()
    assert line.startswith("srt: error: Comparing Detectron2 models needs detectron2, which is not")
    assert line.endswith("https://detectron2.readthedocs.io/tutorials/install.html")


def test_flip_of_logits_by_hand(made):
    batch = tiny.pictures(2, (64, 96))
    batch[1].update(height=32, width=50)
    with torch.no_grad():
        found = on_logits(made.model, flip)(made.model, batch)
        for item, output in zip(batch, found):
            size = {"height": 64, "width": 96}
            mirrored = {**item, **size, "image": item["image"].flip(-1)}
            logits = made.model([{**item, **size}, mirrored])
            mean = (logits[0]["sem_seg"] + logits[1]["sem_seg"].flip(-1)) / 2
            expected = torch.nn.functional.interpolate(
                mean[None], (item["height"], item["width"]), mode="bilinear", align_corners=False
            )[0]
            torch.testing.assert_close(output["sem_seg"], expected, atol=1e-4, rtol=1e-4)


def test_larger_images_come_back_in_their_size():
    seen = []
    image = torch.arange(40 * 60, dtype=torch.uint8).reshape(1, 40, 60).expand(3, -1, -1)
    batch = [{"image": image, "height": 80, "width": 120, "image_id": 5}, {"image": image}]
    larger_images(1.5, 16)(lambda items: seen.extend(items) or [], batch)
    first, second = seen
    assert first["image"].shape == (3, 64, 96) and first["image"].dtype == torch.uint8
    assert (first["height"], first["width"], first["image_id"]) == (80, 120, 5)
    assert (second["height"], second["width"]) == (40, 60)
