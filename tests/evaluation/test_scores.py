"""Scores and intervals against MMSegmentation and against plain loops."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from srt_plugins.errors import ConfigError
from srt_plugins.evaluation.bootstrap import draw, interval, resampled_miou
from srt_plugins.evaluation.scores import class_iou, mean_iou, scores, stack_areas


def random_areas(images: int = 7, classes: int = 5, seed: int = 0) -> np.ndarray:
    """Consistent counts; class 3 is in one image only, class 4 is nowhere."""
    rng = np.random.default_rng(seed)
    label = rng.integers(0, 50, (images, classes)).astype(float)
    label[:, 4] = 0
    label[1:, 3] = 0
    intersect = np.floor(label * rng.random((images, classes)))
    predicted = intersect + rng.integers(0, 20, (images, classes)) * (label > 0)
    return np.stack([intersect, predicted + label - intersect, predicted, label], 1)


@pytest.mark.parametrize("nan_to_num", [None, 0])
def test_scores_are_those_of_mmsegmentation(nan_to_num):
    from srt_plugins.evaluation.mmseg_config import import_mmseg

    import_mmseg()
    from mmseg.evaluation import IoUMetric

    totals = random_areas().sum(0)
    parts = [torch.tensor(part) for part in totals]
    theirs = IoUMetric.total_area_to_metrics(*parts, metrics=["mIoU"], nan_to_num=nan_to_num)
    ours = scores(totals, nan_to_num)
    np.testing.assert_allclose(class_iou(totals, nan_to_num), 100 * theirs["IoU"])
    assert ours["mIoU"] == pytest.approx(100 * np.nanmean(theirs["IoU"]))
    assert ours["mAcc"] == pytest.approx(100 * np.nanmean(theirs["Acc"]))
    assert ours["aAcc"] == pytest.approx(100 * float(theirs["aAcc"]))


def slow_miou(areas: np.ndarray, chosen: list[int]) -> float:
    ious = []
    for k in range(areas.shape[2]):
        intersect = sum(areas[i][0][k] for i in chosen)
        union = sum(areas[i][1][k] for i in chosen)
        if union > 0:
            ious.append(100 * intersect / union)
    return sum(ious) / len(ious)


def test_bootstrap_is_a_loop_over_resamples():
    plain, row = random_areas(seed=1), random_areas(seed=2)
    counts = draw(len(plain), 60, seed=3)
    assert (counts.sum(1) == len(plain)).all()
    slow = {"plain": [], "row": []}
    for resample in counts:
        chosen = [i for i, n in enumerate(resample) for _ in range(n)]
        slow["plain"].append(slow_miou(plain, chosen))
        slow["row"].append(slow_miou(row, chosen))
    np.testing.assert_allclose(resampled_miou(plain, counts), slow["plain"])
    gains = sorted(r - p for r, p in zip(slow["row"], slow["plain"]))
    low, high = interval(resampled_miou(row, counts), resampled_miou(plain, counts))
    # np.percentile's linear interpolation, by hand.
    for bound, share in ((low, 0.025), (high, 0.975)):
        position = share * (len(gains) - 1)
        left = int(position)
        by_hand = gains[left] + (position - left) * (gains[left + 1] - gains[left])
        assert bound == pytest.approx(by_hand)
    assert low < high


def test_bootstrap_in_blocks(monkeypatch):
    from srt_plugins.evaluation import bootstrap

    areas, counts = random_areas(), draw(7, 50)
    whole = resampled_miou(areas, counts)
    monkeypatch.setattr(bootstrap, "_BLOCK", 60)
    np.testing.assert_allclose(resampled_miou(areas, counts), whole, rtol=1e-12)


def test_bootstrap_depends_on_the_seed_only():
    assert (draw(9, 20, seed=1) == draw(9, 20, seed=1)).all()
    assert (draw(9, 20, seed=1) != draw(9, 20, seed=2)).any()


def test_interval_covers_what_it_says():
    """Of 95 % intervals of a mean gain of 1, about 95 in 100 hold 1."""
    rng = np.random.default_rng(0)
    held = 0
    for trial in range(120):
        base = rng.integers(300, 600, (60, 1, 1)).astype(float)
        better = base + 10 + rng.normal(0, 25, (60, 1, 1))
        areas = [np.concatenate([a, np.full_like(a, 1000.0), a, a], 1) for a in (base, better)]
        counts = draw(60, 400, seed=trial)
        low, high = interval(resampled_miou(areas[1], counts), resampled_miou(areas[0], counts))
        held += low <= 1 <= high
    assert 105 <= held <= 120


def test_a_resample_without_labels_has_no_interval():
    areas = np.zeros((3, 4, 2))
    areas[0] = 1
    counts = np.array([[0, 3, 0], [1, 1, 1]])
    values = resampled_miou(areas, counts)
    assert np.isnan(values[0]) and values[1] == 100
    assert interval(values, values) is None


def test_other_results_are_refused():
    with pytest.raises(ConfigError, match="IoUMetric"):
        stack_areas([(torch.ones(3), torch.ones(3))])
    with pytest.raises(ConfigError, match="IoUMetric"):
        stack_areas([])


def test_mean_iou_leaves_absent_classes_out():
    totals = np.array([[5.0, 0], [10, 0], [5, 0], [10, 0]])
    assert mean_iou(totals) == 50
    assert mean_iou(totals, nan_to_num=0) == 25
