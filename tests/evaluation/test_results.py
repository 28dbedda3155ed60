"""The conclusion follows from the figures; tables, JSON and the picture hold them all."""

from __future__ import annotations

import io
import json
import os

import numpy as np
import pytest

from srt_plugins.core.views import resolve
from srt_plugins.errors import ConfigError
from srt_plugins.evaluation.command import print_comparison
from srt_plugins.evaluation.files import output_folder, replacing
from srt_plugins.evaluation.gains import compare
from srt_plugins.evaluation.metrics import MeanIoU
from srt_plugins.evaluation.plot import dodged, save_plot
from srt_plugins.evaluation.report import footnotes, markdown, rich_table, sheets
from srt_plugins.evaluation.results import Comparison, Measured
from srt_plugins.evaluation.rows import plan, settings_of


def comparison(images: int = 40, **accuracy: float) -> Comparison:
    """Rows with the given shares of right pixels, the same noise on all, and some of each row's."""
    settings = settings_of({})
    rows = plan([(settings, resolve(None, None, 8))])
    rng = np.random.default_rng(0)
    common = rng.normal(0, 30, (images, 2))
    measured = []
    for i, row in enumerate(rows):
        share = accuracy.get(row.method if row.kind != "control" else "control", 0.5)
        right = np.round(1000 * share + common + rng.normal(0, 10, common.shape))
        areas = np.stack([right, np.full_like(right, 1000), right, np.full_like(right, 1000)], 1)
        metrics = [MeanIoU(areas, ["a", "b"])]
        measured.append(
            Measured(row, metrics, {}, [0.1 * (i + 1)] * images, 10 * row.views, 1 << 20)
        )
    found = compare(measured, ["a", "b"], resamples=400)
    found.context = {"peak_memory_is": "resident in this process"}
    return found


def test_a_gain_beyond_the_control():
    found = comparison(control=0.52, srt=0.54)
    assert found.control.startswith("1x smoothing")
    text = found.conclusion()
    assert text.startswith("Best 1x control: smoothing") and "SRT 4 views adds +" in text
    low, high = found["SRT 4 views"].gain_over_control_interval
    assert 0 < low < found["SRT 4 views"].gain_over_control < high


def test_no_gain_beyond_the_control():
    assert (
        "cannot be distinguished from 0 on these 40 images"
        in comparison(control=0.53, srt=0.53).conclusion()
    )


def test_worse_than_the_control():
    assert "SRT 4 views is worse: -" in comparison(control=0.56, srt=0.52).conclusion()


def test_controls_that_do_harm_do_not_flatter():
    found = comparison(control=0.4, srt=0.54)
    assert found.control == "plain"
    assert found.conclusion().startswith("No 1x control beats the plain model. SRT")
    assert found["SRT 4 views"].gain_over_control == found["SRT 4 views"].gain


def test_what_is_ahead_is_named():
    text = comparison(srt=0.54, oe=0.6).conclusion()
    assert "Ahead of SRT here: output ensemble (OE), 4 views (+" in text
    assert "Ahead" not in comparison(srt=0.54).conclusion()


def test_json(tmp_path):
    found = comparison(srt=0.54)
    found.results[1].per_class["IoU"]["a"] = float("nan")
    path = found.save(tmp_path / "compare.json")
    read = json.loads(path.read_text(), parse_constant=lambda name: pytest.fail(name))
    assert read["rows"][1]["IoU"]["a"] is None
    assert read["rows"][3]["settings"]["padding"] == "replicate"
    assert read["conclusion"] == found.conclusion()
    assert os.listdir(tmp_path) == ["compare.json"]


def test_table_has_every_figure():
    from rich.console import Console

    found = comparison(srt=0.54)
    console = Console(width=200, record=True, file=io.StringIO())
    console.print(rich_table(sheets(found)[0]))
    lines = console.export_text().splitlines()
    for result in found.results:
        (line,) = [line for line in lines if line.startswith(result.name + "  ")]
        assert f"{result.mIoU:.2f}" in line and f"(x{result.flops_ratio:.1f})" in line
        if result.row.kind == "srt":
            assert f"{result.gain:+.2f} [{result.gain_interval[0]:+.2f}" in line
    assert "chosen by mIoU on all of these images" in footnotes(found)


def test_markdown_has_every_row_with_as_many_cells_as_its_header():
    found = comparison(srt=0.54)
    found.context["command"] = "srt compare mmseg a.py b.pth"
    text = markdown(found, "a")
    assert text.startswith("# a\n") and found.conclusion() in text
    assert all(f"- {line}\n" in text for line in footnotes(found).splitlines())
    assert "srt compare mmseg a.py b.pth" in text
    lines = [line for line in text.splitlines() if line.startswith("|")]
    header = next(line for line in lines if line.startswith("| row"))
    for result in found.results:
        line = next(line for line in lines if line.startswith(f"| {result.name} |"))
        assert line.count("|") == header.count("|")
        assert f"| {result.mIoU:.2f} |" in line


def test_a_narrow_terminal_cuts_off_no_figure(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "60")
    found = comparison()
    assert max(len(result.name) for result in found.results) > 20
    for result in found.results:
        result.other_seconds = {"data": 0.01, "evaluation": 0.02}
    print_comparison(found)
    text = capsys.readouterr().out
    assert "…" not in text
    for result in found.results:
        assert f"{result.seconds_per_image:.3f} (x{result.seconds_ratio:.1f})" in text


def test_picture(tmp_path):
    from PIL import Image

    path = save_plot(comparison(srt=0.54), tmp_path / "compare.png", "a$b$c")
    with Image.open(path) as image:
        assert image.size[0] > 1000 and len(image.convert("RGB").getcolors(1 << 20)) > 20
    assert os.listdir(tmp_path) == ["compare.png"]
    save_plot(comparison(images=1), tmp_path / "one.png")


def test_points_of_equal_cost_stand_apart():
    results = comparison().results
    placed = dodged(results)
    ordered = sorted(placed)
    assert all(b / a > 1.06 for a, b in zip(ordered, ordered[1:]))
    # Each stays near its cost, and the middle of equal ones is where they belong.
    free = [p for p, r in zip(placed, results) if r.flops_ratio == results[0].flops_ratio]
    assert np.exp(np.log(free).mean()) == pytest.approx(1)
    assert all(0.7 < p / r.flops_ratio < 1.4 for p, r in zip(placed, results))


def test_a_row_by_its_name():
    found = comparison()
    assert found["plain"].row.kind == "plain"
    with pytest.raises(KeyError, match="there are"):
        found["plane"]


def test_names_tell_rows_apart():
    given = [{"views": 2}, {"views": [(0, 0), (4, 4)]}, {"views": [(0, 0), (4, 0)]}]
    given += [{"views": 2, "smooth": 3}, {"level": 1}, {"views": 2, "layer": 1, "padding": "zeros"}]
    settings = [settings_of(g) for g in given]
    rows = plan([(s, resolve(s.views, s.level, 8)) for s in settings])
    assert [row.name for row in rows if row.kind == "srt"] == [
        "SRT 2 views",  # the second is the same
        "SRT 2 views, at (0,0) (4,0)",
        "SRT 2 views + [1 2 1]/4",
        "SRT 9 views, level 1",
        "SRT 2 views, layer 1, zeros",
    ]


def test_rows_with_a_tolerance():
    given = [{"views": 9, "tolerance": 0.05, "smooth": 3}, {"views": 9, "smooth": 3}]
    given += [{"views": 9, "tolerance": 0.05, "smooth": 3, "max_views": 9}]  # the first again
    given += [{"views": 9, "tolerance": 0.05, "smooth": 3, "view_batch": 3}]
    settings = [settings_of(g) for g in given]
    rows = plan([(s, resolve(s.views, s.level, 8)) for s in settings], frozenset(["oe", "larger"]))
    assert [row.name for row in rows if row.kind == "srt"] == [
        "SRT up to 9 views, tolerance 0.05 + [1 2 1]/4",
        "SRT 9 views + [1 2 1]/4",
        "SRT up to 9 views, tolerance 0.05 + [1 2 1]/4, at (0,0) (-3,-3) (3,3) (-3,0) …",
    ]
    assert [row.adaptive for row in rows if row.kind == "srt"] == [True, False, True]
    assert [row.name for row in rows if row.kind == "control"] == [
        "1x smoothing [1 2 1]/4",
        "1x smoothing [1 4 6 4 1]/16",
        "1x smoothing guided 0.75 0.4",
    ]
    metrics = [MeanIoU(np.array([[[1.0], [2], [1], [2]]] * 3), ["a"])]
    measured = [Measured(row, metrics, {}, [0.1] * 3, 10 * row.views) for row in rows]
    measured[4].mean_views = 4.25
    found = compare(measured, ["a"])
    found.context = {"peak_memory_is": "resident in this process"}
    main_sheet = dict(zip(("name", "views"), zip(*(c[:2] for _, c in sheets(found)[0].rows))))
    assert main_sheet["views"][4:7] == ("4.2 of 9", "9", "9.0 of 9")
    assert "mean over images" in footnotes(found)
    written = found.to_dict()["rows"]
    assert written[4]["mean_views"] == 4.25 and "mean_views" not in written[5]
    assert found.results[5].mean_views == 9


def test_half_written_files_are_not_left(tmp_path):
    (tmp_path / "file").write_text("old")
    with pytest.raises(RuntimeError), replacing(tmp_path / "file") as part:
        part.write_text("half")
        raise RuntimeError
    assert (tmp_path / "file").read_text() == "old"
    assert os.listdir(tmp_path) == ["file"]


def test_output_folder(tmp_path):
    assert output_folder(tmp_path / "a" / "b").is_dir()
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="--out"):
        output_folder(tmp_path / "file" / "below")
