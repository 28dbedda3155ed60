"""Tables and JSON of metrics in percent, word for word: what other metrics need must not show."""

from __future__ import annotations

import math

import numpy as np

from srt_plugins.evaluation.figure import MainFigure
from srt_plugins.evaluation.gains import compare
from srt_plugins.evaluation.metrics import MeanIoU, Reported
from srt_plugins.evaluation.report import markdown
from srt_plugins.evaluation.results import Comparison, Measured
from srt_plugins.evaluation.rows import Row, settings_of

ROWS = (
    Row("plain", "plain", "plain"),
    Row("1x smoothing", "control", "srt", 1, settings_of({"views": [(0, 0)], "smooth": 3})),
    Row("SRT 4 views", "srt", "srt", 4, settings_of({})),
    Row("flip TTA", "other", "flip", 2),
)
# Of 100 pixels of each of 2 classes the right ones, per row and image.
RIGHT = (
    [[50, 60], [70, 80], [40, 30]],
    [[52, 60], [71, 82], [41, 33]],
    [[56, 64], [72, 83], [44, 36]],
    [[60, 66], [76, 85], [46, 38]],
)
BOX = MainFigure("bbox/AP", "box AP", beside=("bbox/AP50",))
MASK = MainFigure("segm/AP", "mask AP", beside=("segm/AP50",))
AP = ((30.0, 20.0), (29.0, 21.0), (33.0, 22.0), (31.0, 23.0))

SEGMENTATION = """\
# t

Best 1x control: smoothing: +1.50. SRT 4 views adds +2.67 [+1.67, +4.00] beyond it. Ahead of SRT \
here: flip TTA (+6.83 over plain).

3 images; mIoU in percent; 95 % intervals over images:

| row | views | mIoU | gain over plain | over best 1x | s/image | FLOPs | memory |
| --- | --- | --- | --- | --- | --- | --- | --- |
| plain | 1 | 55.00 |  | -1.50 [-2.00, -1.00] | 0.100 (x1.0) | 1 G (x1.0) | 1 MiB |
| 1x smoothing | 1 | 56.50 | +1.50 [+1.00, +2.00] | (best 1x) | 0.100 (x1.0) | 1 G (x1.0) | 1 MiB |
| SRT 4 views | 4 | 59.17 | +4.17 [+3.33, +5.00] | +2.67 [+1.67, +4.00] | 0.100 (x1.0) | 4 G \
(x4.0) | 1 MiB |
| flip TTA | 2 | 61.83 | +6.83 [+6.00, +8.00] | +5.33 [+4.33, +7.00] | 0.100 (x1.0) | 2 G (x2.0) \
| 1 MiB |

- Best 1x: 1x smoothing, the best of the rows that cost one forward, chosen by mIoU on all of \
these images and held fixed in the resamples.
- s/image: median, the model alone. Memory: peak, resident in this process.
"""

DETECTION = """\
# t

box AP: No 1x control beats the plain model. SRT 4 views: +3.00 beyond it; no interval.

mask AP: Best 1x control: smoothing: +1.00. SRT 4 views: +1.00 beyond it; no interval. Ahead of \
SRT here: flip TTA (+3.00 over plain).

3 images; box AP in percent; 95 % intervals over images:

| row | views | box AP | gain over plain | over best 1x | s/image | data s | FLOPs | memory |
| --- | --- | --- | --- | --- | --- | --- | --- | --- |
| plain | 1 | 30.00 |  | (best 1x) | 0.200 (x1.0) | 0.010 | 1 G (x1.0) |  |
| 1x smoothing | 1 | 29.00 | -1.00 | -1.00 | 0.200 (x1.0) | 0.010 | 1 G (x1.0) |  |
| SRT 4 views | 4 | 33.00 | +3.00 | +3.00 | 0.200 (x1.0) | 0.010 | 4 G (x4.0) |  |
| flip TTA | 2 | 31.00 | +1.00 | +1.00 | 0.200 (x1.0) | 0.010 | 2 G (x2.0) |  |

box AP in percent:

| row | box AP | AP50 |
| --- | --- | --- |
| plain | 30.00 | 50.00 |
| 1x smoothing | 29.00 | 49.00 |
| SRT 4 views | 33.00 | 53.00 |
| flip TTA | 31.00 | 51.00 |

mask AP in percent:

| row | mask AP | gain over plain | over best 1x | AP50 |
| --- | --- | --- | --- | --- |
| plain | 20.00 |  | -1.00 | - |
| 1x smoothing | 21.00 | +1.00 | (best 1x) | - |
| SRT 4 views | 22.00 | +2.00 | +1.00 | - |
| flip TTA | 23.00 | +3.00 | +2.00 | - |

- Best 1x: plain, the best of the rows that cost one forward, chosen by box AP on all of \
these images and held fixed in the resamples.
- s/image: median, the model alone. data s: the same, beside the model. Memory: peak, resident in \
this process.
"""


def segmentation() -> Comparison:
    measured = []
    for row, right in zip(ROWS, RIGHT):
        counts, full = np.array(right, float), np.full((3, 2), 100.0)
        areas = np.stack([counts, full, counts, full], 1)
        metrics = [MeanIoU(areas, ["a", "b"])]
        measured.append(
            Measured(row, metrics, {"mIoU": 1.0}, [0.1] * 3, 10**9 * row.views, 1 << 20)
        )
    return _found(measured)


def detection() -> Comparison:
    measured = []
    for row, (box, mask) in zip(ROWS, AP):
        metrics = [
            Reported(BOX, 3, {"bbox/AP": box, "bbox/AP50": box + 20}),
            Reported(
                MASK,
                3,
                {"segm/AP": mask, "segm/AP50": math.nan},
                {"segm/AP per class": {"a": mask}},
            ),
        ]
        seconds = {"data": [0.01] * 3}
        measured.append(
            Measured(row, metrics, {}, [0.2] * 3, 10**9 * row.views, other_seconds=seconds)
        )
    return _found(measured)


def _found(measured: list) -> Comparison:
    found = compare(measured, ["a", "b"], resamples=50)
    found.context = {"peak_memory_is": "resident in this process"}
    return found


def test_markdown_of_segmentation():
    assert markdown(segmentation(), "t") == SEGMENTATION


def test_markdown_of_detection():
    assert markdown(detection(), "t") == DETECTION


def test_json_of_segmentation():
    found = segmentation().to_dict()
    assert list(found) == [
        *("peak_memory_is", "images", "metric", "best_1x_control", "conclusion", "notes", "rows")
    ]
    assert (found["metric"], found["best_1x_control"]) == ("mIoU", "1x smoothing")
    assert found["rows"][0] == {
        "name": "plain",
        "kind": "plain",
        "views": 1,
        "settings": None,
        "complete": None,
        "mIoU": 55.0,
        "mAcc": 55.0,
        "aAcc": 55.0,
        "reported": {"mIoU": 1.0},
        "seconds_per_image": 0.1,
        "seconds_ratio": 1.0,
        "flops": 10**9,
        "flops_ratio": 1.0,
        "peak_memory": 1 << 20,
        "gain": 0.0,
        "gain_interval": [0.0, 0.0],
        "gain_over_control": -1.5,
        "gain_over_control_interval": [-2.0, -1.0],
        "IoU": {"a": 160 / 3, "b": 170 / 3},
    }


def test_json_of_detection():
    found = detection().to_dict()
    assert list(found) == [
        *("peak_memory_is", "images", "metric", "best_1x_control", "best_1x_controls"),
        *("conclusion", "notes", "rows"),
    ]
    assert found["best_1x_controls"] == {"bbox/AP": "plain", "segm/AP": "1x smoothing"}
    of_boxes = {
        "gain": -1.0,
        "gain_interval": None,
        "gain_over_control": -1.0,
        "gain_over_control_interval": None,
    }
    of_masks = {**of_boxes, "gain": 1.0, "gain_over_control": 0.0}
    row = found["rows"][1]
    assert row.pop("settings")["smooth"] == 3
    assert row == {
        "name": "1x smoothing",
        "kind": "control",
        "views": 1,
        "complete": None,
        "bbox/AP": 29.0,
        "bbox/AP50": 49.0,
        "segm/AP": 21.0,
        "segm/AP50": None,
        "reported": {},
        "seconds_per_image": 0.2,
        "seconds_ratio": 1.0,
        "flops": 10**9,
        "flops_ratio": 1.0,
        "peak_memory": None,
        "data_seconds_per_image": 0.01,
        **of_boxes,
        "gains": {"bbox/AP": of_boxes, "segm/AP": of_masks},
        "segm/AP per class": {"a": 21.0},
    }
