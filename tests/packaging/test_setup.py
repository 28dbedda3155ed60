"""The Makefile and the scripts behind it: what they would install, and the closing line."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def setup_env() -> ModuleType:
    spec = importlib.util.spec_from_file_location("setup_env", ROOT / "scripts" / "setup_env.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def commands(setup_env, monkeypatch) -> list[str]:
    """What ``base`` would run."""
    calls: list[str] = []
    monkeypatch.setattr(setup_env, "pip", lambda *args, **env: calls.append(" ".join(args)))
    setup_env.base()
    return calls


@pytest.mark.parametrize("present", [True, False])
def test_mmcv_lite_only_where_there_is_no_mmcv(setup_env, monkeypatch, present):
    monkeypatch.setattr(setup_env.importlib.util, "find_spec", lambda name: present or None)
    install = commands(setup_env, monkeypatch)[-1]
    assert ("mmcv-lite" in install) is not present
    assert "mmcv==" not in install


def test_another_torch_is_kept(setup_env, monkeypatch, tmp_path):
    assert setup_env.pins()["torch"] == "2.8.0"
    versions = {"torch": "2.4.1+cu121", "torchvision": "0.19.1"}
    monkeypatch.setattr(setup_env, "installed", versions.get)
    kept = setup_env.constraints(tmp_path).read_text()
    assert "torch==2.4.1+cu121" in kept and "torchvision==0.19.1" in kept
    monkeypatch.setattr(setup_env, "installed", {"torch": "2.8.0+cpu"}.get)
    assert setup_env.constraints(tmp_path) == setup_env.CONSTRAINTS


def test_unsupported_python_is_named(setup_env, monkeypatch):
    monkeypatch.setattr(setup_env, "PYTHONS", ((3, 98), (3, 99)))
    with pytest.raises(SystemExit, match=r"Use Python 3\.98 to 3\.99"):
        commands(setup_env, monkeypatch)


def test_missing_detectron2_is_named(setup_env, tmp_path):
    with pytest.raises(SystemExit, match="does not exist"):
        setup_env.detectron2(str(tmp_path / "nothing.whl"))


needs_make = pytest.mark.skipif(shutil.which("make") is None, reason="needs make")


def plan(*arguments: str) -> str:
    """What make would do."""
    command = ["make", "--dry-run", "--no-print-directory", *arguments]
    return subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout


@needs_make
def test_make_installs_once(tmp_path):
    venv = (f"VENV={tmp_path}", "DETECTRON2=")
    assert "setup_env.py base" in plan("test-fast", *venv)
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "python").touch()
    (tmp_path / ".stamp-setup").touch()
    steps = plan("test-fast", *venv)
    assert "setup_env.py" not in steps and "-m venv" not in steps
    assert "-m pytest" in steps


@needs_make
def test_make_leaves_a_given_environment_alone():
    python = f"PYTHON={sys.executable}"
    assert "setup_env.py" not in plan("test-fast", python)
    assert plan("lint", python).startswith(sys.executable)
    assert "setup_env.py base" in plan("setup", python)
    detectron2 = plan("setup", python, "DETECTRON2=/some/where")
    assert 'setup_env.py detectron2 "/some/where"' in detectron2


def test_closing_line_sums_the_runs(tmp_path):
    (tmp_path / "test_some.py").write_text(
        "import pytest\n"
        "def test_a(): pass\n"
        "def test_b(): pytest.skip('no')\n"
        "def test_c(): assert False\n"
    )
    (tmp_path / "test_whole.py").write_text(
        "import pytest\npytest.importorskip('no_such', reason='needs (that)')\n"
    )
    for name, select in (("one", "test_a or test_b"), ("two", "test_a or test_c")):
        report = f"--junitxml={tmp_path / name}.xml"
        command = [sys.executable, "-m", "pytest", "-q", "-k", select, report, "."]
        subprocess.run(command, cwd=tmp_path, capture_output=True)
    script = ROOT / "scripts" / "summarize_tests.py"
    reports = [tmp_path / "one.xml", tmp_path / "two.xml"]
    out = subprocess.run(
        [sys.executable, script, *reports], check=True, capture_output=True, text=True
    ).stdout.splitlines()
    assert out[0].startswith("one: 1 passed, 2 skipped in ")
    assert out[1:3] == ["  skipped 1x: needs (that)", "  skipped 1x: no"]
    assert out[3].startswith("two: 1 failed, 1 passed, 1 skipped in ")
    assert out[5].startswith("1 failed, 2 passed, 3 skipped in ")


@needs_make
def test_make_takes_a_detectron2_wheel_that_lies_ready(tmp_path):
    wheels = f"WHEELS={tmp_path}"
    venv = f"VENV={tmp_path / 'venv'}"
    assert "setup_env.py detectron2" not in plan("test-fast", wheels, venv)
    (tmp_path / "detectron2-0.6-cp311-cp311-linux_x86_64.whl").touch()
    for target in ("setup", "test-fast"):
        steps = plan(target, wheels, venv)
        assert f'setup_env.py detectron2 "{tmp_path}/detectron2-0.6' in steps
    # What the user names goes first, and can switch it off.
    assert 'setup_env.py detectron2 "mine"' in plan("setup", wheels, venv, "DETECTRON2=mine")
    assert "setup_env.py detectron2" not in plan("setup", wheels, venv, "DETECTRON2=")


def test_the_same_wheel_is_not_installed_again(setup_env, monkeypatch, tmp_path):
    wheel = tmp_path / "detectron2-0.6-py3-none-any.whl"
    wheel.write_bytes(b"one build")
    record = {"archive_info": {"hashes": {"sha256": hashlib.sha256(b"one build").hexdigest()}}}
    folder = tmp_path / "detectron2-0.6.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text("Name: detectron2\nVersion: 0.6\n")
    (folder / "direct_url.json").write_text(json.dumps(record))
    found = metadata.Distribution.at(folder)
    monkeypatch.setattr(setup_env.metadata, "distribution", lambda name: found)
    monkeypatch.setattr(setup_env, "installed", lambda name: found.version)
    calls: list[str] = []
    monkeypatch.setattr(setup_env, "pip", lambda *args, **env: calls.append(" ".join(args)))
    setup_env.detectron2(str(wheel))
    assert calls == []
    wheel.write_bytes(b"another build of the same version")
    setup_env.detectron2(str(wheel))
    assert "--force-reinstall" in calls[-1] and str(wheel) in calls[-1]


def test_the_summary_names_what_was_skipped_and_why(tmp_path):
    report = tmp_path / "run.xml"
    report.write_text(
        '<testsuites><testsuite tests="3" failures="0" errors="0" skipped="2" time="1.0">'
        '<testcase name="a"/>'
        '<testcase name="b"><skipped message="Detectron2 is not installed"/></testcase>'
        '<testcase name="c"><skipped message="Detectron2 is not installed"/></testcase>'
        "</testsuite></testsuites>"
    )
    command = [sys.executable, str(ROOT / "scripts" / "summarize_tests.py"), str(report)]
    lines = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
    assert "  skipped 2x: Detectron2 is not installed" in lines
    assert lines[-1] == "1 passed, 2 skipped in 1s"
