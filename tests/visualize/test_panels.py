"""Strips and sheets, measured in the pictures that come out."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from srt_plugins.errors import ConfigError
from srt_plugins.visualize import panels
from srt_plugins.visualize.colours import Scale
from srt_plugins.visualize.panels import (
    Key,
    Panel,
    legend,
    resize_nearest,
    resize_smooth,
    save_picture,
    sheet,
    strip,
)
from srt_plugins.visualize.text import shortened, text_width, wrapped

_COLOURS = [(250, 0, 0), (0, 200, 0), (0, 0, 250), (200, 200, 0), (200, 0, 200), (0, 200, 200)]


def _plain(height: int, width: int, nth: int = 0) -> np.ndarray:
    return np.full((height, width, 3), _COLOURS[nth], np.uint8)


def _places(page: np.ndarray, nth: int) -> tuple[int, int, int, int]:
    """Top, left, height and width of what has a colour; it must fill them."""
    ys, xs = np.nonzero((page == _COLOURS[nth]).all(2))
    top, left = int(ys.min()), int(xs.min())
    height, width = int(ys.max()) - top + 1, int(xs.max()) - left + 1
    assert len(ys) == height * width
    return top, left, height, width


def _white(page: np.ndarray) -> bool:
    """Whether the outer five pixels are white."""
    edges = (page[:5], page[-5:], page[:, :5], page[:, -5:])
    return all((edge == 255).all() for edge in edges)


def test_a_strip_has_one_height_and_even_gaps() -> None:
    shapes = [(300, 400), (150, 100), (400, 600), (60, 60)]
    page = strip([Panel(_plain(*s, i), f"panel {i}") for i, s in enumerate(shapes)])
    places = [_places(page, i) for i in range(4)]
    tops, lefts, heights, widths = zip(*places)
    assert len({*tops}) == 1 and max(heights) - min(heights) == 0
    for (h, w), (_, _, high, wide) in zip(shapes, places):
        assert wide == pytest.approx(high * w / h, abs=1)
    gaps = [lefts[i + 1] - lefts[i] - widths[i] for i in range(3)]
    assert len({*gaps, lefts[0]}) == 1 and gaps[0] >= 8
    assert page.shape[1] == lefts[3] + widths[3] + gaps[0]
    # The highest panel is as it was.
    assert heights[0] == 400 and page.dtype == np.uint8 and _white(page)


def test_a_picture_of_the_common_height_is_copied() -> None:
    picture = np.random.default_rng(0).integers(0, 256, (250, 330, 3), np.uint8)
    page = strip([Panel(picture), Panel(_plain(100, 100, 1))])
    top, left, height, _ = _places(page, 1)
    assert height == 250
    found = page[top : top + 250, : left - 8]
    assert any(np.array_equal(found[:, i : i + 330], picture) for i in range(left - 337))


@pytest.mark.parametrize("width", [200, 777, 1500])
@pytest.mark.parametrize("columns", [None, 1, 2])
def test_a_given_width_is_kept(width: int, columns: int | None) -> None:
    shapes = [(300, 400), (150, 100), (600, 900)]
    page = strip([Panel(_plain(*s, i), "title") for i, s in enumerate(shapes)], width, columns)
    assert page.shape[1] == width and _white(page)
    for i, (h, w) in enumerate(shapes):
        _, left, high, wide = _places(page, i)
        assert wide == pytest.approx(high * w / h, abs=max(2, w / h)) and left + wide < width


def test_columns_wrap_in_reading_order() -> None:
    page = strip([Panel(_plain(200, 300, i), "t", "note") for i in range(5)], columns=2)
    places = [_places(page, i) for i in range(5)]
    assert places[0][0] == places[1][0] < places[2][0] == places[3][0] < places[4][0]
    assert places[0][1] == places[2][1] == places[4][1] < places[1][1] == places[3][1]
    assert len({p[2:] for p in places}) == 1


@pytest.mark.parametrize("shape", [(100, 9000), (9000, 100), (1, 1), (3000, 4000), (1, 5000)])
def test_pictures_of_extreme_shapes_stay_within_bounds(shape: tuple[int, int]) -> None:
    page = strip([Panel(_plain(*shape), "a"), Panel(_plain(200, 300, 1), "b")])
    assert page.shape[1] <= panels.MOST_WIDTH and 40 < page.shape[0] < 1200
    for i in range(2):
        _places(page, i)


def test_captions_are_there_and_within_their_columns() -> None:
    words = "many words that do not fit above a picture of this width"
    page = strip(
        [Panel(_plain(240, 240, 0), words, words), Panel(_plain(240, 240, 1), "b", "n")], title="T"
    )
    top, left, height, width = _places(page, 0)
    _, other, _, _ = _places(page, 1)
    dark = (page < 140).all(2)
    assert dark[:top, left : left + width].any() and dark[top + height :, left : other - 8].any()
    assert not dark[:, left + width : other].any()
    without = strip([Panel(_plain(240, 240, 0)), Panel(_plain(240, 240, 1))])
    assert without.shape[0] < page.shape[0] - 60 and not (without < 140).all(2).any()


def test_titles_are_cut_with_an_ellipsis_and_notes_wrapped() -> None:
    assert shortened("short", 13, 500) == "short"
    words = "prediction of the ensemble of 49 views"
    for width in (30, 65, 120, 200):
        cuts = [words[:n].rstrip() + "…" for n in range(1, len(words))]
        assert shortened(words, 13, width) == [c for c in cuts if text_width(c, 13) <= width][-1]
    assert shortened(words, 13, 0) == ""
    lines = wrapped(words, 13, 120, 3)
    assert len(lines) == 3 and all(text_width(line, 13) <= 120 for line in lines)
    assert " ".join(lines) == words
    assert wrapped(words, 13, 120, 2)[1].endswith("…") and wrapped("", 13, 120, 3) == []
    assert wrapped("onewordthatdoesnotfitintothewidth", 13, 60, 3)[0].endswith("…")


def test_a_panel_with_a_scale_gets_a_colour_bar() -> None:
    page = strip(
        [Panel(_plain(300, 300, 0), scale=Scale(0, 1, "gray")), Panel(_plain(300, 300, 1))]
    )
    top, left, height, width = _places(page, 0)
    below = page[top + height : top + height + 12, left : left + width]
    ramps = [row[:, 0].astype(int) for row in below if row[0, 0] < 5 and row[-1, 0] > 250]
    assert ramps and (np.diff(ramps[0]) >= 0).all()


def test_sheet() -> None:
    rows = [
        [Panel(_plain(200, 300, 0), "image"), Panel(_plain(200, 300, 1), "after", "a note")],
        [Panel(_plain(300, 200, 2), "image"), Panel(_plain(300, 200, 3), "after")],
        [Panel(_plain(200, 300, 4), "image")],
    ]
    key = Key((("road", (10, 20, 30)),), title="classes")
    page = sheet(rows, width=900, labels=["one.png", "two.png", "three.png"], key=key, title="T")
    assert page.shape[1] == 900 and _white(page)
    places = [_places(page, i) for i in range(5)]
    assert places[0][1] == places[2][1] == places[4][1] and places[1][1] == places[3][1]
    assert places[0][0] == places[1][0] < places[2][0] == places[3][0] < places[4][0]
    assert len({p[2] for p in places}) == 1
    # One header: nothing but the label is between the rows.
    dark = (page < 140).all(2)
    between = dark[places[0][0] + places[0][2] : places[2][0]]
    assert between.any() and dark[: places[0][0]].any()
    fewer = sheet(rows, width=900, header=["a", "b"])
    assert fewer.shape[0] < page.shape[0] - 80
    with pytest.raises(ConfigError, match="label for each of 3 rows, got 1"):
        sheet(rows, labels=["one"])
    for nothing in ([], [[], []]):
        with pytest.raises(ConfigError, match="got none"):
            sheet(nothing)


def test_a_legend_shows_each_colour_once_and_wraps() -> None:
    entries = [(f"class {i}", colour) for i, colour in enumerate(_COLOURS)]
    wide, narrow = legend(Key(entries), 900), legend(Key(entries), 200)
    for picture, width in ((wide, 900), (narrow, 200)):
        assert picture.shape[1] == width
        for i in range(6):
            _, _, height, swatch = _places(picture, i)
            assert height == swatch >= 8
    assert narrow.shape[0] >= 3 * wide.shape[0]
    assert (wide < 140).all(2).any()


def test_what_strip_refuses() -> None:
    good = Panel(_plain(9, 9))
    with pytest.raises(ConfigError, match="panels to draw, got none"):
        strip([])
    for wrong in (
        np.zeros((9, 9), np.uint8),
        np.zeros((9, 9, 3)),
        np.zeros((0, 9, 3), np.uint8),
        3,
    ):
        with pytest.raises(ConfigError, match=r"panel 'x' to be uint8 \(H, W, 3\)"):
            strip([good, Panel(wrong, "x")])
    for name in ("width", "columns"):
        with pytest.raises(ConfigError, match=f"{name} to be an integer of at least 1, got 0"):
            strip([good], **{name: 0})


@pytest.mark.parametrize("size", [(12, 20), (3, 5), (7, 7), (1, 1), (29, 3)])
@pytest.mark.parametrize("dtype", [np.uint8, np.float32, np.int64, bool])
def test_resize_nearest(size: tuple[int, int], dtype: type) -> None:
    array = np.random.default_rng(0).integers(0, 256, (6, 10)).astype(dtype)
    got = resize_nearest(array, size)
    assert got.dtype == dtype and got.shape == size
    for y, x in itertools.product(*map(range, size)):
        assert got[y, x] == array[int((y + 0.5) * 6 / size[0]), int((x + 0.5) * 10 / size[1])]
    assert resize_nearest(np.zeros((6, 10, 3)), size).shape == (*size, 3)


def test_resize_smooth() -> None:
    picture = np.random.default_rng(0).integers(0, 256, (64, 80, 3), np.uint8)
    small = resize_smooth(picture, (8, 10))
    # Means of blocks, about: every pixel has its part.
    means = picture.reshape(8, 8, 10, 8, 3).mean((1, 3))
    assert np.abs(small - means).mean() < 12 and small.std() < 30
    assert resize_smooth(picture, (64, 80)) is picture
    assert np.abs(resize_smooth(_plain(5, 5), (50, 70)).astype(int) - _COLOURS[0]).max() == 0
    for size in ((0, 5), (5, -1), (2.5, 3)):
        with pytest.raises(ConfigError, match="integer of at least 1"):
            resize_smooth(picture, size)


def test_save_picture(tmp_path: Path) -> None:
    picture = np.random.default_rng(0).integers(0, 256, (30, 40, 3), np.uint8)
    path = save_picture(tmp_path / "a.png", picture)
    assert np.array_equal(np.array(Image.open(path)), picture)
    for ending in (".jpg", ".jpeg", ".JPG"):
        path = save_picture(tmp_path / f"a{ending}", _plain(30, 40))
        with Image.open(path) as image:
            assert image.format == "JPEG"
            assert np.abs(np.array(image).astype(int) - _COLOURS[0]).max() <= 4
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.JPG", "a.jpeg", "a.jpg", "a.png"]


def test_save_picture_leaves_nothing_half_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(b"old")
    for wrong, words in (
        ("a.pgn", r"end in \.png, \.jpg, \.jpeg, got .*a\.pgn; nearest: '\.png'"),
        ("a", "nearest"),
        ("none/a.png", "none to be a folder"),
    ):
        with pytest.raises(ConfigError, match=words):
            save_picture(tmp_path / wrong, _plain(3, 3))
    with pytest.raises(ConfigError, match="65535 pixels a side for JPEG, got 1 x 70000"):
        save_picture(tmp_path / "a.jpg", _plain(70000, 1))
    with pytest.raises(ConfigError, match=r"uint8 \(H, W, 3\)"):
        save_picture(path, np.zeros((3, 3)))

    def stopped(*_: object, **__: object) -> None:
        Path(_[1]).write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(Image.Image, "save", stopped)
    with pytest.raises(KeyboardInterrupt):
        save_picture(path, _plain(3, 3))
    assert [p.name for p in tmp_path.iterdir()] == ["a.png"] and path.read_bytes() == b"old"
