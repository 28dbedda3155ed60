"""Bars and tables of figures made up, against ratios by hand; JSON there and back."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from srt_plugins.bench.bars import Bar, bars
from srt_plugins.bench.plot import save_plot
from srt_plugins.bench.report import markdown, table
from srt_plugins.bench.results import AggregationResult, Benchmark, Measurement, RowResult
from srt_plugins.bench.rows import GUIDED, NAIVE, PIXEL_MEAN, TOKEN_MEAN
from srt_plugins.bench.timing import Spread

MIB = 2**20


def spread(*values):
    return Spread.of(values)


def row(name, views, seconds, ratio, kind="srt", **more):
    return RowResult(name, kind, views, {}, 1, spread(seconds), spread(ratio), **more)


@pytest.fixture
def measured() -> Measurement:
    return Measurement(
        model="vit",
        size=(32, 48),
        patch=16,
        tokens=(2, 3),
        channels=8,
        dtype="float32",
        device="cpu",
        threads=1,
        weights=90 * MIB,
        batches={1: 0.5, 2: 0.6},
        best={1: 1, 4: 1, 49: 1},
        plain={1: spread(0.5), 4: spread(0.5, 0.4, 0.6), 49: spread(0.5)},
        forward_peaks={1: 10 * MIB},
        rows=[
            row(GUIDED, 1, 0.54, 1.08),
            RowResult(
                TOKEN_MEAN,
                "srt",
                4,
                {"level": 3},
                1,
                spread(2.0, 2.02, 2.3),
                spread(1.0, 1.01, 1.15),
                peak=15 * MIB,
                extra=5 * MIB,
            ),
            row(NAIVE, 4, 4.0, 2.0, kind="naive"),
            row(TOKEN_MEAN, 49, 29.4, 1.2),
            RowResult(PIXEL_MEAN, "srt", 49, {}, 1, failed="out of memory"),
        ],
        aggregations=[
            AggregationResult(PIXEL_MEAN, "srt", 4, spread(0.1, 0.2, 0.4)),
            AggregationResult(NAIVE, "naive", 4, spread(1.0, 2.0, 3.0)),
            AggregationResult(PIXEL_MEAN, "srt", 49, spread(4.9)),
        ],
    )


def test_bars_are_computed_from_the_figures(measured):
    found = [(bar.value, bar.verdict) for bar in bars([measured])]
    assert found == [
        (1.01, "aim"),
        (1.2, "fail"),
        (pytest.approx(10.0), "pass"),  # 2.0 / 0.2
        (None, "not measured"),  # no naive aggregation of 49 views
        (pytest.approx(4.9 / (49 * 0.5)), "pass"),
        (pytest.approx(0.05), "pass"),  # 5 MiB over 90 + 10
        (pytest.approx(0.08), "pass"),
    ]


def test_a_gpu_has_its_own_aim_and_no_bar_on_the_backbone_of_a_cpu(measured):
    gpu = replace(measured, device="cuda", rows=[row(TOKEN_MEAN, 4, 2.0, 1.015)])
    first, *others = bars([gpu])
    assert (first.aim, first.verdict) == (1.01, "pass")
    assert len(others) == len(bars([measured])) - 3
    assert not any("backbone" in bar.what for bar in others)


@pytest.mark.parametrize(
    ("value", "at_most", "verdict"),
    [
        (2, True, "aim"),
        (3, True, "pass"),
        (3.1, True, "fail"),
        (None, True, "not measured"),
        (30, False, "aim"),
        (3, False, "pass"),
        (2.9, False, "fail"),
    ],
)
def test_verdicts(value, at_most, verdict):
    aim = 2 if at_most else 25
    assert Bar("here", "what", value, 3, aim, at_most).verdict == verdict


def test_extra_memory_with_and_without_the_weights(measured):
    mean = measured.row(TOKEN_MEAN, 4)
    assert measured.extra_share(mean) == pytest.approx(0.05)
    assert measured.extra_share_of_activations(mean) == pytest.approx(0.5)
    assert measured.extra_share(measured.row(NAIVE, 4)) is None


def test_json_there_and_back(measured, tmp_path):
    before = Benchmark([measured], {"command": "srt bench", "versions": {"torch": "2"}})
    before.save(tmp_path / "bench.json")
    after = Benchmark.load(tmp_path / "bench.json")
    assert after == before
    assert markdown(after) == markdown(before)
    record = json.loads((tmp_path / "bench.json").read_text())
    assert record["bars"][0]["verdict"] == "aim"


def cells_of(text, *start):
    rows = [[c.strip() for c in line.strip("| ").split("|")] for line in text.splitlines()]
    return [cells for cells in rows if cells[: len(start)] == list(start)]


def test_tables_hold_what_was_measured(measured):
    text = markdown(Benchmark([measured], {"command": "srt bench --quick"}))
    ((_, _, _, ms, ratio, span, rate, *memory),) = cells_of(text, TOKEN_MEAN, "4", "1")
    assert (ms, ratio, span) == ("2020", "1.010", "1.000 - 1.150")
    assert float(rate) == pytest.approx(4 / 2.02, rel=1e-3)
    assert memory == ["15.0", "5.0", "5.0 %", "50.0 %"]
    (limit,) = cells_of(text, "4 x plain")
    assert limit[3:6] == ["2000", "1.000", "0.800 - 1.200"]
    (failed,) = cells_of(text, PIXEL_MEAN, "49", "1")
    assert failed[3] == "out of memory"
    aggregated = next(cells for cells in cells_of(text, PIXEL_MEAN, "4") if len(cells) == 6)
    assert aggregated[2:] == ["200", "100 - 400", "10.0 %", "10.0"]
    assert "srt bench --quick" in text


def test_table_columns_line_up():
    lines = table(["a", "long header"], [["name", "1"], ["n", "22"]], 1).splitlines()
    assert len({len(line) for line in lines}) == 1
    assert lines[1] == "| ---- | ----------: |"
    assert lines[2] == "| name |           1 |"


def test_picture(measured, tmp_path):
    pytest.importorskip("matplotlib")
    path = save_plot(Benchmark([measured, measured]), tmp_path / "bench.png")
    assert path.read_bytes().startswith(b"\x89PNG")
