"""Wrapping a live module: what changes, what stays, what is refused."""

from __future__ import annotations

import copy
import inspect
import io
import pickle
import warnings

import numpy as np
import pytest
import torch
from torch import nn

import srt_plugins
from srt_plugins import ConfigError, SRTWrapper, attach, detach, srt_enabled
from srt_plugins.wrapper import SRTModule
from tests import reference
from tests.toys import Model, PairBackbone, PatchBackbone

IMAGES = torch.randn(2, 3, 24, 40, generator=torch.Generator().manual_seed(1))


@pytest.fixture(autouse=True)
def no_gradients():
    with torch.no_grad():
        yield


def plain(backbone):
    """The plain forward as a function of one float64 image."""
    twin = copy.deepcopy(backbone).double().eval()

    def run(image):
        with torch.no_grad():
            return twin(torch.from_numpy(image)[None])[0].numpy()

    return run


@pytest.mark.parametrize("partial", ["ceil", "floor"])
@pytest.mark.parametrize("size", [(24, 40), (27, 45)])
def test_default_equals_the_oracle(partial, size):
    backbone = PatchBackbone(8, partial=partial).eval()
    images = torch.randn(2, 3, *size)
    run = plain(backbone)
    got = SRTWrapper(backbone)(images)
    views = [(0, 0), (4, 4), (0, 4), (4, 0)]
    for i, image in enumerate(images.double().numpy()):
        expected = reference.srt(run, image, views, 8, "replicate")["mean"]
        np.testing.assert_allclose(got[i].numpy(), expected, rtol=1e-4, atol=1e-5)


def test_it_is_the_same_module_with_the_same_names():
    backbone = PatchBackbone().eval()
    keys, names = list(backbone.state_dict()), [n for n, _ in backbone.named_parameters()]
    attributes = set(vars(backbone))
    assert SRTWrapper(backbone, level=1) is backbone
    assert isinstance(backbone, PatchBackbone) and isinstance(backbone, SRTModule)
    assert list(backbone.state_dict()) == keys
    assert [n for n, _ in backbone.named_parameters()] == names
    assert set(vars(backbone)) - attributes == {"_srt"}
    assert inspect.signature(backbone.forward) == inspect.signature(PatchBackbone().forward)
    detach(backbone)
    assert type(backbone) is PatchBackbone and set(vars(backbone)) == attributes


@pytest.mark.parametrize(
    "keywords",
    [
        {"level": 0},
        {"level": 0, "views": 9},
        {"views": [(0, 0)]},
        {"views": 1},
        {"level": 0, "padding": "zeros"},
        {"level": 0, "layer": None, "statistic": "median"},
    ],
)
@pytest.mark.parametrize("size", [(24, 40), (27, 45)])
def test_no_translation_is_bit_identical(keywords, size):
    images = torch.randn(2, 3, *size)
    backbone = PatchBackbone().eval()
    expected = backbone(images)
    assert torch.equal(SRTWrapper(backbone, **keywords)(images), expected)


def test_training_mode_passes_straight_through():
    backbone = PatchBackbone()
    expected = backbone(IMAGES)
    SRTWrapper(backbone)
    assert torch.equal(backbone.train()(IMAGES), expected)
    assert not torch.equal(backbone.eval()(IMAGES), expected)


def test_nested_outputs_keep_their_structure():
    backbone = PairBackbone(8).eval()
    before = backbone(IMAGES)
    after = SRTWrapper(backbone)(IMAGES)
    assert list(after) == list(before) and type(after["deep"]) is list
    assert after["coarse"].shape == before["coarse"].shape
    assert [t.shape for t in after["deep"]] == [t.shape for t in before["deep"]]
    assert not torch.equal(after["coarse"], before["coarse"])


def test_outputs_that_are_not_named_come_from_the_centre_view():
    backbone = PairBackbone(8).eval()
    before = backbone(IMAGES)
    for views in (None, [(4, 4), (-4, -4)]):
        after = SRTWrapper(backbone, outputs=["coarse"], views=views)(IMAGES)
        assert not torch.equal(after["coarse"], before["coarse"])
        torch.testing.assert_close(after["deep"], before["deep"])
    with pytest.raises(ConfigError, match=r"\['coarse', 'deep'\]"):
        SRTWrapper(backbone, outputs=["fine"])(IMAGES)


def test_image_level_tokens_are_averaged_over_views():
    backbone = PairBackbone(8).eval()
    views = [(0, 0), (4, -4)]
    images = IMAGES.double().numpy()
    got = SRTWrapper(backbone, views=views)(IMAGES)["deep"][1]
    detach(backbone).double()
    for i, image in enumerate(images):
        tokens = [
            backbone(torch.from_numpy(reference.translate(image, *v, "replicate"))[None])["deep"][1]
            for v in views
        ]
        torch.testing.assert_close(got[i].double(), sum(tokens)[0] / 2, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
def test_dtype_is_the_backbone_s(dtype):
    backbone = PatchBackbone().to(dtype).eval()
    assert SRTWrapper(backbone)(IMAGES.to(dtype)).dtype == dtype


def test_memory_layout_is_the_backbone_s():
    backbone = PatchBackbone().eval().to(memory_format=torch.channels_last)
    images = IMAGES.contiguous(memory_format=torch.channels_last)
    before = backbone(images)
    after = SRTWrapper(backbone)(images)
    assert after.stride() == before.stride()


def test_autocast_changes_nothing_but_the_backbone():
    backbone = SRTWrapper(PatchBackbone().eval(), level=2)
    exact = backbone(IMAGES)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        got = backbone(IMAGES)
    torch.testing.assert_close(got.float(), exact, rtol=0.02, atol=0.02)


@pytest.mark.parametrize("view_batch", [1, 2, 3, "auto"])
def test_chunks_do_not_change_the_result(view_batch):
    backbone = PatchBackbone().eval()
    expected = SRTWrapper(backbone, level=2)(IMAGES)
    got = SRTWrapper(backbone, level=2, view_batch=view_batch)(IMAGES)
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-6)


def test_finer_stride_median_and_dispersion():
    backbone = PatchBackbone(8).eval()
    run = plain(backbone)
    image = IMAGES[0].double().numpy()
    views = [(dy, dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1)]
    expected = reference.srt(run, image, views, 8, "zeros", cell=2)
    how = {"level": 1, "stride": 2, "padding": "zeros"}
    mean = SRTWrapper(backbone, dispersion=True, **how)(IMAGES[:1])
    spread = srt_plugins.dispersion(backbone)
    median = SRTWrapper(backbone, statistic="median", **how)(IMAGES[:1])
    np.testing.assert_allclose(mean[0], expected["mean"], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(median[0], expected["median"], rtol=1e-4, atol=1e-5)
    rms = np.sqrt((expected["std"] ** 2).mean(0))
    np.testing.assert_allclose(spread[0][0, 0], rms, rtol=1e-4, atol=1e-5)


def test_dispersion_must_have_been_asked_for():
    backbone = SRTWrapper(PatchBackbone().eval())
    backbone(IMAGES)
    with pytest.raises(ConfigError, match="dispersion=True"):
        srt_plugins.dispersion(backbone)


def test_gradients_flow_and_warn_once():
    backbone = SRTWrapper(PatchBackbone().eval())
    with torch.enable_grad():
        with pytest.warns(UserWarning, match="all 4 views"):
            backbone(IMAGES).sum().backward()
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            backbone(IMAGES)
    assert backbone.embed.weight.grad.abs().sum() > 0


def test_copies_and_pickles_are_wrapped_and_equal():
    model = attach(Model().eval(), level=2)
    expected = model(IMAGES)
    buffer = io.BytesIO()
    torch.save(model, buffer)
    buffer.seek(0)
    copies = [
        copy.deepcopy(model),
        pickle.loads(pickle.dumps(model)),
        torch.load(buffer, weights_only=False),
        torch.optim.swa_utils.AveragedModel(model).module,
    ]
    for twin in copies:
        assert isinstance(twin.backbone, SRTModule)
        assert torch.equal(twin(IMAGES), expected)
    detach(copies[0])
    assert torch.equal(model(IMAGES), expected)


def test_checkpoints_are_those_of_the_plain_model():
    model = Model().eval()
    wrapped = attach(Model().eval())
    nn.init.zeros_(wrapped.head.weight)
    wrapped.load_state_dict(model.state_dict(), strict=True)
    model.load_state_dict(wrapped.state_dict(), strict=True)


def test_containers_are_looked_through():
    model = Model().eval()
    ema = torch.optim.swa_utils.AveragedModel(model)
    attach(ema)
    assert isinstance(ema.module.backbone, SRTModule)
    assert not isinstance(model.backbone, SRTModule)


def test_wrapping_again_changes_the_settings():
    backbone = PatchBackbone().eval()
    first = SRTWrapper(backbone, level=1)(IMAGES)
    again = SRTWrapper(backbone, level=3)
    assert type(again).__mro__.count(SRTModule) == 1
    assert not torch.equal(again(IMAGES), first)
    detach(again)
    assert type(backbone) is PatchBackbone


def test_srt_enabled_is_on_only_inside():
    model = Model().eval()
    before = model(IMAGES)
    with srt_enabled(model, level=2):
        inside = model(IMAGES)
    assert torch.equal(model(IMAGES), before) and not torch.equal(inside, before)
    with pytest.raises(RuntimeError, match="from inside"), srt_enabled(model):
        raise RuntimeError("from inside")
    assert type(model.backbone) is PatchBackbone


def test_srt_enabled_overrides_and_restores_an_attached_model():
    model = attach(Model().eval(), level=1)
    outside = model(IMAGES)
    with srt_enabled(model, enabled=False):
        assert torch.equal(model(IMAGES), detach(copy.deepcopy(model))(IMAGES))
    with srt_enabled(model, level=3):
        assert not torch.equal(model(IMAGES), outside)
    assert torch.equal(model(IMAGES), outside)


@pytest.mark.parametrize(
    ("keywords", "said"),
    [
        ({"levle": 3}, "'level'"),
        ({"level": -1}, "level"),
        ({"level": 1.5}, "level"),
        ({"views": "gird"}, "'phases'"),
        ({"statistic": "max"}, "mean, median"),
        ({"padding": "mirror"}, "replicate, reflect, zeros"),
        ({"view_batch": 0}, "view_batch"),
        ({"stride": 0}, "stride"),
        ({"stride": 2, "layer": 1}, "stride"),
        ({"smooth": 4}, "smooth"),
        ({"layer": 1}, "blocks are not known"),
        ({"dispersion": True, "statistic": "median"}, "dispersion"),
    ],
)
def test_bad_settings_are_refused_and_leave_the_model_untouched(keywords, said):
    model = Model().eval()
    before = model(IMAGES)
    with pytest.raises(ConfigError, match=said):
        attach(model, **keywords)
    assert type(model.backbone) is PatchBackbone and "_srt" not in vars(model.backbone)
    assert torch.equal(model(IMAGES), before)


@pytest.mark.parametrize(
    ("keywords", "said"),
    [({"level": 8}, "one patch"), ({"stride": 3}, r"\[1, 2, 4, 8\]")],
)
def test_settings_that_a_probed_patch_forbids(keywords, said):
    backbone = SRTWrapper(PatchBackbone(8).eval(), **keywords)
    with pytest.raises(ConfigError, match=said):
        backbone(IMAGES)


def test_bad_backbones_are_refused():
    with pytest.raises(ConfigError, match="torch module"):
        SRTWrapper(lambda x: x)
    with pytest.raises(ConfigError, match="DataParallel"):
        SRTWrapper(nn.DataParallel(PatchBackbone()))
    with pytest.raises(ConfigError, match="then compile"):
        SRTWrapper(torch.compile(PatchBackbone()))
    patched = PatchBackbone()
    patched.forward = lambda x: x
    with pytest.raises(ConfigError, match="patched forward"):
        SRTWrapper(patched)
    with pytest.raises(srt_plugins.AdapterError, match=r"\.head \(Conv2d\)"):
        model = Model()
        del model.backbone
        attach(model)


class Tokens(nn.Module):
    def forward(self, images):
        return images.flatten(2).transpose(1, 2)


class ChannelsLast(nn.Module):
    def forward(self, images):
        return nn.functional.avg_pool2d(images, 8).permute(0, 2, 3, 1)


@pytest.mark.parametrize("backbone", [Tokens(), ChannelsLast()])
def test_outputs_that_are_no_maps_are_named(backbone):
    with pytest.raises(srt_plugins.AdapterError, match=r"output: \(1, "):
        SRTWrapper(backbone.eval())(IMAGES)


class MapsAndTokens(PatchBackbone):
    def forward(self, images):
        tokens = super().forward(images)
        return tokens, tokens.flatten(2).transpose(1, 2)


def test_patch_tokens_beside_maps_are_not_averaged_unaligned():
    with pytest.raises(srt_plugins.AdapterError, match="as many tokens as map positions"):
        SRTWrapper(MapsAndTokens(8).eval())(IMAGES)


def test_images_must_be_images():
    backbone = SRTWrapper(PatchBackbone(8).eval())
    with torch.no_grad():
        assert torch.equal(backbone(images=IMAGES), backbone(IMAGES))
    with pytest.raises(ConfigError, match="got none"):
        backbone()
    with pytest.raises(ConfigError, match="B, C, H, W"):
        backbone(IMAGES[0])
    with pytest.raises(ConfigError, match="at least one patch"):
        backbone(torch.zeros(1, 3, 4, 40))


def test_nan_images_pass_through():
    images = IMAGES.clone()
    images[0] = float("nan")
    for statistic in ("mean", "median"):
        got = SRTWrapper(PatchBackbone().eval(), statistic=statistic)(images)
        assert got[0].isnan().all() and got[1].isfinite().all()
