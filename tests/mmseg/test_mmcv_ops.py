"""The placeholder for mmcv's compiled ops, each case in a Python process of its own."""

from __future__ import annotations

import importlib.util
import inspect
import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from srt_plugins.mmseg.mmcv_ops import (
    FULL_HELP,
    LITE_HELP,
    MissingOpError,
    OpsPlaceholder,
    install_placeholder,
)

ROOT = Path(__file__).resolve().parents[2]

FIRST_IMPORT = """
from srt_plugins.errors import MissingDependencyError
try:
    from srt_plugins.mmseg import mmcv_ops
    mmcv_ops.install_placeholder()
except MissingDependencyError as error:
    print(error)
"""


def run(code: str, pythonpath: str | None = None) -> str:
    """Output of a fresh Python; PYTHONPATH is as given, not inherited."""
    env = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    env["OMP_NUM_THREADS"] = "1"
    if pythonpath is not None:
        env["PYTHONPATH"] = pythonpath
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=env, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def without_ops() -> None:
    code = "import importlib.util as u; print(bool(u.find_spec('mmcv._ext')))"
    if run(code).strip() == "True":
        pytest.skip("the environment's own mmcv has compiled ops")


@pytest.mark.usefixtures("without_ops")
def test_mmseg_models_import_and_an_op_names_itself():
    # Without the placeholder the very import fails: that is what it is for.
    out = run("""
try:
    import mmseg.models
except ModuleNotFoundError as error:
    print(error.name)
from srt_plugins.mmseg import mmcv_ops
print(mmcv_ops.install_placeholder(), mmcv_ops.install_placeholder())
import mmcv.ops, mmseg.models, torch
boxes = torch.tensor([[0., 0., 4., 4.]])
for device in ["cpu"] + ["cuda"] * torch.cuda.is_available():
    try:
        mmcv.ops.nms(boxes.to(device), torch.ones(1, device=device), 0.5)
    except mmcv_ops.MissingOpError as error:
        print(error)
features = torch.rand(1, 3, 8, 8, requires_grad=True)
try:
    mmcv.ops.roi_align(features, torch.tensor([[0., 0., 0., 4., 4.]]), 2)
except RuntimeError as error:
    print(type(error).__name__, "'roi_align_forward'" in str(error))
# What has no compiled part works.
print(mmcv.ops.point_sample(features, torch.rand(1, 5, 2)).shape)
""").splitlines()
    assert out[0] == "mmcv._ext"
    assert out[1] == "True True"
    assert "'nms'" in out[2] and FULL_HELP in out[3]
    assert out[-2:] == ["MissingOpError True", "torch.Size([1, 3, 5])"]


@pytest.mark.usefixtures("without_ops")
def test_probes_for_compiled_ops_still_answer_no():
    out = run("""
from srt_plugins.mmseg import mmcv_ops
mmcv_ops.install_placeholder()
import importlib.util, inspect, pickle
from mmcv.utils import collect_env
from mmcv.utils.ext_loader import check_ops_exist
from mmengine.utils.dl_utils.misc import mmcv_full_available
print(check_ops_exist(), mmcv_full_available(), importlib.util.find_spec("mmcv._ext").loader)
print(collect_env()["MMCV Compiler"])
print(inspect.getmodule(collect_env).__name__)
print(pickle.loads(pickle.dumps(collect_env)) is collect_env)
""").splitlines()
    assert out[-4:] == ["False False None", "not available", "mmcv.utils.env", "True"]


@pytest.mark.full_mmcv
def test_full_mmcv_is_left_alone():
    if install_placeholder():
        pytest.skip("needs compiled ops: make setup-full-mmcv, then make test-full")
    import mmcv.ops

    assert not isinstance(sys.modules["mmcv._ext"], OpsPlaceholder)
    assert importlib.util.find_spec("mmcv._ext").loader is not None
    boxes = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 9], [20, 20, 30, 30]])
    kept, index = mmcv.ops.nms(boxes, torch.tensor([0.9, 0.8, 0.7]), iou_threshold=0.5)
    assert index.tolist() == [0, 2]
    assert torch.equal(kept[:, :4], boxes[[0, 2]])
    pooled = mmcv.ops.roi_align(torch.full((1, 2, 8, 8), 3.0), torch.tensor([[0.0, 1, 1, 5, 5]]), 2)
    assert torch.allclose(pooled, torch.full((1, 2, 2, 2), 3.0))


def test_no_mmcv_says_how_to_get_one():
    out = run("import sys; sys.modules['mmcv'] = None" + FIRST_IMPORT)
    assert "mmcv, which is not installed" in out
    assert LITE_HELP in out and FULL_HELP in out


@pytest.mark.parametrize("version", ["1.7.2", "2.2.0"])
def test_version_that_mmseg_rejects_is_named(tmp_path, version):
    (tmp_path / "mmcv").mkdir()
    (tmp_path / "mmcv" / "__init__.py").write_text(f"__version__ = {version!r}\n")
    out = run(FIRST_IMPORT, pythonpath=str(tmp_path))
    assert f"mmcv {version} is installed" in out
    assert ">=2.0.0rc4,<2.2.0" in out and LITE_HELP in out


def test_ops_of_another_torch_say_so(tmp_path):
    (tmp_path / "mmcv").mkdir()
    (tmp_path / "mmcv" / "__init__.py").write_text("__version__ = '2.1.0'\n")
    (tmp_path / "mmcv" / "_ext.py").write_text("raise ImportError('undefined symbol: _ZN3c10')\n")
    out = run(FIRST_IMPORT, pythonpath=str(tmp_path))
    assert "undefined symbol: _ZN3c10" in out
    assert "another torch" in out and FULL_HELP in out


def test_placeholder_answers_for_ops_only():
    placeholder = OpsPlaceholder()
    assert placeholder.some_op is placeholder.some_op
    assert not hasattr(placeholder, "__path__") and not hasattr(placeholder, "__wrapped__")
    assert inspect.ismodule(placeholder) and inspect.getdoc(placeholder)
    with pytest.raises(MissingOpError, match="'some_op'") as caught:
        placeholder.some_op(torch.ones(1), alpha=2)
    copy = pickle.loads(pickle.dumps(caught.value))
    assert type(copy) is MissingOpError and str(copy) == str(caught.value)


def test_commands_in_messages_install_the_tested_versions():
    tested = (ROOT / "requirements" / "constraints.txt").read_text().splitlines()
    assert LITE_HELP.rpartition(" ")[2] in tested
    assert FULL_HELP.rpartition(" ")[2] in tested
