"""Files that run code when they are loaded: no command loads them, unless it is told to."""

from __future__ import annotations

import json
import pickle
import shutil

import pytest
import torch

from srt_plugins.cli import main
from srt_plugins.evaluation.checkpoint import read_weights

COMMANDS = ["compare", "tune"]


class Evil:
    """Writes a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


@pytest.fixture
def ran(tmp_path):
    """What is written where code of a file runs."""
    return tmp_path / "ran"


@pytest.fixture
def run(tmp_path, capsys):
    """Runs a command on few images; its exit code and stderr."""

    def call(command, framework, *argv):
        options = ["--limit", "1", "--skip", "controls", "oe", "flip", "larger"]
        if command == "tune":
            options = ["--images", "1", "--views", "1", "--own-stride"]
        out = ["--out", str(tmp_path / "out"), "--device", "cpu"]
        code = main([command, framework, *map(str, argv), *options, *out])
        return code, capsys.readouterr().err

    return call


# --- MMSegmentation ------------------------------------------------------------------------------


@pytest.mark.parametrize("command", COMMANDS)
def test_mmseg(tiny, run, ran, tmp_path, command):
    weights = read_weights(tiny.checkpoint)
    torch.save({"state_dict": weights, "message_hub": Evil(ran)}, tmp_path / "evil.pth")
    code, error = run(command, "mmseg", tiny.config, tmp_path / "evil.pth")
    assert code == 2 and "--trust-checkpoint" in error and not ran.exists()
    # The file does what it is feared for.
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("srt_plugins.evaluation.mmseg_tune.tuned", _stop)
        patch.setattr("srt_plugins.evaluation.mmseg_compare.plan", _stop)
        run(command, "mmseg", tiny.config, tmp_path / "evil.pth", "--trust-checkpoint")
    assert ran.exists()


def _stop(*_, **__):
    raise RuntimeError("far enough")


@pytest.mark.parametrize("command", COMMANDS)
def test_weights_that_an_mmseg_config_names(tiny, run, ran, tmp_path, command):
    torch.save(Evil(ran), tmp_path / "evil.pth")
    evil = str(tmp_path / "evil.pth")
    pretrained = f"init_cfg=dict(type='Pretrained', checkpoint={evil!r})"
    config = tiny.write(
        "loading",
        f"load_from = {evil!r}\nresume = True\n"
        f"model = dict({pretrained}, backbone=dict({pretrained}))",
    )
    code, error = run(command, "mmseg", config, tiny.checkpoint)
    assert code == 0, error
    assert not ran.exists()


# --- Detectron2 ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def dense(tmp_path_factory):
    pytest.importorskip("detectron2", reason="needs Detectron2 (make setup DETECTRON2=...)")
    from . import detectron2_models as models

    return models.lazy(tmp_path_factory.mktemp("evil"), "dense", models._DENSE, "SemSegEvaluator")


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("ending", ["pth", "pkl"])
def test_detectron2(dense, run, ran, tmp_path, command, ending):
    path = tmp_path / f"evil.{ending}"
    if ending == "pkl":
        path.write_bytes(pickle.dumps({"model": Evil(ran)}))
    else:
        torch.save(Evil(ran), path)
    code, error = run(command, "detectron2", dense.config, path)
    assert code == 2 and error.count("\n") == 1 and not ran.exists()


def test_weights_that_a_detectron2_config_names(dense, run, ran, tmp_path):
    torch.save(Evil(ran), tmp_path / "evil.pth")
    evil = f"+train.init_checkpoint={tmp_path / 'evil.pth'}"
    code, error = run("tune", "detectron2", dense.config, dense.checkpoint, "--opts", evil)
    assert code == 0, error
    assert not ran.exists()


# --- transformers --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def hub(tmp_path_factory):
    pytest.importorskip("transformers", reason="transformers is not installed")
    from . import transformers_models as models

    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("evil")
    models.write_folder(folder / "data")
    models.saved("segformer", folder)
    return folder


@pytest.mark.parametrize("command", COMMANDS)
def test_transformers(hub, run, ran, tmp_path, command):
    from safetensors.torch import load_file

    folder = shutil.copytree(hub / "segformer", tmp_path / "evil")
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    torch.save({**weights, "more": Evil(ran)}, folder / "pytorch_model.bin")
    code, error = run(command, "transformers", folder, hub / "data")
    assert code == 2 and "--trust-checkpoint" in error and not ran.exists()


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("known", [True, False], ids=["known", "unknown"])
def test_code_beside_a_model(hub, run, ran, tmp_path, monkeypatch, command, known):
    """`auto_map` names code in the folder, which transformers runs once it is told to trust it."""
    folder = shutil.copytree(hub / "segformer", tmp_path / "evil")
    (folder / "evil.py").write_text(f"open({str(ran)!r}, 'w')\n")
    names = ("Config", "ModelForSemanticSegmentation", "ImageProcessor")
    for name in ("config.json", "preprocessor_config.json"):
        content = json.loads((folder / name).read_text())
        content["auto_map"] = {f"Auto{one}": "evil.Evil" for one in names}
        if not known and name == "config.json":
            content["model_type"] = "evil"
        (folder / name).write_text(json.dumps(content))
    asked = []
    monkeypatch.setattr("builtins.input", asked.append)
    code, error = run(command, "transformers", folder, hub / "data")
    assert code == (0 if known else 2), error
    assert asked == [] and not ran.exists()
