"""The built wheel against the sources, and the editable install."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from email.message import Message
from email.parser import Parser
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
# Where each source folder lands in the wheel.
FOLDERS = {
    "srt_plugins": "srt_plugins",
    "adapters": "srt_plugins/adapters",
    "mmseg_configs": "srt_plugins/mmseg_configs",
    "d2_configs": "srt_plugins/d2_configs",
}


def run(*command: str | Path, **env: str) -> str:
    """Output of a command that must succeed, away from the sources."""
    kept = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run(
        list(map(str, command)), env={**kept, **env}, cwd="/", capture_output=True, text=True
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def sources(tmp_path_factory) -> Path:
    """A copy of the sources: building leaves files behind, and takes up what it finds."""
    copy = tmp_path_factory.mktemp("sources")
    for folder in FOLDERS:
        shutil.copytree(ROOT / folder, copy / folder, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, copy)
    return copy


@pytest.fixture(scope="module")
def wheel(sources, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("wheel")
    options = ["--no-deps", "--no-build-isolation", "--quiet", "--wheel-dir", out]
    run(sys.executable, "-m", "pip", "wheel", *options, sources)
    (built,) = out.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def unpacked(wheel, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    return folder


@pytest.fixture(scope="module")
def metadata(unpacked) -> Message:
    (path,) = unpacked.glob("*.dist-info/METADATA")
    return Parser().parsestr(path.read_text(encoding="utf-8"))


def test_wheel_holds_the_sources_and_nothing_else(unpacked):
    expected = {
        (target / path.relative_to(ROOT / folder)).as_posix()
        for folder, target in ((name, Path(to)) for name, to in FOLDERS.items())
        for path in (ROOT / folder).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts and path.suffix != ".md"
    }
    found = {
        path.relative_to(unpacked).as_posix() for path in unpacked.rglob("*") if path.is_file()
    }
    found = {path for path in found if ".dist-info/" not in path}
    missing, extra = sorted(expected - found), sorted(found - expected)
    assert not missing, f"not in the wheel (list the folder in pyproject.toml): {missing}"
    assert not extra, f"in the wheel, not in the sources: {extra}"


def test_metadata(unpacked, metadata):
    assert (metadata["Name"], metadata["Version"]) == ("srt-plugins", "0.1.0")
    assert metadata["License-Expression"] == "Apache-2.0"
    assert metadata["Requires-Python"] == ">=3.9"
    (license_file,) = unpacked.glob("*.dist-info/licenses/LICENSE")
    assert "Apache License" in license_file.read_text()
    (entry_points,) = unpacked.glob("*.dist-info/entry_points.txt")
    assert "srt = srt_plugins.cli:main" in entry_points.read_text()


def test_core_needs_torch_and_no_extra_touches_mmcv(metadata):
    requirements = metadata.get_all("Requires-Dist")
    name = {line: re.match(r"[\w.-]+", line).group().lower() for line in requirements}
    always = {name[line] for line in requirements if "extra ==" not in line}
    assert always == {"torch", "tqdm"}
    # Either flavour would overwrite the other one, which may be the user's own build.
    assert not [line for line in requirements if name[line].startswith("mmcv")]
    assert "mmsegmentation" in name.values()


def test_wheel_imports(unpacked):
    code = "import srt_plugins.adapters, srt_plugins.d2_configs, srt_plugins.cli as c; c.main"
    paths = run(
        sys.executable,
        "-c",
        code + "; print(srt_plugins.__file__, srt_plugins.adapters.__file__)",
        PYTHONPATH=str(unpacked),
    ).split()
    assert [Path(path).is_relative_to(unpacked) for path in paths] == [True, True]


def test_editable_install_imports_the_mapped_folders(sources, tmp_path):
    options = ["--no-deps", "--no-build-isolation", "--quiet", "--target", tmp_path]
    run(sys.executable, "-m", "pip", "install", *options, "-e", sources)
    # -S: without the .pth files of this environment, which may map the same names.
    code = (
        f"import site; site.addsitedir({str(tmp_path)!r}); "
        "import srt_plugins.adapters as a, srt_plugins.d2_configs as d; "
        "print(a.__file__, d.__file__)"
    )
    search = os.pathsep.join([str(tmp_path), sysconfig.get_path("purelib")])
    adapters, configs = run(sys.executable, "-S", "-c", code, PYTHONPATH=search).split()
    assert Path(adapters).samefile(sources / "adapters" / "__init__.py")
    assert Path(configs).samefile(sources / "d2_configs" / "__init__.py")
