"""Colours of numbers and classes, against loops over pixels."""

from __future__ import annotations

import itertools
import math
import sys

import matplotlib
import numpy as np
import pytest

from srt_plugins.errors import ConfigError, MissingDependencyError
from srt_plugins.visualize.colours import (
    UNKNOWN,
    Scale,
    bar,
    colour_table,
    heat,
    oklab,
    palette,
    robust_range,
    shared_range,
    signed,
    signed_limit,
)


def _table(name: str) -> list[list[int]]:
    colours = matplotlib.colormaps[name]
    return [[int(255 * v) for v in colours(i)[:3]] for i in range(256)]


def _coloured(values: np.ndarray, low: float, high: float, name: str) -> np.ndarray:
    """Per pixel: the nearest of 256 colours between low and high."""
    table = _table(name)
    out = np.zeros((*values.shape, 3), int)
    for y, x in itertools.product(*map(range, values.shape)):
        value = float(values[y, x])
        if not math.isfinite(value):
            out[y, x] = UNKNOWN
            continue
        share = (min(max(value, low), high) - low) / (high - low)
        out[y, x] = table[round(share * 255)]
    return out


@pytest.mark.parametrize("name", ["magma", "viridis"])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_heat_is_the_nearest_colour(name: str, dtype: type) -> None:
    values = (np.random.default_rng(0).normal(size=(9, 11)) * 3).astype(dtype)
    values[0, :3] = np.nan, np.inf, -np.inf
    got = heat(values, -2, 4, name)
    assert got.shape == (9, 11, 3) and got.dtype == np.uint8
    # matplotlib rounds its own colours to bytes.
    wrong = np.abs(got.astype(int) - _coloured(values, -2, 4, name)).max(2) > 1
    # A value between two colours may take either.
    assert wrong.mean() < (0.05 if dtype == np.float16 else 0.001)
    assert (got[0, :3] == UNKNOWN).all()


def test_heat_of_integers_bool_and_one_value() -> None:
    table = _table("magma")
    got = heat(np.array([[0, 255], [51, 300]]), 0, 255)
    for pixel, index in zip(got.reshape(-1, 3), (0, 255, 51, 255)):
        assert np.abs(pixel - np.array(table[index])).max() <= 1
    assert np.array_equal(heat(np.array([[False, True]]), 0, 1)[0], got[0])
    # All equal: nothing is above anything.
    assert np.array_equal(heat(np.full((2, 2), 7.0)), np.broadcast_to(got[0, 0], (2, 2, 3)))
    assert np.array_equal(heat(np.array([[1.0, 5.0]]), 1, 1)[0], got[0])
    assert (heat(np.full((2, 2), np.nan)) == UNKNOWN).all()


def test_heat_with_one_bound_takes_the_other_from_the_values() -> None:
    values = np.linspace(3, 5, 50).reshape(5, 10)
    low, high = robust_range(values)
    assert np.array_equal(heat(values, low=0), heat(values, 0, high))
    assert np.array_equal(heat(values, high=9), heat(values, low, 9))
    # A bound beyond all values.
    assert len(np.unique(heat(values, low=10).reshape(-1, 3), axis=0)) == 1
    assert len(np.unique(heat(values, high=1).reshape(-1, 3), axis=0)) == 1


def test_what_heat_refuses() -> None:
    with pytest.raises(ConfigError, match="low <= high, got 2 and 1"):
        heat(np.ones((2, 2)), 2, 1)
    with pytest.raises(ConfigError, match="got nan"):
        heat(np.ones((2, 2)), float("nan"), 1)
    with pytest.raises(ConfigError, match=r"'magam'; nearest: .*'magma'"):
        heat(np.ones((2, 2)), name="magam")
    for wrong in (np.ones(3), np.ones((1, 2, 2)), np.ones((0, 2)), np.array([["a"]])):
        with pytest.raises(ConfigError, match=r"numbers \(h, w\)"):
            heat(wrong)


def test_signed_has_zero_in_the_middle_and_opposite_colours_around_it() -> None:
    values = np.array([[-2.0, -0.5, 0.0, 0.5, 2.0, 99.0, np.nan]])
    got = signed(values, 2)[0].astype(int)
    table = np.array(_table("RdBu_r"))
    assert np.abs(got[0] - table[0]).max() <= 1 and np.abs(got[4] - table[255]).max() <= 1
    assert got[2].min() > 235
    # Blue is less, red is more, and as much of one as of the other.
    assert got[1][2] > got[1][0] + 30 and got[3][0] > got[3][2] + 30
    places = [int(np.abs(table - got[i]).sum(1).argmin()) for i in (1, 3)]
    assert sum(places) == 255
    assert np.array_equal(got[4], got[5]) and tuple(got[6]) == UNKNOWN
    assert signed(np.zeros((2, 2)))[0, 0].min() > 235
    assert signed(np.full((2, 2), np.nan)).reshape(-1, 3).tolist() == [list(UNKNOWN)] * 4
    for limit in (-1, float("nan"), float("inf")):
        with pytest.raises(ConfigError, match="limit"):
            signed(values, limit)


def test_robust_range() -> None:
    # 0..100: the 2 % and 98 % quantiles are 2 and 98.
    values = np.arange(101.0)
    np.random.default_rng(0).shuffle(values)
    assert robust_range(values) == pytest.approx((2, 98))
    assert robust_range(values, 0) == (0, 100)
    assert robust_range(np.array([1.0, np.nan, np.inf, 3.0]), 0) == (1, 3)
    assert robust_range(np.full((3, 3), 4)) == (4, 4)
    assert robust_range(np.full(3, np.nan)) == (0, 1)
    # Nearly all of one value: the others are not lost.
    mostly = np.zeros(1000)
    mostly[7] = 5
    assert robust_range(mostly) == (0, 5)
    large = np.tile(np.arange(101, dtype=np.float32), 50_000)
    assert robust_range(large) == pytest.approx((2, 98), abs=0.5)


def test_ranges_of_several() -> None:
    one, other = np.arange(101.0), np.arange(101.0) + 1000
    assert shared_range(one, other) == pytest.approx((2, 1098))
    assert shared_range(one, np.full(3, np.nan)) == pytest.approx((2, 98))
    assert shared_range(np.full(3, np.nan)) == (0, 1)
    assert signed_limit(np.concatenate([-one, one])) == pytest.approx(98, abs=0.5)


def test_oklab() -> None:
    # CSS Color 4 gives oklch(62.796% 0.25768 29.234) for red.
    light, a, b = oklab(np.array([255, 0, 0]))
    assert light == pytest.approx(0.62796, abs=1e-4)
    assert math.hypot(a, b) == pytest.approx(0.25768, abs=1e-4)
    assert math.degrees(math.atan2(b, a)) == pytest.approx(29.234, abs=0.01)
    assert oklab(np.array([255, 255, 255])) == pytest.approx([1, 0, 0], abs=1e-4)


@pytest.mark.parametrize("n", [1, 7, 20, 150])
def test_palette_is_distinct_and_grows(n: int) -> None:
    colours = palette(n)
    assert colours.shape == (n, 3) and colours.dtype == np.uint8
    assert np.array_equal(palette(300)[:n], colours)
    lab = oklab(np.concatenate([colours, [[255] * 3, [0] * 3, UNKNOWN]]))
    apart = min(math.dist(p, q) for p, q in itertools.combinations(lab.tolist(), 2))
    # 0.02 is about what can be told apart side by side.
    assert apart > {1: 0.1, 7: 0.1, 20: 0.08, 150: 0.03}[n]


def test_palettes_of_many_and_of_none() -> None:
    assert palette(0).shape == (0, 3)
    many = palette(1203)
    assert len(np.unique(many[:1024], axis=0)) == 1024
    assert np.array_equal(many[1024:], many[:179])
    for wrong in (-1, 2.5, True):
        with pytest.raises(ConfigError, match="number of colours"):
            palette(wrong)


@pytest.mark.parametrize("width", [30, 100, 400])
def test_bar(width: int) -> None:
    picture = bar(Scale(-0.5, 12345.0, "viridis", "m"), width)
    assert picture.shape[1] == width and picture.dtype == np.uint8
    table = np.array(_table("viridis"))
    for place, index in ((0, 0), (-1, 255)):
        assert np.abs(picture[0, place].astype(int) - table[index]).max() <= 3
    below = picture[13:]
    dark = (below < 160).all(2).any(0)
    if width >= 100:
        # A number at either end, and one in the middle where there is room.
        assert dark[:8].any() and dark[-8:].any()
        assert width == 100 or dark[width // 2 - 10 : width // 2 + 10].any()


def test_without_matplotlib(monkeypatch: pytest.MonkeyPatch) -> None:
    colour_table.cache_clear()
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'srt-plugins\[show\]'"):
        heat(np.ones((2, 2)))
