"""The colour space against numpy's singular value decomposition of the tokens."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from srt_plugins import ConfigError
from srt_plugins.visualize import moments
from srt_plugins.visualize.basis import Basis


def grids(*shapes, channels=6, seed=0, offset=40.0):
    """Skewed features with means far from zero, a share of which all positions have in common."""
    rng = np.random.default_rng(seed)
    mix = rng.normal(size=(channels, channels)) * np.linspace(2, 0.2, channels)[:, None]
    parts = [np.exp(rng.normal(size=(b, h, w, channels))) @ mix + offset for b, h, w in shapes]
    return [torch.from_numpy(part).permute(0, 3, 1, 2) for part in parts]


def rows(parts):
    """All tokens ``(n, D)``."""
    return np.concatenate([p.double().permute(0, 2, 3, 1).reshape(-1, p.shape[1]) for p in parts])


def principal(tokens, count):
    """Mean, components turned to positive third moments, and projections."""
    mean = tokens.mean(0)
    _, _, vectors = np.linalg.svd(tokens - mean, full_matrices=False)
    scores = (tokens - mean) @ vectors[:count].T
    sign = np.sign((scores**3).sum(0))
    return mean, vectors[:count] * sign[:, None], scores * sign


def scene(reach, seed=0):
    """An object of two parts before a background, both with some noise, and where it is."""
    generator = torch.Generator().manual_seed(seed)
    there = torch.zeros(14, 18, dtype=torch.bool)
    there[reach] = True
    features = torch.randn(2, 8, 14, 18, generator=generator, dtype=torch.float64)
    features[:, 0] += there * 10.0
    features[:, 1, :, :9] += there[:, :9] * 4.0
    features[:, 2] += 3
    return features, there


def test_components_are_those_of_the_singular_value_decomposition():
    parts = grids((2, 5, 7), (1, 4, 3), (1, 9, 9))
    basis = Basis.fit(iter(parts))
    mean, components, scores = principal(rows(parts), 3)
    np.testing.assert_allclose(basis.mean, mean, rtol=1e-12)
    np.testing.assert_allclose(basis.components, components, atol=1e-9)
    np.testing.assert_allclose(basis.low, np.quantile(scores, 0.02, axis=0), atol=1e-9)
    np.testing.assert_allclose(basis.high, np.quantile(scores, 0.98, axis=0), atol=1e-9)
    shown = basis.project(parts[0])
    np.testing.assert_allclose(rows([shown]), scores[: 2 * 5 * 7], atol=1e-9)
    assert not shown.requires_grad and shown.dtype == torch.float64
    assert basis.project(parts[0].float()).dtype == torch.float32


def test_many_bands_and_half_precision(monkeypatch):
    parts = [part.bfloat16() for part in grids((1, 8, 9), (2, 3, 4))]
    whole = Basis.fit(parts)
    monkeypatch.setattr(moments, "_BAND", 6 * 7)  # seven tokens at a time
    basis = Basis.fit(parts)
    np.testing.assert_allclose(basis.components, principal(rows(parts), 3)[1], atol=1e-9)
    torch.testing.assert_close(basis.low, whole.low, atol=1e-9, rtol=0)
    assert basis.project(parts[0]).dtype == torch.float32


def test_a_sample_of_many_tokens_is_bounded_and_the_same_every_time(monkeypatch):
    parts = grids(*[(1, 30, 40)] * 5)
    exact = Basis.fit(parts)
    monkeypatch.setattr(moments, "_KEPT", 1500)
    sample = moments.Sample()
    for part in parts:
        sample.add(part[0])
    kept = sample.tokens()
    assert kept.shape == (1500, 6) and len(sample.border()) == 1500
    every = {tuple(row) for row in rows(parts)}
    assert len({tuple(row) for row in kept.numpy()} & every) == 1500
    one, other = Basis.fit(parts), Basis.fit(iter(parts))
    assert torch.equal(one.low, other.low) and torch.equal(one.components, other.components)
    # Components do not hang on the sample, quantiles are near.
    torch.testing.assert_close(one.components, exact.components, atol=1e-12, rtol=0)
    width = exact.high - exact.low
    assert ((one.high - exact.high).abs() < 0.1 * width).all()
    assert not torch.equal(one.high, exact.high)


def test_signs_hold_over_threads_order_and_the_frames_of_a_moving_picture():
    parts = grids((1, 12, 16), (1, 7, 9))
    basis = Basis.fit(parts)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(threads % 2 + 1)
        others = [Basis.fit(parts), Basis.fit(parts[::-1])]
    finally:
        torch.set_num_threads(threads)
    for other in others:
        torch.testing.assert_close(other.components, basis.components, atol=1e-9, rtol=0)
    # An object that moves through noise that is new in every frame; no channel stands out.
    frames, alternating = [], torch.tensor([4.0, -4.0] * 4).double()[:, None, None]
    for t in range(8):
        noise = torch.randn(1, 8, 14, 18, generator=torch.Generator().manual_seed(t)).double()
        noise[..., 3:8, 2 + t : 8 + t] += alternating
        frames.append(noise)
    fits = [Basis.fit([frame], components=1).components[0] for frame in frames]
    assert all(float(before @ after) > 0.9 for before, after in zip(fits, fits[1:]))
    assert len({float(fit[fit.abs().argmax()]) > 0 for fit in fits}) == 2
    # One basis for all: the same feature has the same colour in every frame.
    shared = Basis.fit(frames)
    stuck = torch.cat([frames[0], frames[5]], 3)
    colours = [shared.colours(shared.project(f)[0]) for f in (frames[0], frames[5], stuck)]
    assert np.array_equal(np.concatenate(colours[:2], 1), colours[2])


def test_an_even_distribution_is_turned_by_its_largest_loading():
    tokens = torch.tensor([[-3.0, 1.0], [3.0, -1.0], [-6.0, 2.0], [6.0, -2.0]]).double()
    grid = tokens.T.reshape(1, 2, 2, 2)
    basis = Basis.fit([grid], components=1)
    np.testing.assert_allclose(basis.components[0], np.array([3, -1]) / np.sqrt(10), atol=1e-12)


@pytest.mark.parametrize(
    ("grid", "variances"),
    [
        (torch.full((1, 5, 3, 4), 7.3), 0),  # constant features
        (torch.full((2, 5, 3, 4), 1 / 3).bfloat16(), 0),
        (torch.randn(1, 5, 1, 1), 0),  # a single token
        (torch.randn(1, 5, 1, 3), 2),  # fewer tokens than components
        (torch.randn(1, 2, 4, 4), 2),  # fewer channels than components
    ],
)
def test_components_without_variance_are_grey(grid, variances):
    basis = Basis.fit([grid])
    assert basis.components.shape == (3, grid.shape[1])
    lengths = basis.components.norm(dim=1)
    torch.testing.assert_close(
        lengths, torch.tensor([1.0] * variances + [0.0] * (3 - variances)).double()
    )
    picture = basis.colours(basis.project(grid)[0])
    assert picture.shape == (*grid.shape[2:], 3) and picture.dtype == np.uint8
    assert (picture[..., variances:] == 128).all()
    assert all(np.ptp(picture[..., i]) > 200 for i in range(variances))


def test_colours_are_clipped_to_the_range():
    basis = Basis.fit(grids((1, 20, 20)))
    shown = basis.project(grids((1, 4, 5), seed=1)[0] * 1.5)[0]
    picture = basis.colours(shown)
    for k, y, x in np.ndindex(3, 4, 5):
        low, high = float(basis.low[k]), float(basis.high[k])
        share = min(1, max(0, (float(shown[k, y, x]) - low) / (high - low)))
        assert abs(picture[y, x, k] - 255 * share) <= 0.5001
    assert picture.min() == 0 and picture.max() == 255
    front = torch.zeros(4, 5, dtype=torch.bool)
    front[1, 2] = True
    dark = basis.colours(shown, front)
    assert (dark[1, 2] == picture[1, 2]).all() and dark.sum() == picture[1, 2].sum()
    grey = Basis.fit(grids((1, 20, 20)), components=1)
    one = grey.colours(shown[:1])
    assert (one[..., 0] == one[..., 2]).all() and np.array_equal(one[..., 0], picture[..., 0])


# In the middle; more than half of the picture, standing on its lower edge.
OBJECTS = [(slice(4, 9), slice(5, 12)), (slice(2, 14), slice(1, 17))]


@pytest.mark.parametrize("reach", OBJECTS, ids=["small", "large"])
@pytest.mark.parametrize("sign", [1, -1])
def test_the_background_is_removed_and_the_foreground_fitted_anew(reach, sign):
    features, there = scene(reach)
    features = features * sign
    basis = Basis.fit(list(features.split(1)), without_background=True)
    found = basis.foreground(features)
    assert found.shape == (2, 14, 18) and (found == there).all()
    tokens = rows([features])[there.repeat(2, 1, 1).flatten().numpy()]
    mean, components, scores = principal(tokens, 3)
    np.testing.assert_allclose(basis.mean, mean, atol=1e-9)
    np.testing.assert_allclose(basis.components, components, atol=1e-9)
    np.testing.assert_allclose(basis.high, np.quantile(scores, 0.98, axis=0), atol=1e-9)
    values, front = basis.split(basis.scores(features))
    assert torch.equal(front, found)
    torch.testing.assert_close(values, basis.project(features), rtol=0, atol=1e-12)
    picture = basis.colours(values[0], front[0])
    assert (picture[~there] == 0).all() and (picture[there].max(1) > 0).all()


def test_otsu_splits_where_it_separates_best():
    rng = np.random.default_rng(0)
    for _ in range(5):
        values = np.concatenate([rng.normal(0, 1, 40), rng.normal(7, 1, 9)]).round(1) + 1e3

        def between(cut, values=values):
            low, high = values[values <= cut], values[values > cut]
            return len(low) * len(high) * (high.mean() - low.mean()) ** 2

        best = max(between(cut) for cut in np.unique(values)[:-1])
        cut = moments.otsu(torch.from_numpy(rng.permutation(values)))
        assert between(cut) == pytest.approx(best)


def test_constant_features_are_all_foreground():
    grid = torch.full((1, 5, 3, 4), 7.3)
    basis = Basis.fit([grid], without_background=True)
    assert bool(basis.foreground(grid).all())
    assert (basis.colours(basis.project(grid)[0]) == 128).all()


@pytest.mark.parametrize("without_background", [False, True])
def test_files_hold_all_of_it(tmp_path, without_background):
    features, _ = scene(OBJECTS[0])
    basis = Basis.fit([features], without_background=without_background)
    path = tmp_path / "colours.basis"
    basis.save(path)
    again = Basis.load(path)
    for name in ("mean", "components", "low", "high", "front"):
        one, other = getattr(basis, name), getattr(again, name)
        assert (one is None and other is None) or torch.equal(one, other), name
    assert again.threshold == basis.threshold
    assert torch.equal(again.scores(features), basis.scores(features))
    assert [p.name for p in tmp_path.iterdir()] == ["colours.basis"]


def test_files_that_hold_no_basis(tmp_path):
    basis = Basis.fit(grids((1, 4, 4)))
    basis.save(tmp_path / "good.npz")
    whole = (tmp_path / "good.npz").read_bytes()
    (tmp_path / "cut.npz").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "text.npz").write_text("no archive")
    np.savez(tmp_path / "other.npz", mean=np.zeros(3))
    arrays = dict(np.load(tmp_path / "good.npz"))
    np.savez(tmp_path / "shapes.npz", **{**arrays, "mean": np.zeros(4)})
    np.savez(tmp_path / "pickled.npz", **{**arrays, "mean": np.array([{}], dtype=object)})
    for name in ("cut", "text", "other", "shapes", "pickled"):
        with pytest.raises(ConfigError, match=rf"{name}\.npz to be a basis .*save"):
            Basis.load(tmp_path / f"{name}.npz")
    with pytest.raises(ConfigError, match="does not exist"):
        Basis.load(tmp_path / "none.npz")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([], "at least one token grid, got none"),
        ([torch.ones(1, 3, 0, 4)], "at least one token grid, got none"),
        (
            [torch.ones(3, 4, 4)],
            r"grids\[0\] to be features \(B, D, h, w\), got Tensor \(3, 4, 4\)",
        ),
        ([torch.ones(1, 3, 4, 4).int()], r"grids\[0\] to be features"),
        ([torch.ones(1, 3, 4, 4), torch.ones(1, 2, 4, 4)], r"grids\[1\] to have 3 channels.*got 2"),
        ([torch.ones(1, 3, 4, 4), torch.full((1, 3, 4, 4), float("nan"))], r"finite.*grids\[1\]"),
        ([torch.full((1, 3, 4, 4), float("inf"))], r"finite features.*float32"),
    ],
)
def test_features_that_cannot_be_fitted(given, message):
    with pytest.raises(ConfigError, match=message):
        Basis.fit(given)


def test_mistakes():
    parts = grids((1, 4, 4))
    basis = Basis.fit(parts)
    with pytest.raises(ConfigError, match="components to be an integer >= 1, got 0"):
        Basis.fit(parts, components=0)
    with pytest.raises(ConfigError, match=r"\(B, 6, h, w\).*this layer of this model"):
        basis.project(torch.ones(1, 5, 4, 4))
    with pytest.raises(ConfigError, match="without_background=True"):
        basis.foreground(parts[0])
    with pytest.raises(ConfigError, match=r"one or three components to colour, got \(2, 4, 4\)"):
        basis.colours(torch.ones(2, 4, 4))
    shown = basis.project(parts[0])[0]
    shown[1, 2, 3] = float("nan")
    with pytest.raises(ConfigError, match="finite projections"):
        basis.colours(shown)
