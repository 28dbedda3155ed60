"""A comparison by errors: gains are positive where the error is smaller, in every place."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from srt_plugins.evaluation.bootstrap import draw
from srt_plugins.evaluation.command import print_comparison
from srt_plugins.evaluation.depth import FIGURES
from srt_plugins.evaluation.gains import compare
from srt_plugins.evaluation.metrics import DepthErrors, MeanIoU
from srt_plugins.evaluation.plot import save_plot
from srt_plugins.evaluation.report import footnotes, markdown, sheets
from srt_plugins.evaluation.results import Comparison, Measured

from .test_percent_tables import RIGHT, ROWS

IMAGES = 30
PLAIN, SMOOTHING, SRT, FLIP = (row.name for row in ROWS)


def errors(factor: float, seed: int = 0) -> np.ndarray:
    """Errors of 30 images, hard and easy ones; ``factor`` times the plain model's."""
    rng = np.random.default_rng(0)
    rmse = factor * rng.uniform(0.3, 0.6, IMAGES)
    rmse *= 1 + np.random.default_rng(seed).normal(0, 0.01, IMAGES)
    four = rmse[:, None] * np.array([1, 0.4, 0.3, 0.2])
    return np.concatenate([four, 1 - rmse[:, None] / np.array([1, 4, 16])], 1)


def comparison(*factors: float, also: bool = False) -> Comparison:
    """The four rows with errors of these factors; ``also`` with mIoU as the first metric."""
    measured = []
    for i, (row, factor) in enumerate(zip(ROWS, factors)):
        metrics: list = [DepthErrors(errors(factor, i), np.full(IMAGES, 1000))]
        if also:
            right, full = np.array(RIGHT[i], float), np.full((3, 2), 100.0)
            metrics.insert(0, MeanIoU(np.stack([right, full, right, full], 1), ["a", "b"]))
        cost = 10**9 * row.views
        measured.append(Measured(row, metrics, {"rmse": 0.5}, [0.1] * IMAGES, cost, 1 << 20))
    found = compare(measured, [], resamples=400)
    found.context = {"peak_memory_is": "resident in this process"}
    return found


def test_gains_are_reductions_with_intervals():
    found = comparison(1, 0.97, 0.93, 1.1)
    plain, srt = errors(1, 0), errors(0.93, 2)
    for result, factor, seed in zip(found.results, (1, 0.97, 0.93, 1.1), range(4)):
        own = errors(factor, seed)
        means = {name: sum(own[:, i]) / IMAGES for i, name in enumerate(FIGURES)}
        assert result.figures == pytest.approx(means)
        assert result.gain == pytest.approx(sum(plain[:, 0] - own[:, 0]) / IMAGES)
        assert result.relative_gain == pytest.approx(100 * result.gain / plain[:, 0].mean())
    assert found[SRT].gain > 0 > found[FLIP].gain
    assert math.copysign(1, found[PLAIN].gain) == 1  # not -0
    gains = []
    for resample in draw(IMAGES, 400, 0):
        chosen = [i for i, n in enumerate(resample) for _ in range(n)]
        gains.append(sum(plain[i, 0] - srt[i, 0] for i in chosen) / IMAGES)
    assert found[SRT].gain_interval == pytest.approx(tuple(np.percentile(gains, [2.5, 97.5])))
    assert 0 < found[SRT].gain_interval[0] < found[SRT].gain


def test_the_best_rows_are_those_with_the_smallest_error():
    found = comparison(1, 0.97, 0.93, 1.1)
    assert found.control == SMOOTHING and found.best_srt.name == SRT
    assert comparison(1, 1.02, 0.93, 1.1).control == PLAIN
    assert found[SRT].gain_over_control == pytest.approx(found[SMOOTHING].RMSE - found[SRT].RMSE)


@pytest.mark.parametrize(
    ("factors", "text"),
    [
        ((1, 0.97, 0.93, 1.1), f"{SRT} adds +0.0"),
        ((1, 0.97, 1.2, 1.3), f"{SRT} is worse: -0.1"),
        ((1, 0.97, 0.97, 1.1), "cannot be distinguished from 0"),
        ((1, 1.02, 0.93, 1.1), "No 1x control beats the plain model."),
        ((1, 0.97, 0.93, 0.9), f"Ahead of SRT here: {FLIP} (+0.0"),
    ],
)
def test_conclusion(factors, text):
    said = comparison(*factors).conclusion()
    assert said.startswith("A gain is a reduction of RMSE in m. ") and text in said
    assert ("Ahead" in said) == (factors[3] < factors[2])


def test_tables_are_the_paper_s():
    found = comparison(1, 0.97, 0.93, 1.1)
    main, errors_only = sheets(found)
    assert main.title == "30 images; RMSE in m, lower is better; 95 % intervals over images"
    assert main.headers[2:6] == ["RMSE", "gain over plain", "in %", "over best 1x"]
    assert main.rows[0][1][2:5] == [f"{found[PLAIN].RMSE:.4f}", "", ""]
    srt = found[SRT]
    low, high = srt.gain_interval
    assert main.rows[2][1][2:5] == [
        f"{srt.RMSE:.4f}",
        f"+{srt.gain:.4f} [+{low:.4f}, +{high:.4f}]",
        f"+{100 * srt.gain / found[PLAIN].RMSE:.1f}",
    ]
    assert errors_only.headers == ["row", *FIGURES]
    for (_, cells), result in zip(errors_only.rows, found.results):
        assert cells == [result.name, *(f"{result.figures[name]:.4f}" for name in FIGURES)]
    notes = footnotes(found)
    assert "A gain in RMSE is plain − row" in notes and "Means over images" in notes
    assert "percent" not in markdown(found, "t")


def test_json_and_terminal(tmp_path, capsys):
    found = comparison(1, 0.97, 0.93, 1.1)
    read = json.loads(found.save(tmp_path / "compare.json").read_text())
    assert read["metric"] == "RMSE" and read["best_1x_control"] == SMOOTHING
    assert read["metrics"] == {"RMSE": {"label": "RMSE", "unit": "m", "lower_is_better": True}}
    row = read["rows"][2]
    assert [row[name] for name in FIGURES] == list(found[SRT].figures.values())
    assert row["relative_gain"] == found[SRT].relative_gain > 0
    print_comparison(found)
    assert f"{found[SRT].a3:.4f}" in capsys.readouterr().out


def test_picture(tmp_path):
    from PIL import Image

    path = save_plot(comparison(1, 0.97, 0.93, 1.1), tmp_path / "compare.png")
    with Image.open(path) as image:
        assert image.size[0] > 1000 and len(image.convert("RGB").getcolors(1 << 20)) > 20


def test_errors_beside_percentages():
    found = comparison(1, 0.97, 0.93, 1.1, also=True)
    assert list(found.metrics) == ["mIoU", "RMSE"]
    assert found[FLIP].scores["mIoU"].gain > 0 > found[FLIP].scores["RMSE"].gain
    assert found.controls == {"mIoU": SMOOTHING, "RMSE": SMOOTHING}
    first, second = found.conclusion().splitlines()
    assert first.startswith("mIoU: Best 1x") and second.startswith("RMSE: A gain is a reduction")
    main, depth = sheets(found)
    assert "mIoU in percent" in main.title and "in %" not in main.headers
    assert depth.headers[:5] == ["row", "RMSE", "gain over plain", "in %", "over best 1x"]
    gains = found.to_dict()["rows"][2]["gains"]
    assert "relative_gain" in gains["RMSE"] and "relative_gain" not in gains["mIoU"]


def test_images_without_judged_pixels_do_not_count():
    values = errors(1)
    values[3] = np.nan
    pixels = np.full(IMAGES, 10)
    pixels[3] = 0
    metric = DepthErrors(values, pixels)
    others = np.delete(values, 3, 0)
    assert metric.figures()["RMSE"] == pytest.approx(others[:, 0].mean())
    counts = np.zeros((2, IMAGES), dtype=int)
    counts[0, [3, 5]] = 15
    counts[1, 3] = IMAGES
    drawn = metric.resampled(counts)
    assert drawn[0] == pytest.approx(values[5, 0]) and math.isnan(drawn[1])


def test_a_model_whose_depth_is_nan_has_no_figure():
    values = errors(1)
    values[3] = np.nan
    metric = DepthErrors(values, np.full(IMAGES, 10))
    assert math.isnan(metric.figures()["RMSE"])
    assert np.isnan(metric.resampled(draw(IMAGES, 5))).all()
