"""Subclasses of timm's models, calls and sizes that could be misread, ways to hold SRT wrongly."""

from __future__ import annotations

import copy
import math

import pytest

pytest.importorskip("timm", reason="needs timm")

import timm
import torch
from srt_plugins.adapters import describe, find_backbone
from timm.models.vision_transformer import VisionTransformer
from torch import nn
from torch.nn import functional as F

from srt_plugins import AdapterError, ConfigError, SRTWrapper, attach, detach, dispersion
from srt_plugins.errors import CaptureError
from tests import readings
from tests.contracts import VIEWS, run, same
from tests.timm.models import COARSE, MODELS, ODD, SQUARE, WIDE, Call, build, images

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")

SMALL = dict(img_size=64, embed_dim=16, depth=2, num_heads=2, num_classes=5, dynamic_img_size=True)


def ensembled(model, **keywords):
    return SRTWrapper(copy.deepcopy(model), **{"views": VIEWS, **keywords})


# --- subclasses elsewhere ------------------------------------------------------------------------


class Maps(VisionTransformer):
    """Maps with their class token, of images of any size, completed on both sides."""

    def forward(self, x):
        missing = [-n % 16 for n in x.shape[-2:]]
        (top, bottom), (left, right) = ((n // 2, n - n // 2) for n in missing)
        x = F.pad(x, (left, right, top, bottom))
        asked = dict(return_prefix_tokens=True, intermediates_only=True)
        return tuple([m, p[:, 0]] for m, p in self.forward_intermediates(x, **asked))


class Last(VisionTransformer):
    """The last map, channels last."""

    def forward(self, x):
        tokens = self.forward_features(x)[:, 1:]
        return tokens.unflatten(1, [n // 16 for n in x.shape[-2:]])


class Projected(VisionTransformer):
    """Tokens of a width of their own."""

    def __init__(self, **keywords):
        super().__init__(**keywords)
        self.project = nn.Linear(16, 6)

    def forward_features(self, x):
        return self.project(super().forward_features(x))


def made(cls, **keywords):
    torch.manual_seed(0)
    return cls(**{**SMALL, **keywords}).eval()


@pytest.mark.parametrize("size", [WIDE, ODD])
def test_a_forward_of_ones_own_is_ensembled(size):
    model = made(Maps)
    assert describe(model).entries[0] == "forward"
    wrapped = ensembled(model)
    readings.check(run, wrapped, model, images(size), ("NCHW/16", "pooled") * 2)
    if size == WIDE:
        call = MODELS["vit"].calls[0]
        readings.check(call, wrapped, model, images(size), call.readings, 1)


def test_channels_last_and_tokens_of_another_width():
    readings.check(run, ensembled(made(Last)), made(Last), images(WIDE), ("NHWC/16",))
    model, call = made(Projected), Call("forward_features", {}, ("tokens/16",))
    readings.check(call, ensembled(model), model, images(WIDE), call.readings, 1)


def test_a_layer_below_a_forward_of_ones_own():
    model = made(Maps)
    first, last = run(ensembled(model, layer=0), images(ODD))
    plain = run(model, images(ODD))
    assert [t.shape for t in (*first, *last)] == [t.shape for pair in plain for t in pair]
    torch.testing.assert_close(first, run(ensembled(model), images(ODD))[0])
    assert not torch.allclose(last[0], plain[1][0], rtol=1e-3)


# --- what could be misread -----------------------------------------------------------------------


@pytest.mark.parametrize("fmt", ["NCHW", "NHWC"])
def test_as_many_channels_as_rows_and_columns(fmt):
    model = timm.create_model(
        "mambaout_femto", depths=(1, 1, 1, 1), dims=(16, 8, 16, 16), num_classes=5
    ).eval()
    call = Call(
        "forward_intermediates",
        dict(indices=[0], output_fmt=fmt, intermediates_only=True),
        (f"{fmt}/4",),
    )
    assert call(model, images(SQUARE))[0].shape == (1, 16, 16, 16)
    readings.check(call, ensembled(model), model, images(SQUARE), call.readings)


def test_small_images_that_fit_several_strides_are_refused():
    model = SRTWrapper(build(MODELS["resnet"]), views=VIEWS)
    with pytest.raises(AdapterError, match=r"one reading.*\(1, 16, 2, 2\).*40x40.*multiples of 32"):
        run(model, images((40, 40)))
    assert run(model, images(SQUARE)).shape == (1, 5)


def test_tokens_in_an_order_of_windows_are_refused_and_the_last_ones_are_not():
    model = build(MODELS["hiera"])
    SRTWrapper(model, views=VIEWS)
    with torch.no_grad(), pytest.raises(AdapterError, match=r"output\[0\]: \(1, 64, 16\)"):
        model.forward_intermediates(images(SQUARE), indices=[1])  # stops at the second stage
    with torch.no_grad():
        tokens, maps = model.forward_intermediates(images(SQUARE))
        (alone,) = model.forward_intermediates(images(SQUARE), indices=[1], intermediates_only=True)
    torch.testing.assert_close(tokens, maps[-1].flatten(2).transpose(1, 2))
    torch.testing.assert_close(alone, maps[1])


def test_sequences_with_channels_first_are_refused():
    model = timm.create_model("efficientvim_m1", num_classes=5).eval()
    image = images((128, 256))  # 8 x 16 tokens, as many as channels
    with pytest.raises(AdapterError, match=r"output\[0\]: \(1, 128, 49\)"):
        run(ensembled(model), image)
    maps = Call("forward_intermediates", dict(indices=[0], intermediates_only=True), ())
    assert maps(ensembled(model), image)[0].shape == maps(model, image)[0].shape


def test_strides_that_timm_rounds_are_refused_and_exact_ones_can_be_named():
    model = timm.create_model("crossvit_tiny_240", num_classes=5).eval()
    with torch.no_grad():
        with pytest.raises(
            AdapterError, match=r"20x20 \(stride 12\).*output\[1\]: \(1, 197, 192\)"
        ):
            ensembled(model).forward_features(images((240, 240)))
        fine, coarse = ensembled(model, outputs=[0]).forward_features(images((240, 240)))
        plain = model.forward_features(images((240, 240)))
    assert not torch.allclose(fine, plain[0], atol=1e-3)
    torch.testing.assert_close(coarse, plain[1])
    with torch.no_grad(), pytest.raises(AdapterError, match="resizes images by itself"):
        ensembled(model).forward_features(images((230, 230)))


class Resizing(VisionTransformer):
    def forward_features(self, x, **keywords):
        return super().forward_features(F.interpolate(x, (96, 96)), **keywords)


class Labels(VisionTransformer):
    def forward(self, x):
        return super().forward(x).argmax(1)


class Oblong(VisionTransformer):
    def __init__(self, **keywords):
        super().__init__(patch_size=(16, 8), **keywords)


@pytest.mark.parametrize(
    ("cls", "said"),
    [
        (Resizing, r"3x4 \(stride 16\) for an image of 48x64, got output: \(1, 37, 16\).*resizes"),
        (Labels, "floating-point"),
        (Oblong, r"\(1, 25, 16\)"),
    ],
)
def test_outputs_that_cannot_be_ensembled_are_named(cls, said):
    model = made(cls)
    wrapped = ensembled(model)
    with pytest.raises(AdapterError, match=said):
        run(wrapped, images(WIDE))
    assert same(run(detach(wrapped), images(WIDE)), run(model, images(WIDE)))


# --- sizes ---------------------------------------------------------------------------------------


def test_the_size_of_dinov2_by_its_longer_side():
    model = build(MODELS["dinov2"])
    call = MODELS["dinov2"].calls[2]
    readings.check(call, ensembled(model), model, images((98, 518)), call.readings, 5)
    with torch.no_grad():
        assert ensembled(model).forward_features(images((518, 518))).shape == (1, 5 + 37 * 37, 16)


def test_tokens_and_maps_of_a_large_image_are_the_same_features():
    model = ensembled(build(MODELS["vit"]))
    with torch.no_grad():
        tokens = model.forward_features(images((480, 640)))
        asked = dict(indices=1, norm=True, intermediates_only=True)
        (maps,) = model.forward_intermediates(images((480, 640)), **asked)
    assert maps.shape == (1, 16, 30, 40)
    torch.testing.assert_close(tokens[:, 1:], maps.flatten(2).transpose(1, 2))


@pytest.mark.parametrize(
    ("name", "size"), [("vit-fixed", WIDE), ("swin-fixed", COARSE), ("vit", ODD)]
)
def test_sizes_that_timm_refuses_give_its_own_error(name, size):
    model = build(MODELS[name])
    with pytest.raises(AssertionError) as plain:
        run(model, images(size))
    wrapped = ensembled(model)
    with pytest.raises(AssertionError) as error:
        run(wrapped, images(size))
    assert str(error.value) == str(plain.value)
    assert not same(run(wrapped, images(SQUARE)), run(model, images(SQUARE)))


# --- how it is called ----------------------------------------------------------------------------


def test_images_by_keyword_and_masks():
    model = ensembled(build(MODELS["vit"]))
    image = images(WIDE)
    with torch.no_grad():
        expected = model.forward_intermediates(image, [0])
        assert same(model.forward_intermediates(indices=[0], x=image), expected)
        assert same(model(x=image), model(image))
        with pytest.raises(ConfigError, match="only tensor"):
            model.forward_features(image, attn_mask=torch.ones(13, 13))
        with pytest.raises(TypeError, match="indexes"):
            model.forward_intermediates(image, indexes=[0])


def test_a_finer_stride_the_median_and_the_dispersion():
    model, image = build(MODELS["deit"]), images(WIDE, 2)
    wrapped = ensembled(model, stride=4, dispersion=True)
    with torch.no_grad():
        assert wrapped.forward_features(image).shape == (2, 2 + 12 * 16, 16)
    assert [tuple(d.shape) for d in dispersion(wrapped)] == [(2, 1, 12, 16)]
    assert run(wrapped, image).shape == (2, 5)
    with torch.no_grad():
        (median,) = ensembled(model, statistic="median").get_intermediate_layers(image, 1)
        (mean,) = ensembled(model).get_intermediate_layers(image, 1)
    assert median.shape == mean.shape and not torch.equal(median, mean)


def test_outputs_that_are_not_named_come_from_the_centre_view():
    model, call = build(MODELS["vit"]), MODELS["vit"].calls[1]
    some = call(ensembled(model, outputs=[1]), images(WIDE))
    every, plain = call(ensembled(model), images(WIDE)), call(model, images(WIDE))
    torch.testing.assert_close(some[0], plain[0])
    torch.testing.assert_close(some[1], every[1])


def test_views_are_run_once_however_methods_call_each_other():
    model = ensembled(build(MODELS["vit"]))
    seen = []
    model.patch_embed.register_forward_hook(lambda *_: seen.append(1))
    with torch.no_grad():
        model.get_intermediate_layers(images(WIDE))  # calls forward_intermediates
        model(images(WIDE))  # calls forward_features
    assert len(seen) == 2 * len(VIEWS)


def test_a_layer_that_a_call_stops_before_is_named():
    model = ensembled(build(MODELS["vit"]), layer=1)
    with torch.no_grad(), pytest.raises(CaptureError, match=r"blocks\.1"):
        model.forward_intermediates(images(WIDE), indices=[0], stop_early=True)


def test_models_whose_last_blocks_are_pruned():
    model = timm.create_model("vit_tiny_patch16_224", **{**SMALL, "depth": 4}).eval()
    model.prune_intermediate_layers([1])
    assert describe(model).blocks == ("blocks.0", "blocks.1")
    assert run(ensembled(model, layer=-1), images(WIDE)).shape == run(model, images(WIDE)).shape


def test_a_model_inside_another():
    inner = timm.create_model("vit_tiny_patch16_224", **SMALL)
    whole = nn.Sequential(nn.Identity(), inner, nn.Softmax(1)).eval()
    assert find_backbone(whole) is inner
    before = run(whole, images(WIDE))
    assert not torch.equal(run(attach(whole, views=VIEWS), images(WIDE)), before)
    assert torch.equal(run(detach(whole), images(WIDE)), before)
    assert math.isclose(before.sum().item(), 1, rel_tol=1e-5)


def test_parts_take_no_images():
    for target in ("blocks.0", "patch_embed", "head"):
        with pytest.raises(ConfigError, match="that takes images"):
            attach(build(MODELS["vit"]), target=target)


def test_layers_of_timm_are_no_backbones():
    model = build(MODELS["vit"])
    for module in (model.blocks, model.blocks[0], model.patch_embed, nn.Linear(1, 1)):
        assert describe(module).family.endswith("(probed)")
