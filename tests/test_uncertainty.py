"""What the plugins share of dispersion: maps of several grids, outputs over views, models found."""

from __future__ import annotations

import gc

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.modules import module as torch_module

from srt_plugins import ConfigError, attach, detach
from srt_plugins.core.views import Views
from srt_plugins.uncertainty import combined, depth_std, follow, output_spread

VIEWS = Views(((0, 0), (2, -3), (-1, 1)), (1.0, 2.0, 0.5), (False, False, True))


def moved(array, dy, dx):
    h, w = array.shape[-2:]
    rows, columns = ((np.arange(n) - d).clip(0, n - 1) for n, d in ((h, dy), (w, dx)))
    return array[..., rows, :][..., columns]


def slow_spread(run, image, views):
    """The weighted deviation of each pixel over the views that show it, ``(H, W)``."""
    h, w = image.shape[-2:]
    outs = []
    for (dy, dx), flipped in zip(views.translations, views.mirrored or [False] * len(views)):
        view = moved(image, dy, dx)
        out = run(view[..., ::-1].copy())[..., ::-1] if flipped else run(view)
        outs.append((out, dy, dx))
    found = np.zeros((h, w))
    for y in range(h):
        for x in range(w):
            there = [
                (o[:, y + dy, x + dx], weight)
                for (o, dy, dx), weight in zip(outs, views.weights)
                if 0 <= y + dy < h and 0 <= x + dx < w
            ]
            total = sum(weight for _, weight in there)
            mean = sum(v * weight for v, weight in there) / total
            variance = sum((v - mean) ** 2 * weight for v, weight in there) / total
            found[y, x] = np.sqrt(variance.mean())
    return found


def test_one_map_is_resized_and_several_are_averaged_in_their_logarithms():
    torch.manual_seed(0)
    maps = [torch.rand(2, 1, 4, 5) + 0.1, 1000 * torch.rand(2, 1, 2, 3) + 1]
    whole = [F.interpolate(m, (9, 11), mode="bilinear") for m in maps]
    torch.testing.assert_close(combined(maps[:1], (9, 11)), whole[0])
    found = combined(maps, (9, 11))
    torch.testing.assert_close(found, (whole[0] * whole[1]).sqrt())
    # A level's scale is a factor of the whole map.
    other = combined([maps[0], 7 * maps[1]], (9, 11))
    torch.testing.assert_close(other, 7**0.5 * found)


@pytest.mark.parametrize("view_batch", [1, 3])
def test_spread_of_outputs_is_that_of_a_loop_over_pixels(view_batch):
    torch.manual_seed(0)
    net = nn.Conv2d(3, 4, 3, padding=1).double().requires_grad_(False)
    image = torch.randn(2, 3, 7, 9).double()
    found = output_spread(net, image, VIEWS, view_batch=view_batch)
    assert found.shape == (2, 1, 7, 9)
    for one, each in zip(image, found):
        run = lambda view: net(torch.from_numpy(view)[None])[0].numpy()  # noqa: E731
        np.testing.assert_allclose(each[0], slow_spread(run, one.numpy(), VIEWS), rtol=1e-9)


def test_a_border_that_no_view_shows_is_refused():
    views = Views(((2, 0), (3, 0)), (1.0, 1.0))
    with pytest.raises(ConfigError, match=r"add the view \(0, 0\)"):
        output_spread(lambda x: x, torch.zeros(1, 3, 8, 8), views)


def test_depth_of_a_model_of_transformers():
    pytest.importorskip("transformers", reason="transformers is not installed")
    from .transformers import models, tiny

    model = models.depth_anything(depth_estimation_type="metric", max_depth=60).eval()
    image = tiny.images((28, 42))[:1]
    srt = dict(views=[(0, 0), (3, -2)])
    found = depth_std(model, {"pixel_values": image}, **srt)
    assert found.shape == (1, 28, 42)

    def run(view):
        with torch.no_grad():
            depth = model(pixel_values=torch.from_numpy(view)[None]).predicted_depth
        return F.interpolate(depth[:, None], (28, 42), mode="bilinear")[0].double().numpy()

    views = Views(tuple(srt["views"]), (1.0, 1.0))
    expected = slow_spread(run, image[0].numpy(), views)
    np.testing.assert_allclose(found[0], expected, rtol=1e-3, atol=1e-6)
    assert not any(hasattr(m, "_srt") for m in model.modules())
    attach(model, **srt)
    assert torch.equal(depth_std(model, image), found)
    detach(model)
    with pytest.raises(ConfigError, match="pixel_values"):
        depth_std(model, {"images": image})
    with pytest.raises(ConfigError, match="returns predicted_depth, got BeitForSemantic"):
        depth_std(models.beit(), tiny.images((48, 48)))


class Model(nn.Module):
    pass


def registered():
    return len(torch_module._global_module_registration_hooks)


def test_the_model_is_found_once_and_nothing_stays():
    before = registered()
    part, neck, model, found = nn.Linear(2, 2), nn.Module(), Model(), []
    follow(part, lambda m, name: isinstance(m, Model), lambda m, child: found.append((m, child)))
    nn.Sequential(nn.ReLU())  # of no interest
    neck.part = part
    assert not found and registered() == before + 1
    model.backbone = neck
    assert found == [(model, neck)] and registered() == before
    Model().backbone = neck
    assert len(found) == 1


def test_a_part_that_is_forgotten_is_waited_for_no_longer():
    before = registered()
    follow(nn.Linear(2, 2), lambda *_: True, print)
    gc.collect()
    nn.Sequential(nn.ReLU())
    assert registered() == before
