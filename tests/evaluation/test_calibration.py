"""ECE, AUSE and rank correlations against float64 loops, by hand on outputs of real tiny models."""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right

import numpy as np
import pytest
import torch

from srt_plugins.evaluation import calibration as c
from srt_plugins.evaluation.calibration_rows import FIGURES, Calibration, calibrated

ROWS = ("plain", "SRT 4 views", "output ensemble (OE), 4 views", "flip TTA")


def slow_ece(confidences, rights, bins=15):
    """Percent, of lists of pixels."""
    total, error = len(confidences), 0.0
    for i in range(bins):
        inside = [
            k for k, p in enumerate(confidences) if i / bins < p <= (i + 1) / bins or p == i == 0
        ]
        if inside:
            sure = sum(confidences[k] for k in inside) / len(inside)
            right = sum(rights[k] for k in inside) / len(inside)
            error += len(inside) / total * abs(sure - right)
    return 100 * error


def slow_curve(uncertainty, error, root, steps):
    """Mean over all orders of equally uncertain pixels of what is left, step by step."""
    pixels = sorted(range(len(error)), key=lambda k: -uncertainty[k])
    same = {}
    for e, u in zip(error, uncertainty):
        same.setdefault(u, []).append(e)
    shared = {u: sum(errors) / len(errors) for u, errors in same.items()}
    curve = []
    for k in range(steps):
        left = pixels[(k * len(error)) // steps :]
        mean = sum(shared[uncertainty[p]] for p in left) / len(left)
        curve.append(math.sqrt(mean) if root else mean)
    return curve


def slow_ause(uncertainty, error, root=False, steps=100):
    found, best = (slow_curve(u, error, root, steps) for u in (uncertainty, error))
    gaps = [(f - b) / found[0] for f, b in zip(found, best)] + [0.0]
    return sum((a + b) / 2 / steps for a, b in zip(gaps, gaps[1:]))


def slow_ranks(values):
    ordered = sorted(values)
    return [(bisect_left(ordered, v) + 1 + bisect_right(ordered, v)) / 2 for v in values]


def slow_spearman(a, b):
    a, b = slow_ranks(a), slow_ranks(b)
    ma, mb = sum(a) / len(a), sum(b) / len(b)
    top = sum((x - ma) * (y - mb) for x, y in zip(a, b))
    return top / math.sqrt(sum((x - ma) ** 2 for x in a) * sum((y - mb) ** 2 for y in b))


@pytest.fixture(scope="module")
def pixels():
    """Uncertainties with ties, errors that they tell something of, ``(P,)``."""
    rng = np.random.default_rng(0)
    confidence = np.round(rng.random(237) ** 0.3, 2)
    wrong = (rng.random(237) > confidence).astype(float)
    depth = (rng.random(237) * (1.2 - confidence)) ** 2
    return confidence, rng.integers(0, 9, 237) * 0.25 + wrong, wrong, depth


def test_calibration_error_is_that_of_a_loop(pixels):
    confidence, _, wrong, _ = pixels
    table = c.reliability(confidence, 1 - wrong)
    assert table.shape == (3, 15) and table[0].sum() == len(wrong)
    expected = slow_ece(confidence.tolist(), (1 - wrong).tolist())
    assert float(c.calibration_error(table)) == pytest.approx(expected, rel=1e-12)
    halves = [c.reliability(confidence[i], 1 - wrong[i]) for i in (slice(100), slice(100, None))]
    np.testing.assert_allclose(sum(halves), table, rtol=1e-12)
    assert math.isnan(c.calibration_error(np.zeros((3, 15))))


def test_edges_of_bins_belong_to_the_lower_one():
    table = c.reliability(np.array([0.0, 0.2, 0.2000001, 1.0]), np.ones(4), bins=5)
    assert table[0].tolist() == [2, 1, 0, 0, 1]


@pytest.mark.parametrize("root", [False, True])
def test_area_and_correlation_are_those_of_loops(pixels, root):
    confidence, other, wrong, depth = pixels
    error = depth if root else wrong
    for uncertainty in (1 - confidence, other, error, -error):
        ranking = c.Ranking.of(uncertainty)
        expected = slow_ause(uncertainty.tolist(), error.tolist(), root)
        assert c.ause(ranking, error, root) == pytest.approx(expected, abs=1e-12)
        expected = slow_spearman(uncertainty.tolist(), error.tolist())
        assert c.spearman(ranking, c.Ranking.of(error)) == pytest.approx(expected, abs=1e-12)
    assert c.ause(c.Ranking.of(error), error, root) == 0


def test_what_has_no_errors_or_no_order_is_not_a_number():
    flat, zeros = c.Ranking.of(np.ones(5)), np.zeros(5)
    assert math.isnan(c.ause(flat, zeros)) and math.isnan(c.spearman(flat, flat))
    nothing = c.Ranking.of(np.zeros(0))
    assert math.isnan(c.ause(nothing, zeros[:0])) and math.isnan(c.spearman(nothing, nothing))
    # Without an order: all wrong pixels stay evenly mixed in.
    error = np.repeat([0.0, 1.0], [90, 10])
    best = sum(max(0, 10 - k) / (100 - k) / 0.1 for k in range(1, 100))
    assert c.ause(c.Ranking.of(np.ones(100)), error) == pytest.approx((99 - best) / 100)


def test_doubt_is_one_minus_the_largest_probability_and_keeps_sure_pixels_apart(monkeypatch):
    torch.manual_seed(0)
    logits = torch.randn(7, 5, 6) * 4
    expected = 1 - logits.double().softmax(0).amax(0)
    torch.testing.assert_close(c.doubt(logits), expected)
    monkeypatch.setattr(c, "_BAND", 1)  # row by row
    torch.testing.assert_close(c.doubt(logits), expected)
    sure = c.doubt(torch.tensor([[[60.0, 61.0]], [[0.0, 0.0]]]))
    assert 0 < sure[0, 1] < sure[0, 0] < 1e-20
    assert c.doubt(torch.zeros(4, 1, 1)).item() == 0.75


def image(rng, size=50, sure=True):
    error = (rng.random(size) < 0.3).astype(float)
    spread = rng.random(size) + error
    return c.image_calibration(
        error, {"confidence": rng.random(size) if sure else None, "dispersion": spread}
    )


def test_resamples_are_figures_of_the_drawn_images():
    rng = np.random.default_rng(1)
    images = [image(rng) for _ in range(4)]
    images[2] = c.image_calibration(np.zeros(30), {"confidence": rng.random(30)})  # all right
    counts = np.array([[2, 0, 1, 1], [0, 1, 3, 0]])
    found = Calibration(images)
    for row in counts:
        drawn = Calibration([image for image, n in zip(images, row) for _ in range(n)])
        for name, value in drawn.figures().items():
            resampled = found.resampled(name, row[None])
            np.testing.assert_allclose(resampled, [value], rtol=1e-12, err_msg=name)
    assert set(found.figures()) == {name for name in FIGURES if not name.endswith("_depth")}


def test_gains_are_positive_where_better_and_need_both_rows():
    rng = np.random.default_rng(2)
    plain, other = ([image(rng, sure=True) for _ in range(5)] for _ in range(2))
    for one in plain:
        one.figures = {k: v for k, v in one.figures.items() if k.endswith("confidence")}
    (first, second, none), controls = calibrated(
        [Calibration(plain), Calibration(other), None], [0], resamples=200
    )
    assert none is None and set(controls.values()) == {0}
    for name, sign in (("ECE", -1), ("AUSE_confidence", -1), ("correlation_confidence", 1)):
        gained, before = second.figures[name], first.figures[name].value
        assert gained.gain == pytest.approx(sign * (gained.value - before))
        low, high = gained.gain_interval
        assert low <= high and first.figures[name].gain_interval == (0, 0)
    assert "AUSE_dispersion" not in first.figures and not first.added
    assert math.isnan(second.figures["AUSE_dispersion"].gain)
    assert second.figures["AUSE_dispersion"].gain_interval is None
    gain, (low, high) = second.added["AUSE_dispersion_over_confidence"]
    values = {name: one.value for name, one in second.figures.items()}
    assert gain == pytest.approx(values["AUSE_confidence"] - values["AUSE_dispersion"])
    assert low <= gain <= high and gain > 0  # by construction
