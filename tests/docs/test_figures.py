"""The figures of "How it works" are those that their script makes, and small."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("matplotlib")
Image = pytest.importorskip("PIL.Image")

FOLDER = Path(__file__).parents[2] / "docs" / "figures"
LARGEST = 250_000  # bytes, of any picture of the pages


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("make_figures", FOLDER / "make_figures.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_figure_is_committed_and_shown(script):
    page = (FOLDER.parent / "how.md").read_text(encoding="utf-8")
    for name in script.FIGURES:
        assert (FOLDER / f"{name}.png").exists() and f"](figures/{name}.png)" in page


def test_pictures_of_the_pages_are_small():
    for path in FOLDER.parent.rglob("*"):
        if path.suffix in (".png", ".jpg", ".svg", ".gif", ".mp4"):
            assert path.stat().st_size < LARGEST, path


@pytest.mark.parametrize("name", ["views", "alignment", "coverage", "features"])
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_the_script_makes_what_is_committed(script, name, tmp_path):
    if name == "features":
        pytest.importorskip("mmseg")
    (made,) = script.make([name], tmp_path)
    found, expected = (
        np.asarray(Image.open(path).convert("RGB"), dtype=float)
        for path in (made, FOLDER / made.name)
    )
    assert found.shape == expected.shape
    # Other versions of matplotlib and its fonts draw text a little differently.
    assert np.abs(found - expected).mean() < 12
