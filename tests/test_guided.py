"""Smoothing along the image through the wrapper: after the views, at every kind of output."""

from __future__ import annotations

import argparse
import copy

import numpy as np
import pytest
import torch

from srt_plugins import (
    ConfigError,
    SRTWrapper,
    attach,
    detach,
    dispersion,
    srt_enabled,
    views_used,
)
from srt_plugins.evaluation.keywords import add_srt_options, given_keywords, parse_row
from tests import reference
from tests.toys import Model, PairBackbone, PatchBackbone

VIEWS = [(0, 0), (3, -2), (-1, 2)]
STRONG = "guided:1:0.5"


@pytest.fixture(autouse=True)
def no_gradients():
    with torch.no_grad():
        yield


def photos(*size, batch=2, channels=3):
    """Colours that hang together, in float64."""
    generator = torch.Generator().manual_seed(7)
    y, x = torch.meshgrid(*(torch.arange(n) for n in size), indexing="ij")
    waves = torch.stack([torch.sin(x / 5 + c) + torch.cos(y / (4 + c)) for c in range(channels)])
    noise = torch.randn(batch, channels, *size, generator=generator)
    return (torch.arange(1, batch + 1)[:, None, None, None] * waves + 0.3 * noise).double()


def smoothed(tokens, image, stride, size, cell, smooth=STRONG):
    _, space, colour = smooth.split(":")
    return reference.guided(tokens, image, stride, size, cell, float(space), float(colour))


def close(got, expected, tolerance=1e-9):
    expected = torch.from_numpy(np.stack(expected))
    assert got.shape == expected.shape
    assert (got.double() - expected).abs().max() <= tolerance * expected.abs().max()


def single(backbone):
    """The plain forward as a function of one float64 image."""
    twin = copy.deepcopy(backbone)
    return lambda image: twin(torch.from_numpy(image)[None])[0].numpy()


# smooth, stride, and the cells that views are aggregated in before: tokens, or half tokens where
# the output is finer and the filter narrow.
CASES = [(STRONG, None, 8), (STRONG, 2, 8), ("guided:0.6:0.3", 2, 4), ("guided:0.6:0.3", 8, 8)]


@pytest.mark.parametrize(("smooth", "stride", "size"), CASES)
@pytest.mark.parametrize("partial", ["ceil", "floor"])
def test_views_and_then_the_filter_equal_the_oracle(smooth, stride, size, partial):
    backbone = PatchBackbone(8, partial=partial).double().eval()
    images = photos(27, 45)
    run = single(backbone)
    got = SRTWrapper(backbone, views=VIEWS, smooth=smooth, stride=stride)(images)
    expected = []
    for image in images.numpy():
        mean = reference.srt(run, image, VIEWS, 8, "replicate", size)["mean"]
        expected.append(smoothed(mean, image, 8, size, stride or 8, smooth))
    close(got, expected)


@pytest.mark.parametrize("keywords", [{"level": 0}, {"views": [(0, 0)]}, {"views": 1}])
@pytest.mark.parametrize("stride", [None, 4])
def test_one_view_is_the_free_control(keywords, stride):
    backbone = PatchBackbone(8).double().eval()
    images = photos(24, 40)
    tokens = backbone(images).numpy()
    got = SRTWrapper(backbone, smooth=STRONG, stride=stride, **keywords)(images)
    pairs = zip(tokens, images.numpy())
    close(got, [smoothed(t, i, 8, 8, stride or 8) for t, i in pairs])
    assert views_used(backbone) == (1, 1)


def test_guided_alone_has_the_default_strength():
    backbone = PatchBackbone(8).double().eval()
    images = photos(24, 40)
    got, same, other = (
        SRTWrapper(backbone, level=0, smooth=smooth)(images)
        for smooth in ("guided", "guided:0.75:0.4", "guided:1")
    )
    assert torch.equal(got, same) and not torch.allclose(got, other, rtol=1e-3)


def test_median_and_dispersion_are_those_of_the_views():
    backbone = PatchBackbone(8).double().eval()
    images = photos(24, 40)
    run = single(backbone)
    how = [reference.srt(run, i, VIEWS, 8, "replicate") for i in images.numpy()]
    median = SRTWrapper(backbone, views=VIEWS, statistic="median", smooth=STRONG)(images)
    pairs = list(zip(how, images.numpy()))
    close(median, [smoothed(h["median"], i, 8, 8, 8) for h, i in pairs])
    mean = SRTWrapper(backbone, views=VIEWS, dispersion=True, smooth=STRONG)(images)
    close(mean, [smoothed(h["mean"], i, 8, 8, 8) for h, i in pairs])
    # How the views disagree is not smoothed.
    spread = [np.sqrt((h["std"] ** 2).mean(0, keepdims=True)) for h in how]
    close(dispersion(backbone)[0], spread)


def test_with_a_tolerance_every_image_is_smoothed_by_itself():
    backbone = SRTWrapper(PatchBackbone(8).double().eval(), smooth=STRONG, tolerance=0.0, views=3)
    images = photos(24, 40)
    together = backbone(images)
    assert views_used(backbone) == (3, 3)
    alone = torch.cat([backbone(image[None]) for image in images])
    torch.testing.assert_close(together, alone, rtol=1e-12, atol=1e-12)
    SRTWrapper(backbone, smooth=STRONG, views=3)
    torch.testing.assert_close(together, backbone(images), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("stride", [None, 2])
def test_each_level_of_a_pyramid_is_smoothed_at_its_own_stride(stride):
    backbone = PairBackbone(8).double().eval()
    images = photos(24, 40)
    plain = backbone(images)
    got = SRTWrapper(backbone, level=0, smooth=STRONG, stride=stride)(images)
    for level, tokens, own in (
        (got["coarse"], plain["coarse"], 8),
        (got["deep"][0], plain["deep"][0], 4),
    ):
        pairs = zip(tokens.numpy(), images.numpy())
        close(level, [smoothed(t, i, own, own, stride or own) for t, i in pairs])
    # Image-level tokens have no place.
    torch.testing.assert_close(got["deep"][1], plain["deep"][1])
    only = SRTWrapper(backbone, level=0, smooth=STRONG, stride=stride, outputs=["coarse"])(images)
    assert torch.equal(only["coarse"], got["coarse"])
    assert torch.equal(only["deep"][0], plain["deep"][0])


def vit(size):
    vits = pytest.importorskip("timm.models.vision_transformer", reason="needs timm")
    torch.manual_seed(0)
    model = vits.VisionTransformer(
        img_size=size, patch_size=8, embed_dim=12, depth=3, num_heads=2, num_classes=5
    )
    return model.double().eval()


def as_grid(tokens, shape):
    """Tokens ``(1 + h * w, C)`` behind a class token as ``(C, h, w)``."""
    return tokens[1:].T.reshape(-1, *shape)


def test_tokens_behind_a_class_token():
    size, shape = (24, 40), (3, 5)
    model, images = vit(size), photos(24, 40)
    plain = model.forward_features(images)
    got = SRTWrapper(model, level=0, smooth=STRONG).forward_features(images)
    torch.testing.assert_close(got[:, 0], plain[:, 0], rtol=1e-12, atol=1e-12)
    pairs = zip(plain.numpy(), images.numpy())
    expected = [smoothed(as_grid(t, shape), i, 8, 8, 8) for t, i in pairs]
    close(got[:, 1:].transpose(1, 2).unflatten(2, shape), expected)


@pytest.mark.parametrize("views", [[(0, 0)], VIEWS])
def test_at_a_layer_tokens_are_smoothed_and_the_rest_runs_once(views):
    """By hand: a hook puts the smoothed tokens of the block in, and the rest runs on them."""
    size, shape = (24, 40), (3, 5)
    model, images = vit(size), photos(24, 40)
    seen = []
    hook = model.blocks[1].register_forward_hook(lambda m, a, output: seen.append(output))
    new = []
    for image in images.numpy():
        seen.clear()
        for dy, dx in views:
            view = reference.translate(image, dy, dx, "replicate")
            model(torch.from_numpy(view)[None])
        tokens = [t[0].numpy() for t in seen]
        mean = reference.aggregate([as_grid(t, shape) for t in tokens], views, 8)["mean"]
        grid = smoothed(mean, image, 8, 8, 8)
        first = np.mean([t[:1] for t in tokens], 0)
        new.append(torch.from_numpy(np.concatenate([first, grid.reshape(len(grid), -1).T])))
    hook.remove()
    hook = model.blocks[1].register_forward_hook(lambda m, a, output: torch.stack(new))
    expected = model.forward_features(images)
    hook.remove()
    got = SRTWrapper(model, views=views, layer=1, smooth=STRONG).forward_features(images)
    close(got, expected.numpy())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_other_dtypes_and_layouts_are_the_backbone_s(dtype):
    backbone = PatchBackbone(8).to(dtype).eval()
    images = photos(24, 40).to(dtype)
    tokens = backbone(images)
    got = SRTWrapper(backbone, level=0, smooth=STRONG)(images)
    assert got.dtype == dtype and got.stride() == tokens.stride()
    pairs = zip(tokens.double().numpy(), images.double().numpy())
    tolerance = {torch.float32: 1e-5, torch.bfloat16: 2**-8, torch.float16: 2**-11}[dtype]
    close(got, [smoothed(t, i, 8, 8, 8) for t, i in pairs], tolerance)


def test_autocast_rounds_the_backbone_and_not_the_filter():
    backbone = PatchBackbone(8).eval()
    images = photos(24, 40).float()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        tokens = backbone(images)
        got = SRTWrapper(backbone, level=0, smooth=STRONG)(images)
    assert got.dtype == tokens.dtype
    pairs = zip(tokens.double().numpy(), images.double().numpy())
    close(got, [smoothed(t, i, 8, 8, 8) for t, i in pairs], 2**-8)


def test_an_image_of_one_colour_and_one_of_one_token():
    backbone = SRTWrapper(PatchBackbone(8).double().eval(), smooth=STRONG)
    gray = backbone(torch.full((1, 3, 24, 40), 0.3, dtype=torch.float64))
    assert gray.isfinite().all()
    tiny = photos(8, 8)
    got = backbone(tiny)
    assert got.shape == (2, 4, 1, 1)
    # A single token is its own mean.
    torch.testing.assert_close(got, srt_off(backbone, tiny))


def srt_off(backbone, images):
    with srt_enabled(backbone, smooth=None):
        return backbone(images)


def test_a_batch_is_its_images():
    backbone = SRTWrapper(PatchBackbone(8).double().eval(), smooth=STRONG, stride=4)
    images = photos(24, 40, batch=3)
    alone = torch.cat([backbone(image[None]) for image in images])
    torch.testing.assert_close(backbone(images), alone, rtol=1e-12, atol=1e-12)


def test_gradients_reach_the_backbone():
    backbone = SRTWrapper(PatchBackbone(8).double().eval(), level=0, smooth=STRONG)
    images = photos(24, 40)
    with torch.enable_grad():
        backbone(images).sum().backward()
    # Every output is a weighted mean of tokens: position terms get one for each.
    assert backbone.embed.weight.grad.isfinite().all()
    assert backbone.position.grad[:, :3, :5].sum() == pytest.approx(2 * 4 * 15)


@pytest.mark.parametrize(
    "smooth",
    ["gided", "guided:", "guided:0", "guided:a", "guided:1:-2", "guided:inf", "guided:1:2:3", "3"],
)
def test_bad_strengths_are_refused_before_anything_is_wrapped(smooth):
    model = Model().eval()
    with pytest.raises(ConfigError, match="Expected smooth to be .*'guided'") as error:
        attach(model, smooth=smooth)
    assert f"got {smooth!r}" in str(error.value)
    assert type(model.backbone) is PatchBackbone
    attach(model, smooth="guided")
    before = model(photos(24, 40).float())
    with pytest.raises(ConfigError), srt_enabled(model, smooth=smooth):
        pass
    assert torch.equal(model(photos(24, 40).float()), before)


def test_a_whole_model_is_smoothed_and_unwrapped_again():
    model = Model().eval()
    images = photos(24, 40).float()
    plain = model(images)
    attach(model, level=0, smooth="guided")
    assert not torch.allclose(model(images), plain)
    assert torch.equal(detach(model)(images), plain)


@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
def test_a_traced_model_gives_the_same_for_other_images():
    model = attach(Model().eval(), smooth="guided", views=2)
    images = photos(24, 40).float()
    traced = torch.jit.trace(model, images[:1], check_trace=False)
    torch.testing.assert_close(traced(images[1:]), model(images[1:]), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("text", ["guided", "guided:0.5", "guided:1:0.7"])
def test_strengths_on_the_command_line(text):
    assert parse_row(f"smooth={text}") == {"smooth": text}
    assert parse_row(f"level=0, smooth={text}, stride=4") == dict(level=0, smooth=text, stride=4)
    parser = argparse.ArgumentParser()
    add_srt_options(parser)
    assert given_keywords(parser.parse_args(["--smooth", text])) == {"smooth": text}
    with pytest.raises(ConfigError, match="smooth"):
        parse_row("smooth=guided:1:x")
