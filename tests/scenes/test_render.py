"""Rendered scenes: repeatable, and image, labels, depth and instances tell one story."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from srt_plugins.errors import ConfigError
from srt_plugins.scenes import CLASSES, PALETTE, SPLIT_SEEDS, THING_CLASSES, Scenes, render

ROOT = Path(__file__).resolve().parents[2]
SIZE = (120, 184)
SEED = 11
SKY, ROAD, TERRAIN = (CLASSES.index(c) for c in ("sky", "road", "terrain"))


@pytest.fixture(scope="module")
def scenes():
    return [render(SEED, i, SIZE) for i in range(24)]


def digest(scene) -> str:
    arrays = (scene.image, scene.labels, scene.depth, scene.boxes, scene.masks, scene.classes)
    return hashlib.sha256(b"".join(a.tobytes() for a in arrays)).hexdigest()


def test_same_arguments_give_the_same_bytes_whatever_ran_before(scenes):
    np.random.seed(1)
    np.random.rand(5)
    state = np.random.get_state()[1].copy()
    render(99, 3, (64, 64))
    for i in (7, 0, 3):
        assert digest(render(SEED, i, SIZE)) == digest(scenes[i])
    np.testing.assert_array_equal(np.random.get_state()[1], state)


def test_another_process_gives_the_same_bytes(scenes):
    code = (
        "import hashlib, sys; from srt_plugins.scenes import render;"
        f"s = render({SEED}, 5, {SIZE});"
        "print(hashlib.sha256(b''.join(a.tobytes() for a in"
        " (s.image, s.labels, s.depth, s.boxes, s.masks, s.classes))).hexdigest())"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.split()[-1] == digest(scenes[5])


def test_scenes_splits_and_seeds_differ(scenes):
    assert len({digest(s) for s in scenes}) == len(scenes)
    assert len(set(SPLIT_SEEDS.values())) == 3
    firsts = [render(seed, i, (48, 64)).image.tobytes() for seed in range(4) for i in range(4)]
    assert len(set(firsts)) == len(firsts)


def test_shapes_and_dtypes(scenes):
    for s in scenes:
        n = len(s.classes)
        assert s.image.shape == (*SIZE, 3) and s.image.dtype == np.uint8
        assert s.labels.shape == SIZE and s.labels.dtype == np.uint8
        assert s.depth.shape == SIZE and s.depth.dtype == np.float32
        assert s.boxes.shape == (n, 4) and s.boxes.dtype == np.float32
        assert s.masks.shape == (n, *SIZE) and s.masks.dtype == bool
        assert s.classes.shape == (n,) and s.classes.dtype == np.int64
    empty = [s for s in (render(SEED, i, (32, 32)) for i in range(60)) if len(s.classes) == 0]
    assert empty and empty[0].masks.shape == (0, 32, 32) and empty[0].boxes.shape == (0, 4)


def test_every_class_occurs_and_nothing_else(scenes):
    share = np.zeros(256)
    for s in scenes:
        share += np.bincount(s.labels.ravel(), minlength=256)
    share /= share.sum()
    assert share[len(CLASSES) :].sum() == 0
    assert (share[: len(CLASSES)] > 0.001).all()
    assert share.max() < 0.5
    assert len(PALETTE) == len(set(PALETTE)) == len(CLASSES)
    things = {CLASSES[k] for s in scenes for k in s.classes}
    assert things == set(THING_CLASSES)


def test_depth_is_missing_in_the_sky_and_only_there(scenes):
    for s in scenes:
        np.testing.assert_array_equal(s.depth == 0, s.labels == SKY)
        seen = s.depth[s.labels != SKY]
        assert seen.min() > 0.5 and seen.max() < 400


def test_boxes_are_those_of_the_masks_and_masks_agree_with_labels(scenes):
    for s in scenes:
        assert (s.masks.sum(0) <= 1).all()
        for box, mask, label in zip(s.boxes, s.masks, s.classes):
            assert CLASSES[label] in THING_CLASSES
            assert (s.labels[mask] == label).all()
            where = np.argwhere(mask)
            assert len(where) >= 12
            (y0, x0), (y1, x1) = where.min(0), where.max(0) + 1
            assert box.tolist() == [x0, y0, x1, y1]


def test_no_car_person_or_sign_is_missing_among_the_instances(scenes):
    # Far trees along the horizon are no instances; other objects are unless hardly visible.
    countable = [CLASSES.index(c) for c in ("car", "person", "sign")]
    of_class = [np.isin(s.labels, countable) for s in scenes]
    unlisted = [(c & ~s.masks.any(0)).sum() for s, c in zip(scenes, of_class)]
    assert sum(unlisted) < 0.01 * sum(c.sum() for c in of_class)


def ground_depth(scene):
    """Depth of the ground in each row: 1 / z grows linearly with the row. None if unseen."""
    ground = np.isin(scene.labels, (ROAD, TERRAIN))
    rows = [i for i in range(SIZE[0] * 3 // 4, SIZE[0]) if ground[i].any()]
    if len(rows) < 10:
        return None
    nearness = np.array([1 / scene.depth[i][ground[i]].max() for i in rows])
    slope, offset = np.polyfit(rows, nearness, 1)
    np.testing.assert_allclose(np.polyval((slope, offset), rows), nearness, rtol=2e-3)
    return slope * np.arange(SIZE[0]) + offset


def test_what_covers_the_ground_is_nearer_than_the_ground(scenes):
    feet, people = 0, []
    for s in scenes:
        nearness = ground_depth(s)
        if nearness is None:
            continue
        rows = np.flatnonzero(nearness > 1 / 250)
        # Nothing lies below the ground: every pixel there is the ground or something before it.
        limit = (1 / nearness[rows])[:, None] * 1.003
        assert (s.labels[rows] != SKY).all()
        assert (s.depth[rows] <= limit).all()
        for mask, label in zip(s.masks, s.classes):
            foot = np.flatnonzero(mask.any(1))[-1]
            if CLASSES[label] != "sign" and foot in rows[:-1]:
                # What stands on the ground is at the depth of the ground at its foot, or nearer
                # if its foot is hidden, and never farther.
                here = s.depth[mask]
                assert here.min() * nearness[foot] <= 1.003
                feet += 1
                if CLASSES[label] == "person":
                    people.append(here.min() * nearness[foot])
    assert feet > 15
    assert np.median(people) > 0.95


def test_another_resolution_shows_the_same_scene(scenes):
    agree = []
    for i in range(8):
        large = render(SEED, i, (2 * SIZE[0], 2 * SIZE[1]))
        agree.append((large.labels[::2, ::2] == scenes[i].labels).mean())
    assert np.mean(agree) > 0.9


def test_colour_alone_does_not_give_the_class_away(scenes):
    """The best label for each of 512 colours gets far less right than a model should."""
    counts = np.zeros((512, len(CLASSES)))
    for s in scenes:
        bins = (s.image // 32).astype(int) @ (64, 8, 1)
        np.add.at(counts, (bins.ravel(), s.labels.ravel()), 1)
    # It is fitted to the very pixels it is judged on.
    best = counts.argmax(1)
    hits = counts[np.arange(512), best]
    iou = [
        hits[best == c].sum()
        / (counts[:, c].sum() + (counts[best == c].sum() - hits[best == c].sum()))
        for c in range(len(CLASSES))
    ]
    assert np.mean(iou) < 0.3


def test_scenes_is_a_list_of_renders():
    series = Scenes("val", 3, (48, 64))
    assert len(series) == 3 and len(list(series)) == 3
    assert digest(series[2]) == digest(render(SPLIT_SEEDS["val"], 2, (48, 64)))
    with pytest.raises(IndexError, match=r"0 \.\. 2"):
        series[3]


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda: render(-1, 0), "seed"),
        (lambda: render(0, 2**32), "index"),
        (lambda: render(0, 0, (16, 64)), "size"),
        (lambda: Scenes("dev"), r"split.*'dev'"),
        (lambda: Scenes(length=0), "length"),
    ],
)
def test_errors_name_the_argument(call, match):
    with pytest.raises(ConfigError, match=match):
        call()
