"""Predictions over images, against loops over pixels."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from srt_plugins.errors import ConfigError
from srt_plugins.visualize import overlay
from srt_plugins.visualize.colours import UNKNOWN, heat
from srt_plugins.visualize.colours import palette as distinct

_PALETTE = np.array([[200, 0, 0], [0, 200, 0], [0, 0, 200], [240, 240, 0]], np.uint8)


def _image(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (height, width, 3), np.uint8)


def _labels(height: int, width: int, seed: int = 0, count: int = 4) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, count, (height, width))


def _under(y: int, size: int, given: int) -> int:
    """The row of ``given`` in which the middle of row ``y`` of ``size`` lies."""
    return int((y + 0.5) * given / size)


@pytest.mark.parametrize("shape", [(12, 15), (6, 5), (24, 31), (1, 1)])
@pytest.mark.parametrize("dtype", [np.uint8, np.int64, np.int32])
def test_classes(shape: tuple[int, int], dtype: type) -> None:
    image, labels = _image(12, 15), _labels(*shape).astype(dtype)
    labels[0, 0] = 255 if shape != (1, 1) else 2
    got = overlay.classes(image, labels, _PALETTE, alpha=0.5)
    fitted = np.zeros((12, 15), int)
    for y, x in itertools.product(range(12), range(15)):
        fitted[y, x] = labels[_under(y, 12, shape[0]), _under(x, 15, shape[1])]
    for y, x in itertools.product(range(12), range(15)):
        label = fitted[y, x]
        border = (x < 14 and fitted[y, x + 1] != label) or (y < 11 and fitted[y + 1, x] != label)
        share = 0.0 if label == 255 else 1.0 if border else 0.5
        colour = _PALETTE[label] if label != 255 else np.zeros(3)
        want = (1 - share) * image[y, x] + share * colour
        assert np.abs(got[y, x] - want).max() <= 1


def test_classes_without_a_palette_and_beyond_it() -> None:
    image, labels = _image(4, 6), np.full((4, 6), 3)
    labels[:, 3:] = 255
    got = overlay.classes(image, labels, alpha=1)
    assert (got[:, :3] == distinct(4)[3]).all() and np.array_equal(got[:, 3:], image[:, 3:])
    labels[:, 3:] = -1
    assert np.array_equal(overlay.classes(image, labels, _PALETTE[:3]), image)
    assert np.array_equal(overlay.classes(image, np.full((4, 6), 255)), image)


def test_what_classes_refuses() -> None:
    image = _image(4, 6)
    with pytest.raises(ConfigError, match="integers, got float64"):
        overlay.classes(image, np.zeros((4, 6)))
    with pytest.raises(ConfigError, match=r"got int64 \(4, 6, 1\)"):
        overlay.classes(image, np.zeros((4, 6, 1), np.int64))
    with pytest.raises(ConfigError, match="alpha within 0..1, got 2"):
        overlay.classes(image, np.zeros((4, 6), int), alpha=2)
    with pytest.raises(ConfigError, match=r"palette \(n, 3\), got \(3, 4\)"):
        overlay.classes(image, np.zeros((4, 6), int), np.zeros((3, 4)))


def test_the_legend_names_what_is_there_largest_first() -> None:
    labels = np.array([[1, 1, 1, 0], [5, 1, 255, 0]])
    key = overlay.key_of(labels, ["sky", "road"], distinct(6))
    assert [name for name, _ in key.entries] == ["road", "sky", "class 5"]
    assert [list(c) for _, c in key.entries] == distinct(6)[[1, 0, 5]].tolist()
    # Classes of either map; without names and colours too.
    both = overlay.key_of([labels, np.full((9, 9), 2)], None)
    assert [name for name, _ in both.entries] == ["class 2", "class 1", "class 0", "class 5"]
    many = overlay.key_of(np.arange(40)[None], [f"c{i}" for i in range(40)], most=5)
    assert [name for name, _ in many.entries] == ["c0", "c1", "c2", "c3", "36 more"]
    assert overlay.key_of(np.full((2, 2), 255), ["sky"]).entries == ()


def test_changed() -> None:
    image, before, after = _image(20, 30), _labels(20, 30, 0), _labels(10, 15, 1)
    picture, share = overlay.changed(image, before, after)
    coloured, same_share = overlay.changed(image, before, after, _PALETTE)
    count = 0
    for y, x in itertools.product(range(20), range(30)):
        label = after[y // 2, x // 2]
        if before[y, x] != label:
            count += 1
            assert tuple(picture[y, x]) == overlay.CHANGED
            assert (coloured[y, x] == _PALETTE[label]).all()
        else:
            # A light grey.
            assert len({*picture[y, x].tolist()}) == 1 and picture[y, x, 0] >= 149
            assert (coloured[y, x] == picture[y, x]).all()
    assert share == same_share == pytest.approx(count / 600)
    assert overlay.changed(image, before, before)[1] == 0


def test_against_truth() -> None:
    image, truth = _image(20, 30), _labels(20, 30, 2)
    before, after = _labels(20, 30, 0), _labels(20, 30, 1)
    truth[:, :7] = 255
    found = overlay.against_truth(image, before, after, truth)
    counts = {"gained": 0, "lost": 0, "both": 0}
    pale = overlay.pale(image)
    for y, x in itertools.product(range(20), range(30)):
        b, a, t = before[y, x], after[y, x], truth[y, x]
        pixel = tuple(found.picture[y, x])
        if t == 255 or b == a:
            assert pixel == tuple(pale[y, x])
        elif a == t:
            counts["gained"] += 1
            assert pixel == overlay.GAINED
        elif b == t:
            counts["lost"] += 1
            assert pixel == overlay.LOST
        else:
            counts["both"] += 1
            assert pixel == overlay.BOTH_WRONG
    shares = [found.gained, found.lost, found.both_wrong]
    assert shares == pytest.approx([n / (20 * 23) for n in counts.values()])
    assert found.share == pytest.approx(sum(shares)) and len(found.key.entries) == 3
    nothing = overlay.against_truth(image, before, after, np.full((20, 30), 255))
    assert nothing.share == 0


def test_depths_share_their_colours() -> None:
    before = np.linspace(2, 10, 600).reshape(20, 30)
    after = before + np.where(np.arange(30) < 15, 1.5, -1.5)
    before[0, 0], after[0, 1] = np.nan, np.inf
    made = overlay.depths(before, after)
    low, high = made.scale.low, made.scale.high
    assert low < 2.2 and 9.8 < high <= 11.5
    assert np.array_equal(made.before, heat(before, low, high, made.scale.name))
    assert np.array_equal(made.after, heat(after, low, high, made.scale.name))
    # Near is bright.
    assert made.before[0, 5].sum() > made.before[19, 5].sum() + 300
    assert (made.difference[0, :2] == UNKNOWN).all()
    assert (made.before[0, 0] == UNKNOWN).all() and (made.after[0, 1] == UNKNOWN).all()
    # Farther is red, nearer is blue.
    left, right = made.difference[10, 3].astype(int), made.difference[10, 25].astype(int)
    assert left[0] > left[2] and right[2] > right[0]
    assert (made.signed_scale.low, made.signed_scale.high) == pytest.approx((-1.5, 1.5))


def test_difference() -> None:
    picture, limit = overlay.difference(np.zeros((2, 3), np.float16), np.ones((2, 3)), limit=2)
    assert limit == 2 and picture.shape == (2, 3, 3)
    equal, limit = overlay.difference(np.ones((2, 3)), np.ones((2, 3)))
    assert limit == 0 and equal.min() > 235
    with pytest.raises(ConfigError, match=r"of one size, got \(2, 3\) and \(3, 2\)"):
        overlay.difference(np.ones((2, 3)), np.ones((3, 2)))


def test_instances() -> None:
    image = np.full((200, 300, 3), 100, np.uint8)
    masks = np.zeros((2, 200, 300), bool)
    masks[0, 60:120, 40:100] = True
    boxes = [[40, 60, 100, 120], [180, 90, 280, 180]]
    got = overlay.instances(
        image, np.array(boxes), [1, 2], [0.9, 0.8], ["a", "car", "dog"], masks, _PALETTE, alpha=0.5
    )
    assert not (image != 100).any()
    # Half the colour inside the mask, all of it on the frame, nothing elsewhere.
    assert np.abs(got[90, 70] - np.array([50, 150, 50])).max() <= 1
    for y, x in ((90, 40), (120, 60), (90, 100)):
        assert got[y, x].tolist() == [0, 200, 0]
    assert got[140, 180].tolist() == [0, 0, 200]
    assert got[150, 230].tolist() == [100] * 3 and got[190, 10].tolist() == [100] * 3
    # Tags above the boxes, in their colours, with text on them.
    for top, left, colour in ((60, 40, [0, 200, 0]), (90, 180, [0, 0, 200])):
        tag = got[top - 12 : top - 2, left : left + 50].reshape(-1, 3).astype(int)
        assert (np.abs(tag - colour).max(1) == 0).mean() > 0.3
        assert (np.abs(tag - colour).max(1) > 100).mean() > 0.05


def test_masks_have_a_rim_in_their_own_colour() -> None:
    image = np.full((80, 80, 3), 100, np.uint8)
    mask = np.random.default_rng(0).random((80, 80)) < 0.8
    mask[:40] = mask[:, 70:] = False
    # The box and its tag are in the upper half.
    got = overlay.instances(
        image, [[2, 20, 30, 30]], [1], None, None, mask[None], _PALETTE, alpha=0.25
    )
    for y, x in itertools.product(range(40, 80), range(80)):
        beside = [(y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1)]
        inner = all(v < 80 and w < 80 and w >= 0 and mask[v, w] for v, w in beside)
        share = 0 if not mask[y, x] else 0.25 if inner else 1
        want = (1 - share) * 100 + share * _PALETTE[1]
        assert np.abs(got[y, x] - want).max() <= 1


def test_tags_do_not_cover_each_other() -> None:
    image = np.full((300, 300, 3), 100, np.uint8)
    boxes = np.tile([[100.0, 100, 200, 200]], (4, 1)) + np.arange(4)[:, None]
    got = overlay.instances(image, boxes, [0, 1, 2, 3], [0.9, 0.8, 0.7, 0.6], None, None, _PALETTE)
    alone = [
        overlay.instances(image, boxes[i : i + 1], [i], [0.9], None, None, _PALETTE)
        for i in range(4)
    ]
    for i, one in enumerate(alone):
        # As much of each tag is seen as when it is alone; frames may cover a little.
        shown = [(p == _PALETTE[i]).all(2).sum() for p in (got, one)]
        assert shown[0] > 0.6 * shown[1]


def test_the_surest_is_on_top() -> None:
    image = np.zeros((60, 60, 3), np.uint8)
    masks = np.ones((2, 60, 60), bool)
    boxes = np.array([[0, 0, 59, 59]] * 2)
    for scores, top in (([0.9, 0.2], 0), ([0.2, 0.9], 1)):
        got = overlay.instances(image, boxes, [0, 1], scores, None, masks, _PALETTE, alpha=1)
        assert (got[30, 30] == _PALETTE[top]).all()


def test_where_tags_must_overlap_that_of_the_surest_is_on_top() -> None:
    # No room for a second line of text.
    image, boxes = np.zeros((14, 200, 3), np.uint8), [[0, 0, 199, 13]] * 2
    for scores, top in (([0.9, 0.2], 0), ([0.2, 0.9], 1)):
        got = overlay.instances(image, boxes, [0, 1], scores, ["a", "a"], None, _PALETTE)
        seen = [int((got[2:-2, 2:-2] == _PALETTE[i]).all(2).sum()) for i in range(2)]
        assert seen[top] > 100 and seen[1 - top] == 0


def test_instances_at_the_edge_and_without_anything() -> None:
    image = _image(50, 40)
    assert np.array_equal(overlay.instances(image, np.zeros((0, 4)), []), image)
    assert np.array_equal(
        overlay.instances(image, [], [], [], ["a"], np.zeros((0, 50, 40), bool)), image
    )
    odd = [[-30, -30, 500, 500], [60, 70, 90, 90], [30, 40, 10, 10], [np.nan] * 4, [5, 5, 5, 5]]
    got = overlay.instances(image, np.array(odd), range(5), [0.5] * 5, ["one"])
    assert got.shape == image.shape and (got[0] != image[0]).any()
    # Masks of another size are brought to that of the image.
    half = np.zeros((1, 25, 20), bool)
    half[0, :, :10] = True
    got = overlay.instances(image, [[0, 0, 39, 49]], [0], None, None, half, _PALETTE, alpha=1)
    assert (got[30, 5:17] == _PALETTE[0]).all() and np.array_equal(got[30, 24:36], image[30, 24:36])


def test_what_instances_refuses() -> None:
    image, boxes = _image(9, 9), np.zeros((2, 4))
    with pytest.raises(ConfigError, match="labels for each of 2 boxes, got 1"):
        overlay.instances(image, boxes, [0])
    with pytest.raises(ConfigError, match="scores for each of 2 boxes, got 3"):
        overlay.instances(image, boxes, [0, 1], [1, 1, 1])
    with pytest.raises(ConfigError, match="masks for each of 2 boxes, got 1"):
        overlay.instances(image, boxes, [0, 1], masks=np.zeros((1, 9, 9), bool))
    with pytest.raises(ConfigError, match=r"boxes \(N, 4\), got \(2, 3\)"):
        overlay.instances(image, np.zeros((2, 3)), [0, 1])
