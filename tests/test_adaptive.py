"""Views until a tolerance is met: every image is as if it had been run alone with its views."""

from __future__ import annotations

import copy
import math
import pickle

import numpy as np
import pytest
import torch
from torch import nn

from srt_plugins import (
    ConfigError,
    SRTWrapper,
    attach,
    detach,
    dispersion,
    mean_views_used,
    srt_enabled,
    views_used,
)
from srt_plugins.core import views
from srt_plugins.core.accumulator import Aggregation, Grid, Vector
from srt_plugins.core.adaptive import adaptive
from srt_plugins.core.ensemble import ensemble
from tests import reference
from tests.toys import Model, PairBackbone, PatchBackbone

# How much the views of an image differ: the smoother, the sooner it is done.
ROUGHNESS = (0.02, 1.0, 0.15, 4.0, 0.4)


@pytest.fixture(autouse=True)
def no_gradients():
    with torch.no_grad():
        yield


def pictures(roughness=ROUGHNESS, size=(27, 45)):
    """Images with structure of the same size in all and noise of a different size in each."""
    generator = torch.Generator().manual_seed(3)
    y, x = torch.meshgrid(torch.arange(size[0]), torch.arange(size[1]), indexing="ij")
    waves = torch.stack([torch.sin(x / 9), torch.cos(y / 7), torch.sin((x + y) / 11)])
    noise = torch.randn(len(roughness), 3, *size, generator=generator)
    return 2 * waves + torch.tensor(roughness)[:, None, None, None] * noise


class Still(PatchBackbone):
    """Without the position term, so that views of smooth images agree."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        nn.init.zeros_(self.position)


class StillPair(PairBackbone):
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        nn.init.zeros_(self.position)


def flat(output):
    """The tensors of a nested output."""
    if isinstance(output, torch.Tensor):
        return [output]
    values = output.values() if isinstance(output, dict) else output
    return [tensor for value in values for tensor in flat(value)]


def figures(aligned, seen, weights=None):
    """The relative standard error after each number of views, by its definition.

    Args:
        aligned: ``(n, C, h, w)`` views put back in place, and seen ``(n, h, w)`` what they show.
    """
    found = []
    weights = np.ones(len(aligned)) if weights is None else np.asarray(weights)
    for n in range(2, len(aligned) + 1):
        share = weights[:n, None, None] * seen[:n]
        total = share.sum(0)
        mean = (share[:, None] * aligned[:n]).sum(0) / total
        variance = (share[:, None] * (aligned[:n] - mean) ** 2).sum(0) / total
        count = weights[:n].sum() ** 2 / (weights[:n] ** 2).sum()
        error = np.sqrt(variance.mean() / (count - 1))
        scale = np.sqrt(((mean - mean.mean((1, 2), keepdims=True)) ** 2).mean())
        found.append(error / scale)
    return found


CASES = {
    "default": dict(),
    "fine": dict(stride=4),
    "pixels": dict(stride=1, views="phases:3", tolerance=0.25),
    "smooth": dict(smooth=3),
    "guided": dict(smooth="guided"),
    "dispersion": dict(dispersion=True),
    "weights": dict(
        views=[(0, 0), (4, 4, 2.0), (-4, 4, 0.5), (4, -4), (-4, -4, 3.0), (4, 0)], tolerance=0.4
    ),
    "grid": dict(level=1),
    "zeros": dict(padding="zeros"),
    "flip": dict(flip=True),
    "batches": dict(view_batch=3),
    "one by one": dict(view_batch=1),
}


@pytest.mark.parametrize("backbone", [Still, StillPair])
@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_every_image_is_as_if_run_alone_with_its_views(backbone, case):
    images = pictures(size=(32, 48) if "flip" in case else (27, 45))
    model = backbone(8).eval()
    got = SRTWrapper(model, **{"tolerance": 0.15, **case})(images)
    used = views_used(model)
    spread = dispersion(model) if "dispersion" in case else ()
    assert len(set(used)) > 2 and min(used) >= 2, used
    given = {"views": "phases:4"} if not {"views", "level"} & set(case) else {}
    for i, count in enumerate(used):
        SRTWrapper(model, **{**given, **case, "tolerance": None, "max_views": count})
        alone = model(images[i : i + 1])
        for one, expected in zip(flat(got), flat(alone)):
            assert one.dtype == expected.dtype and one.shape[1:] == expected.shape[1:]
            torch.testing.assert_close(one[i : i + 1], expected, rtol=1e-5, atol=1e-6)
        for one, expected in zip(spread, dispersion(model) if spread else ()):
            torch.testing.assert_close(one[i : i + 1], expected, rtol=1e-5, atol=1e-6)


def test_results_and_stops_equal_the_oracle():
    images, model, tolerance = pictures(), Still(8).eval(), 0.15
    twin = copy.deepcopy(model).double()
    got = SRTWrapper(model, tolerance=tolerance)(images)
    order = model._srt.views().translations
    assert len(order) == 16
    for i, image in enumerate(images.double().numpy()):
        features = [
            twin(torch.from_numpy(reference.translate(image, dy, dx, "replicate"))[None])[0].numpy()
            for dy, dx in order
        ]
        parts = [
            reference.aligned_view(f, dy, dx, 8, 8, (4, 6)) for f, (dy, dx) in zip(features, order)
        ]
        errors = figures(*(np.stack(part) for part in zip(*parts)))
        done = [n for n, e in enumerate(errors, 2) if n % 2 == 0 and e < tolerance]
        count = min([*done, 16])
        assert views_used(model)[i] == count
        expected = reference.aggregate(features[:count], order[:count], 8, cells=(4, 6))["mean"]
        np.testing.assert_allclose(got[i].numpy(), expected, rtol=1e-4, atol=1e-5)


def test_the_error_is_that_of_the_worst_output():
    images, model = pictures(), StillPair(8).eval()
    used = []
    for outputs in (["coarse"], ["deep"], None):
        SRTWrapper(model, tolerance=0.15, outputs=outputs)(images)
        used.append(views_used(model))
    assert used[2] == tuple(max(pair) for pair in zip(*used[:2]))
    assert used[0] != used[1]


def test_units_and_constants_do_not_matter():
    images = pictures()

    def used(factor, constant):
        def run(view, _):
            features = torch.nn.functional.avg_pool2d(view, 8)
            return [Grid(factor * features + constant, (8, 8))]

        chosen = views.phases(8, 4)
        done = adaptive(run, images, chosen, Aggregation(), 0.05, size=(32, 48))
        return done.views_used

    assert used(1, 0) == used(1000, 0) == used(1, 100) == used(-1e-3, 0)
    assert len(set(used(1, 0))) > 1


@pytest.mark.parametrize(("outputs", "tolerance"), [(["coarse"], 0.4), (["deep"], 0.1)])
@pytest.mark.parametrize("order", [[(0, 0), (3, 3), (0, 3), (3, 0)], [(4, 4), (-3, -3), (0, 0)]])
def test_outputs_that_are_not_ensembled_come_from_the_centre_view(outputs, tolerance, order):
    """Also where some images are done before the centre view."""
    images, model = pictures(), StillPair(8).eval()
    plain = model(images)
    got = SRTWrapper(model, tolerance=tolerance, views=order, outputs=outputs)(images)
    assert len(set(views_used(model))) > 1
    for name in set(plain) - set(outputs):
        for one, expected in zip(flat(got[name]), flat(plain[name])):
            torch.testing.assert_close(one, expected, rtol=1e-5, atol=1e-6)


class Tokens(nn.Module):
    """A ViT with a class token that is no grid."""

    def __init__(self):
        super().__init__()
        from timm.models.vision_transformer import VisionTransformer

        torch.manual_seed(0)
        self.backbone = VisionTransformer(
            img_size=32, patch_size=8, embed_dim=16, depth=3, num_heads=2, reg_tokens=2,
            dynamic_img_size=True, num_classes=3,
        )  # fmt: skip


@pytest.mark.parametrize("layer", [None, 1])
def test_class_and_register_tokens_and_layers(layer):
    images, model = pictures(size=(32, 48)), Tokens().eval().backbone
    attach(model, tolerance=0.3, layer=layer)
    got = model.forward_features(images)
    used = views_used(model)
    assert len(set(used)) > 1 and max(used) <= 16
    for i, count in enumerate(used):
        with srt_enabled(model, tolerance=None, views="phases:4", max_views=count):
            alone = model.forward_features(images[i : i + 1])
        torch.testing.assert_close(got[i : i + 1], alone, rtol=1e-5, atol=1e-6)


def test_no_view_of_a_finished_image_runs():
    images = pictures()
    model = SRTWrapper(Still(8).eval(), tolerance=0.15, view_batch=1)
    model(images)  # the first call also probes
    seen = []
    handle = model.embed.register_forward_pre_hook(lambda _, args: seen.append(len(args[0])))
    model(images)
    handle.remove()
    used = views_used(model)
    # One view at a time, of the images that still need it.
    assert seen == [sum(n > k for n in used) for k in range(max(used))]


def test_tolerance_zero_runs_all_views():
    images, model = pictures((0.0, 1.0)), Still(8).eval()
    got = SRTWrapper(model, tolerance=0)(images)
    assert views_used(model) == (16, 16)
    expected = SRTWrapper(model, views="phases:4")(images)
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-6)


def test_max_views_is_the_bound():
    images, model = pictures(), Still(8).eval()
    SRTWrapper(model, tolerance=0.15)(images)
    free = views_used(model)
    SRTWrapper(model, tolerance=0.15, max_views=5)(images)
    assert views_used(model) == tuple(min(n, 5) for n in free)
    SRTWrapper(model, tolerance=10.0, max_views=1)(images)
    assert views_used(model) == (1,) * 5


def chosen(patch, **keywords):
    """The views of a backbone once its patch is known."""
    model = SRTWrapper(Still(patch).eval(), **keywords)
    model(pictures((1.0,)))
    return model._srt.views()


@pytest.mark.parametrize("patch", [8, 14, 16])
def test_the_default_four_views_come_first(patch):
    found = chosen(patch, tolerance=0.1)
    assert len(found) == 16 and found.first(4) == chosen(patch)
    assert sorted(found.translations) == sorted(chosen(patch, views="phases:4").translations)


def test_views_that_were_asked_for_stay():
    assert len(chosen(2, tolerance=0.1)) == 4
    assert len(chosen(8, tolerance=0.1, level=1)) == 9
    assert len(chosen(8, tolerance=0.1, views=3)) == 3


def grids(features):
    return lambda view, _: [Grid(features(view), (8, 8))]


def done(features, **how):
    return adaptive(
        grids(features), torch.rand(2, 3, 16, 24), views.phases(8, 3), Aggregation(**how), 0.1
    )


def test_views_that_agree_are_enough_and_views_that_cannot_are_all_run():
    ones = torch.ones(1, 2, 2, 3)
    assert done(lambda view: ones.expand(len(view), -1, -1, -1)).views_used == (2, 2)

    def broken(view):
        features = torch.nn.functional.avg_pool2d(view, 8)
        features[0] = math.nan
        return features

    result = done(broken)
    assert result.views_used[0] == 9 and result.results()[0][0].isnan().all()


def test_a_view_of_every_cell_is_waited_for():
    """The first two views show nothing of the first rows: the mean there is not known at all."""
    away = views.explicit([(-8, 0), (-8, 1), (0, 0), (0, 1)])
    images = torch.rand(1, 3, 16, 24)
    both = adaptive(
        grids(lambda view: torch.ones(len(view), 1, 2, 3)), images, away, Aggregation(), 0.1
    )
    assert both.views_used == (4,)


def test_without_a_grid_there_is_no_error():
    def run(view, _):
        return [Vector(view.mean((2, 3)))]

    with pytest.raises(ConfigError, match="max_views"):
        adaptive(run, torch.rand(2, 3, 16, 24), views.phases(8), Aggregation(), 0.1)
    chosen = views.phases(8)
    all_of_them = adaptive(run, torch.rand(2, 3, 16, 24), chosen, Aggregation(), 0.0)
    assert all_of_them.views_used == (4, 4)


def test_half_precision_is_aggregated_in_float32():
    images = pictures(size=(32, 48))
    chosen = views.phases(8, 4)

    def run(view, _):
        return [Grid(torch.nn.functional.avg_pool2d(view, 8).to(torch.bfloat16), (8, 8))]

    with torch.autocast("cpu", dtype=torch.bfloat16):
        got = adaptive(run, images, chosen, Aggregation(), 0.05)
    assert got.results()[0].dtype == torch.float32 and len(set(got.views_used)) > 1
    for i, n in enumerate(got.views_used):
        alone = ensemble(run, images[i : i + 1], chosen.first(n), Aggregation()).results()[0]
        torch.testing.assert_close(got.results()[0][i : i + 1], alone, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("stride", [None, 2])
def test_gradients_flow(stride):
    with torch.enable_grad():
        images = pictures((0.02, 1.0), (16, 24)).double().requires_grad_()

        def run(x):
            weight = torch.ones(2, 3, 8, 8, dtype=torch.float64) / 64

            def leaves(view, _):
                return [Grid(torch.nn.functional.conv2d(view, weight, stride=8), (8, 8))]

            how = Aggregation(stride=stride)
            return adaptive(leaves, x, views.phases(8, 3), how, 0.2).results()[0]

        assert torch.autograd.gradcheck(run, (images,), fast_mode=True)


@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
def test_tracing_is_refused_and_the_meta_device_runs_all_views():
    model = SRTWrapper(Still(8).eval(), tolerance=0.1)
    with pytest.raises(ConfigError, match="traced"):
        torch.jit.trace(model, pictures()[:1], check_trace=False)
    meta = SRTWrapper(Still(8).to("meta").eval(), tolerance=0.1)
    assert meta(torch.empty(2, 3, 27, 45, device="meta")).shape == (2, 4, 4, 6)
    assert views_used(meta) == (16, 16)


@pytest.mark.parametrize(
    ("keywords", "count"),
    [
        ({}, 4),
        ({"level": 1}, 9),
        ({"level": 0}, 1),
        ({"views": 1}, 1),
        ({"views": 1, "smooth": 3}, 1),
        ({"statistic": "median"}, 4),
        ({"max_views": 3}, 3),
    ],
)
def test_views_used_without_a_tolerance(keywords, count):
    model = Model(Still(8)).eval()
    with pytest.raises(ConfigError, match="attach"):
        views_used(model)
    attach(model, **keywords)
    with pytest.raises(ConfigError, match="run a forward"):
        views_used(model)
    model(pictures())
    assert views_used(model) == (count,) * 5
    detach(model)
    with pytest.raises(ConfigError, match="attach"):
        mean_views_used(model)


def test_the_mean_over_forwards():
    model = SRTWrapper(Still(8).eval(), tolerance=0.15)
    assert math.isnan(mean_views_used(model, reset=True))
    images = pictures()
    counts = []
    for batch in (images[:2], images[2:], images[3:4]):
        model(batch)
        counts += views_used(model)
    assert mean_views_used(model) == pytest.approx(np.mean(counts))
    twin = pickle.loads(pickle.dumps(model))
    assert mean_views_used(twin) == mean_views_used(model, reset=True)
    assert math.isnan(mean_views_used(model))
    model(images[:1])
    assert mean_views_used(model) == counts[0]
    assert mean_views_used(twin) == pytest.approx(np.mean(counts))


@pytest.mark.parametrize(
    "keywords",
    [
        {"tolerance": -0.1},
        {"tolerance": math.nan},
        {"tolerance": "0.1"},
        {"tolerance": True},
        {"tolerance": 0.1, "statistic": "median"},
        {"tolerance": 0.1, "max_views": 0},
    ],
)
def test_what_cannot_be_is_refused(keywords):
    model = PatchBackbone()
    with pytest.raises(ConfigError, match=r"tolerance|max_views"):
        SRTWrapper(model, **keywords)
    assert type(model) is PatchBackbone
