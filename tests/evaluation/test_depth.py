"""Depth errors against loops over pixels, and against MMSegmentation's DepthMetric."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from srt_plugins.errors import ConfigError
from srt_plugins.evaluation.depth import (
    FIGURES,
    NYU,
    DepthProtocol,
    aligned,
    image_errors,
    judged_pixels,
    mean_errors,
    pixel_errors,
)

# Of mmseg's DepthMetric, in the order of FIGURES.
THEIRS = ("rmse", "rmse_log", "abs_rel", "sq_rel", "d1", "d2", "d3")


def maps(size=(480, 640), seed=0, low=0.3, high=12.0):
    """A truth with holes (0) and depths beyond 10 m, and a prediction with errors of every size."""
    rng = np.random.default_rng(seed)
    truth = rng.uniform(low, high, size).astype(np.float32)
    truth[rng.random(size) < 0.1] = 0
    prediction = truth * np.exp(rng.normal(0.1, 0.4, size)) + rng.normal(0, 0.2, size)
    return np.abs(prediction).astype(np.float32) + np.float32(1e-2), truth


def slow_errors(prediction, truth, low=1e-3, high=10.0, crop=True, clamp=True):
    """Pixel by pixel, in Python's floats."""
    rows, columns = (range(45, 471), range(41, 601)) if crop else map(range, truth.shape)
    found = []
    for y in rows:
        for x in columns:
            g, d = float(truth[y, x]), float(prediction[y, x])
            if low < g < high:
                found.append((min(max(d, low), high) if clamp else d, g))
    n = len(found)
    ratios = [max(d / g, g / d) for d, g in found]
    return [
        math.sqrt(math.fsum((d - g) ** 2 for d, g in found) / n),
        math.sqrt(math.fsum((math.log(d) - math.log(g)) ** 2 for d, g in found) / n),
        math.fsum(abs(d - g) / g for d, g in found) / n,
        math.fsum((d - g) ** 2 / g for d, g in found) / n,
        *(sum(r < 1.25**k for r in ratios) / n for k in (1, 2, 3)),
    ]


def theirs(prediction, truth, **settings):
    """What mmseg's DepthMetric reports of one image."""
    from srt_plugins.evaluation.mmseg_config import import_mmseg

    import_mmseg()
    from mmseg.evaluation import DepthMetric

    metric = DepthMetric(**settings)
    sample = {
        "pred_depth_map": {"data": torch.as_tensor(prediction)[None]},
        "gt_depth_map": {"data": torch.as_tensor(truth)[None]},
    }
    metric.process({}, [sample])
    reported = metric.evaluate(1)
    return [reported[name] for name in THEIRS]


def test_errors_on_nyu_are_a_loop_over_its_crop():
    prediction, truth = maps()
    np.testing.assert_allclose(
        image_errors(prediction, truth), slow_errors(prediction, truth), rtol=1e-12
    )


@pytest.mark.parametrize("clamp", [True, False])
def test_errors_of_another_range_and_size(clamp):
    prediction, truth = maps((23, 31), high=90.0)
    protocol = DepthProtocol(min_depth=2, max_depth=60, clamp=clamp)
    expected = slow_errors(prediction, truth, 2, 60, crop=False, clamp=clamp)
    np.testing.assert_allclose(image_errors(prediction, truth, protocol), expected, rtol=1e-12)


def test_clamping_matters_here():
    prediction, truth = maps()
    assert prediction.max() > 10
    free = image_errors(prediction, truth, DepthProtocol(crop="eigen", clamp=False))
    assert free[0] > 1.02 * image_errors(prediction, truth)[0]


@pytest.mark.parametrize("seed", range(3))
def test_mmsegmentation_reports_the_same_of_predictions_in_range(seed):
    prediction, truth = maps(seed=seed)
    prediction = prediction.clip(1e-3, 10)
    settings = dict(min_depth_eval=1e-3, max_depth_eval=10.0, crop_type="nyu_crop")
    np.testing.assert_allclose(
        theirs(prediction, truth, **settings), image_errors(prediction, truth), rtol=2e-5
    )


def test_mmsegmentation_does_not_clamp():
    prediction, truth = maps()
    settings = dict(min_depth_eval=1e-3, max_depth_eval=10.0, crop_type="nyu_crop")
    found = theirs(prediction, truth, **settings)
    free = DepthProtocol(crop="eigen", clamp=False)
    np.testing.assert_allclose(found, image_errors(prediction, truth, free), rtol=2e-5)
    assert found[0] > 1.02 * image_errors(prediction, truth)[0]


def test_mmsegmentation_counts_negative_depth_as_accurate_and_we_do_not():
    prediction, truth = maps((20, 30), high=9.0)
    prediction[:10] = -5
    found = theirs(prediction, truth, max_depth_eval=10.0)
    ours = image_errors(prediction, truth, DepthProtocol(clamp=False))
    wrong = (truth[:10] > 1e-3).sum() / (truth > 1e-3).sum()
    assert found[4] == pytest.approx(ours[4] + wrong, abs=1e-6)
    assert math.isnan(found[1]) and math.isnan(ours[1])
    np.testing.assert_allclose([found[i] for i in (0, 2, 3)], [ours[i] for i in (0, 2, 3)], 2e-5)


@pytest.mark.parametrize("row", [45, 200, 470])
def test_a_wrong_row_anywhere_in_the_crop_changes_every_error(row):
    prediction, truth = maps()
    right = image_errors(prediction, truth)
    prediction[row] = 0.01
    wrong = image_errors(prediction, truth)
    assert (wrong[:4] > right[:4]).all() and (wrong[4:] < right[4:]).all()


@pytest.mark.parametrize(("row", "column"), [(0, 0), (1, 40), (44, 601), (471, 639)])
def test_rows_and_columns_outside_the_crop_do_not_count(row, column):
    prediction, truth = maps()
    before = image_errors(prediction, truth)
    prediction[row] = prediction[:, column] = 0.01
    assert (image_errors(prediction, truth) == before).all()


def test_judged_pixels_are_strictly_inside_the_range():
    truth = np.array([[0, 0.001, 0.0011], [9.99, 10.0, np.inf], [np.nan, -1, 5]])
    expected = [[False, False, True], [True, False, False], [False, False, True]]
    assert judged_pixels(truth, DepthProtocol()).tolist() == expected


def test_a_perfect_prediction():
    _, truth = maps()
    assert image_errors(truth, truth).tolist() == [0, 0, 0, 0, 1, 1, 1]


def test_an_image_without_judged_pixels_has_no_errors():
    prediction, truth = maps()
    assert np.isnan(image_errors(prediction, np.zeros_like(truth))).all()
    assert np.isnan(list(mean_errors(np.zeros((0, 7))).values())).all()


def test_depth_that_cannot_be():
    errors = pixel_errors(np.array([-1.0, 2.0]), np.array([2.0, 2.0]))
    assert math.isnan(errors[1]) and errors[4:].tolist() == [0.5] * 3
    assert pixel_errors(np.array([0.0, 2.0]), np.array([2.0, 2.0]))[1] == math.inf
    unknown = image_errors(np.array([[np.nan, 2.0]]), np.array([[2.0, 2.0]]), DepthProtocol())
    assert np.isnan(unknown[:4]).all()


def test_median_scaling_undoes_a_scale_and_nothing_else():
    prediction, truth = maps()
    scaled = DepthProtocol(crop="eigen", align="median")
    reference = image_errors(prediction, truth, scaled)
    np.testing.assert_allclose(image_errors(7 * prediction, truth, scaled), reference)
    judged = judged_pixels(truth)
    by_hand = prediction * (np.median(truth[judged]) / np.median(prediction[judged]))
    np.testing.assert_allclose(reference, slow_errors(by_hand, truth), rtol=1e-6)
    assert not np.allclose(image_errors(7 * prediction, truth), image_errors(prediction, truth))


def test_median_scaling_by_nothing_positive_is_not_told():
    assert np.isnan(aligned(np.array([-1.0, -2.0]), np.array([1.0, 2.0]), "median")).all()


@pytest.mark.parametrize("disparity", [False, True])
def test_scale_and_shift_are_the_least_squares_solution(disparity):
    rng = np.random.default_rng(0)
    true = rng.uniform(1, 9, 200)
    target = 1 / true if disparity else true
    relative = 40 * target - 3 + rng.normal(0, 0.1, 200)
    columns = np.stack([relative, np.ones(200)], 1)
    fitted = columns @ np.linalg.lstsq(columns, target, rcond=None)[0]
    found = aligned(relative, true, "scale_shift", disparity)
    np.testing.assert_allclose(found, 1 / fitted if disparity else fitted)


def test_relative_disparity_is_recovered_exactly():
    _, truth = maps((30, 40), low=0.5, high=9)
    with np.errstate(divide="ignore"):
        disparity = 1 / truth.astype(np.float64)
    relative = np.where(truth > 0, 300 * disparity + 20, 0)
    protocol = DepthProtocol(align="scale_shift", disparity=True)
    np.testing.assert_allclose(
        image_errors(relative, truth, protocol), [0, 0, 0, 0, 1, 1, 1], atol=1e-6
    )


def test_disparity_that_is_not_positive_is_far():
    found = aligned(np.array([0.5, 0.0, -1.0, np.nan]), np.full(4, 2.0), disparity=True)
    assert found[:3].tolist() == [2, math.inf, math.inf] and math.isnan(found[3])
    assert (
        image_errors(np.array([[-1.0]]), np.array([[4.0]]), DepthProtocol(disparity=True))[0] == 6
    )


def test_a_constant_prediction_is_shifted_only():
    assert aligned(np.full(3, 5.0), np.array([1.0, 2, 6]), "scale_shift").tolist() == [3, 3, 3]


def test_means_are_over_images():
    errors = np.arange(14.0).reshape(2, 7)
    assert mean_errors(errors) == {name: 3.5 + i for i, name in enumerate(FIGURES)}


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        (dict(min_depth=10, max_depth=10), "0 <= min_depth < max_depth"),
        (dict(min_depth=-1), "0 <= min_depth"),
        (dict(crop="nyu_crop"), "crop to be None or 'eigen'"),
        (dict(align="mean"), "did you mean 'median'"),
    ],
)
def test_bad_protocols(keywords, message):
    with pytest.raises(ConfigError, match=message):
        DepthProtocol(**keywords)


def test_sizes_that_do_not_fit():
    prediction, truth = maps((48, 64))
    with pytest.raises(ConfigError, match=r"\(480, 640\) with crop='eigen', got \(48, 64\)"):
        image_errors(prediction, truth, NYU)
    with pytest.raises(ConfigError, match="resize the prediction"):
        image_errors(prediction[:, :32], truth)
    with pytest.raises(ConfigError, match=r"depth map \(H, W\), got shape \(1, 48, 64\)"):
        image_errors(prediction[None], truth[None])
