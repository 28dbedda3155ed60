"""Sets of views: what they hold, in which order, and what is refused."""

from __future__ import annotations

import math
import warnings

import pytest

from srt_plugins.core import views
from srt_plugins.errors import ConfigError


@pytest.mark.parametrize("level", [0, 1, 3, 7])
def test_grid_holds_every_translation_once(level):
    got = views.grid(level, 16)
    side = range(-level, level + 1)
    assert sorted(got.translations) == [(dy, dx) for dy in side for dx in side]
    assert got.translations[0] == (0, 0)
    assert got.level == level


def test_the_paper_s_setting_has_49_views():
    assert len(views.resolve(None, 3, 16)) == 49


def test_default_is_the_half_patch_phases():
    assert sorted(views.resolve(None, None, 16).translations) == [(0, 0), (0, 8), (8, 0), (8, 8)]
    assert sorted(views.resolve(None, None, 14).translations) == [(0, 0), (0, 7), (7, 0), (7, 7)]


@pytest.mark.parametrize("patch", [8, 14, 16])
@pytest.mark.parametrize("n", range(1, 17))
def test_designs_have_distinct_phases_within_half_a_patch(n, patch):
    got = views.best(n, patch)
    assert len(got) == n
    assert len({(dy % patch, dx % patch) for dy, dx in got.translations}) == n
    assert got.level <= patch / 2
    assert (0, 0) in got.translations


@pytest.mark.parametrize("n", [2, 3, 5, 6, 7, 8, 10, 12])
def test_designs_are_more_spread_than_random_ones(n):
    import numpy as np

    def closest(points):
        gaps = []
        for i, p in enumerate(points):
            for q in points[:i]:
                d = [min((a - b) % 16, (b - a) % 16) for a, b in zip(p, q)]
                gaps.append(math.hypot(*d))
        return min(gaps)

    rng = np.random.default_rng(0)
    random = [closest([tuple(p) for p in rng.integers(0, 16, (n, 2))]) for _ in range(200)]
    assert closest(views.best(n, 16).translations) >= np.quantile(random, 0.9)


def test_every_prefix_of_the_grid_is_balanced():
    """The mean of the first views stays near zero: far below that of row-by-row order."""
    order = views.grid(3, 16).translations
    for n in range(4, len(order) + 1):
        mean = [sum(p[axis] for p in order[:n]) / n for axis in (0, 1)]
        assert math.hypot(*mean) <= 1.1, n


def error_of_random_functions(points, patch):
    """How far the mean over points is from the mean over all phases, root mean square over random
    smooth functions of the phase: one of each axis alone and, half as large, one of both."""
    import numpy as np

    frequencies = [k for k in range(-patch // 2 + 1, patch // 2 + 1) if k]
    y, x = np.array(points).T

    def power(phase):
        return abs(np.exp(2j * np.pi * phase / patch).mean()) ** 2

    total = sum((power(k * y) + power(k * x)) / k**2 for k in frequencies)
    total += sum(
        0.5 * power(k * y + j * x) / (k * j) ** 2 for k in frequencies for j in frequencies
    )
    return math.sqrt(total)


@pytest.mark.parametrize("patch", [14, 16])
def test_every_prefix_is_nearly_as_good_as_the_best_design_of_its_size(patch):
    def error(points):
        return error_of_random_functions(points, patch)

    best = {n: error(views.best(n, patch).translations) for n in range(1, 17)}
    bounds = {
        views.phases(patch, patch): 1.2,
        views.grid(patch // 2, patch): 1.2,
        **{views.best(n, patch): 1.2 for n in (5, 7, 13)},
        views.phases(patch, 4).first(8): 1.2,
        # Few phases are good together; the last parts of them leave gaps.
        views.phases(patch, 3): 1.4,
        views.phases(patch, 4): 1.7,
    }
    for design, bound in bounds.items():
        for n in range(1, min(16, len(design)) + 1):
            assert error(design.translations[:n]) <= bound * best[n], (len(design), n)


@pytest.mark.parametrize("patch", [8, 14, 16, 32])
def test_the_diagonal_and_the_half_patch_phases_come_first(patch):
    """A smaller number of phases is the beginning of a larger one."""
    half = patch // 2
    order = views.phases(patch, 4).translations
    assert order[:2] == ((0, 0), (half, half))
    assert order[:4] == views.phases(patch, 2).translations
    quarter = {abs(d) for point in order[4:8] for d in point}
    assert quarter == {round(patch / 4)}


def test_level_scales_the_designs():
    assert sorted(views.resolve("phases", 4, 16).translations) == [(0, 0), (0, 4), (4, 0), (4, 4)]
    assert views.resolve(9, 3, 16).level <= 3
    for chosen in (None, "grid", "phases", 7):
        assert views.resolve(chosen, 0, 16).is_identity


def test_weights_and_order_of_explicit_views_are_kept():
    got = views.resolve([(4, -4), (0, 0, 2.5)], None, 16)
    assert got.translations == ((4, -4), (0, 0))
    assert got.weights == (1.0, 2.5)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((None, -1, 16), "level"),
        ((None, 1.5, 16), "level"),
        ((None, True, 16), "level"),
        ((None, "3", 16), "level"),
        ((None, 16, 16), "one patch"),
        (([(0, 20)], None, 16), "one patch"),
        (("grids", None, 16), "'phases'"),
        (("phases:0", None, 16), "'phases'"),
        (("phases:17", None, 16), "1 to 16 phases"),
        (("grid", None, 16), "level=3"),
        ((0, None, 16), "at least one view"),
        ((257, None, 16), "256"),
        (([], None, 16), "at least one view"),
        (([(0, 0), (0, 0)], None, 16), "more than once"),
        (([(0, 0.5)], None, 16), "whole-pixel"),
        (([(0,)], None, 16), "whole-pixel"),
        (([(0, 0, 0)], None, 16), "positive weight"),
        (([(0, 0, float("nan"))], None, 16), "positive weight"),
        (([(0, 5)], 3, 16), "level=3"),
        (({"a": 1}, None, 16), "views"),
    ],
)
def test_bad_views_are_refused(arguments, said):
    with pytest.raises(ConfigError, match=said):
        views.resolve(*arguments)


def test_beyond_half_a_patch_warns_and_up_to_it_does_not():
    with pytest.warns(UserWarning, match="half a patch"):
        views.resolve(None, 9, 16)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        views.resolve(None, 8, 16)
