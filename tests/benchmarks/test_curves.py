"""Rows that share what the backbone returned are the rows that `srt compare` measures."""

from __future__ import annotations

import json

import pytest

pytest.importorskip("mmseg", reason="needs MMSegmentation")
pytest.importorskip("matplotlib", reason="needs matplotlib")

from benchmarks.curves.collect import Results, collect
from benchmarks.curves.command import main
from benchmarks.curves.points import GROUPS, Choice
from benchmarks.curves.rivals import marginalized, random_views
from benchmarks.curves.rows import points
from benchmarks.curves.tables import Table
from srt_plugins.evaluation import compare_mmseg
from srt_plugins.evaluation.checkpoint import load_weights
from srt_plugins.evaluation.mmseg_session import Session
from srt_plugins.evaluation.request import Request

STRENGTH = "guided:0.8:0.6"
# Our name, that of `srt compare`, and its settings where it needs them.
SAME = {
    "plain": ("plain", None),
    "SRT, 4 views": ("SRT 4 views", {}),
    "1x, smooth 3": ("1x smoothing [1 2 1]/4", None),
    "1x, guided 0.8:0.6, stride 4": (
        "SRT 1 view, stride 4 + guided 0.8 0.6",
        dict(views=[(0, 0)], smooth=STRENGTH, stride=4),
    ),
    "SRT, 6 views, smooth 3, stride 4": (
        "SRT 6 views, stride 4 + [1 2 1]/4",
        dict(views="phases:4", max_views=6, smooth=3, stride=4),
    ),
    "SRT mirrored, 8 views": (
        "SRT 8 views, mirrored",
        dict(views="phases:4", max_views=8, flip=True),
    ),
    "SRT, 4 views, after block 2 of 2": ("SRT 4 views, layer 1", dict(layer=1)),
    "paper's grid, level 1, 9 views, median": (
        "SRT 9 views, level 1, median",
        dict(level=1, statistic="median"),
    ),
    "output ensemble, 4 phases": ("output ensemble (OE), 4 views", None),
    "flip TTA": ("flip TTA", None),
}
IMAGES, FEW = 3, 2


@pytest.fixture(scope="module")
def tables(tiny, tmp_path_factory):
    """These rows in shared runs, on all images and on a few."""
    path = tmp_path_factory.mktemp("curves") / "tiny.jsonl"
    with Session(tiny.config, Request(device="cpu", limit=IMAGES)) as session:
        load_weights(session.model, tiny.checkpoint)
        like = session.run_batch(next(iter(session.batches())))[0]
        every = points(Choice(8, 4, (STRENGTH,), levels=(1,), blocks=2), GROUPS)
        rows = [point for point in every if point.name in SAME]
        assert len(rows) == len(SAME)
        results = Results(path, {})
        with session.completed("reflect"):
            collect(session, rows, {"grid": FEW}, results)
        whole = [row for row in rows if row.group != "grid"]
        return Table(whole, results, like, IMAGES), Table(rows, results, like, FEW)


@pytest.fixture(scope="module")
def compared(tiny):
    """The same rows, each run as if it were the only one."""
    return compare_mmseg(
        tiny.config,
        tiny.checkpoint,
        [settings for _, settings in SAME.values() if settings is not None],
        complete="reflect",
        limit=FEW,
        skip=["larger"],
        device="cpu",
    )


@pytest.mark.parametrize("name", SAME)
def test_rows_are_those_of_the_comparison(tables, compared, name):
    row, same = tables[1].result(name), compared[SAME[name][0]]
    assert row.figures == same.figures
    assert (row.gain, row.gain_interval) == (same.gain, same.gain_interval)
    # Alignments are built once, when a row first needs them.
    assert row.flops_ratio == pytest.approx(same.flops_ratio, rel=0.02)


def test_groups_can_be_run_on_fewer_images(tables):
    whole, few = (table.record() for table in tables)
    assert (whole["images"], few["images"]) == (IMAGES, FEW)
    names = [[row["name"] for row in table["rows"]] for table in (whole, few)]
    assert set(names[1]) - set(names[0]) == {"paper's grid, level 1, 9 views, median"}
    assert whole["rows"][0]["mIoU"] != few["rows"][0]["mIoU"]


def test_gains_are_over_the_best_control_of_each_kind(tables):
    blind = ("plain", "1x, smooth 3")
    guided = ("plain", "1x, guided 0.8:0.6, stride 4")
    for table in tables:
        record = table.record()
        scores = {row["name"]: row["mIoU"] for row in record["rows"]}
        for kind, names in (("blind", blind), ("guided", guided), ("any", blind + guided)):
            best = max(scores[name] for name in names)
            assert scores[record["best_1x_control"][kind]] == best
            for row in record["rows"]:
                over = row["gain_over_best_1x_control"][kind]
                assert over["gain"] == pytest.approx(row["mIoU"] - best)
                assert over["interval"][0] <= over["interval"][1]


def curves(tiny, folder, *more):
    argv = [tiny.config, tiny.checkpoint, "--complete", "reflect", "--device", "cpu"]
    return main([*argv, "--out", str(folder), f"--parts={folder}", "--rows", *more])


def figures(folder):
    """Everything but costs, in which each alignment counts where it is built."""
    (table,) = json.loads((folder / "curves_tiny.json").read_text())["tables"]
    assert all(1 <= row["cost_in_forwards"] < 1.1 * row["views"] for row in table["rows"])
    free = ("flops", "cost_in_forwards")
    rows = [{k: v for k, v in row.items() if k not in free} for row in table["rows"]]
    return {**table, "rows": rows}


def test_a_stopped_run_goes_on(tiny, tmp_path, capsys):
    """In two parts, images and rows; the end of the second image's line is missing."""
    once, twice = tmp_path / "once", tmp_path / "twice"
    assert curves(tiny, once, "outputs", "flip", "padding", "--limit", "3") == 0
    assert curves(tiny, twice, "flip", "outputs", "--limit", "2") == 0
    parts = twice / "curves_tiny.jsonl"
    parts.write_text(parts.read_text()[:-40])
    first = parts.read_text().splitlines()[1]
    assert curves(tiny, twice, "flip", "outputs", "padding", "--limit", "3") == 0
    assert parts.read_text().splitlines()[1] == first
    assert figures(twice) == figures(once)
    text = (once / "curves_tiny.md").read_text()
    assert "| plain | 1 | 1.00 |" in text
    assert str(tmp_path) not in text + (once / "curves_tiny.json").read_text()
    assert (once / "curves_tiny.png").read_bytes().startswith(b"\x89PNG")
    capsys.readouterr()
    assert curves(tiny, once, "flip", "--cfg-options", "model.backbone.final_norm=False") == 2
    error = capsys.readouterr().err
    assert "Expected" in error and "--fresh" in error


@pytest.mark.parametrize("patch", [14, 16])
def test_phases_and_random_views(patch):
    four, eight, sixteen = (set(views.translations) for views in marginalized(patch))
    assert (len(four), len(eight), len(sixteen)) == (4, 8, 16)
    assert four < sixteen and eight < sixteen
    # A quincunx: each row and each column of phases has every second one.
    assert all(sum(y == row for y, _ in eight) == 2 for row, _ in sixteen)
    assert all(sum(x == column for _, x in eight) == 2 for _, column in sixteen)
    drawn = [random_views(patch, 16, seed) for seed in (0, 1)]
    assert drawn[0] != drawn[1] and all(len(set(one)) == 16 for one in drawn)
    assert {abs(d) for one in drawn for view in one for d in view} <= set(range(patch // 2 + 1))


def test_names_are_unique():
    strengths = ("guided:1:0.7", "guided:1.0:0.70")
    choice = Choice(16, 4, strengths, scales=((2, 1.4), (4, 1.9)), blocks=4)
    names = [point.name for point in points(choice, GROUPS)]
    assert len(set(names)) == len(names) and names[0] == "plain"
    assert sum("guided 1:0.7" in name and name.startswith("1x") for name in names) == 2
