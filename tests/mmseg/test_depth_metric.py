"""MMSegmentation's DepthMetric against loops, with the crop and range of DINOv2's depth tables."""

from __future__ import annotations

import math

import pytest
import torch
from mmseg.registry import METRICS

NAMES = ("d1", "d2", "d3", "abs_rel", "sq_rel", "rmse", "rmse_log", "log10")
SIZE = (49, 47)  # the Eigen crop leaves rows 45 to 48 and columns 41 to 46
CROP = (45, 471, 41, 601)


def by_loop(pairs, low, high, crop):
    """Each error as a mean over pixels, then over images."""
    top, bottom, left, right = crop or (0, SIZE[0], 0, SIZE[1])
    sums = dict.fromkeys(NAMES, 0.0)
    for found, truth in pairs:
        own, count = dict.fromkeys(NAMES, 0.0), 0
        for y in range(max(top, 0), min(bottom, SIZE[0])):
            for x in range(max(left, 0), min(right, SIZE[1])):
                d, t = found[y, x].item(), truth[y, x].item()
                if not low < t < high:
                    continue
                count += 1
                ratio = max(d / t, t / d)
                for i in (1, 2, 3):
                    own[f"d{i}"] += ratio < 1.25**i
                own["abs_rel"] += abs(d - t) / t
                own["sq_rel"] += (d - t) ** 2 / t
                own["rmse"] += (d - t) ** 2
                own["rmse_log"] += (math.log(d) - math.log(t)) ** 2
                own["log10"] += abs(math.log10(d) - math.log10(t))
        assert count > 1
        for name in NAMES:
            mean = own[name] / count
            sums[name] += math.sqrt(mean) if name.startswith("rmse") else mean
    return {name: total / len(pairs) for name, total in sums.items()}


@pytest.mark.parametrize("crop", [None, CROP])
def test_errors_are_means_over_valid_pixels_then_over_images(crop):
    generator = torch.Generator().manual_seed(0)
    pairs = []
    for spread in (0.1, 0.3, 0.6):
        truth = torch.rand(SIZE, generator=generator) * 12
        truth[:, ::5] = 0  # no depth there
        noise = torch.randn(SIZE, generator=generator) * spread
        pairs.append(((truth.clamp(min=0.1) * noise.exp()).clamp(0.001, 10), truth))
    metric = METRICS.build(
        dict(
            type="DepthMetric",
            min_depth_eval=0.001,
            max_depth_eval=10.0,
            crop_type="nyu_crop" if crop else None,
            prefix="depth",
        )
    )
    for found, truth in pairs:
        one = {"pred_depth_map": {"data": found[None]}, "gt_depth_map": {"data": truth[None]}}
        metric.process({}, [one])
    result = metric.evaluate(len(pairs))
    for name, expected in by_loop(pairs, 0.001, 10.0, crop).items():
        assert result[f"depth/{name}"] == pytest.approx(expected, rel=1e-5), name
