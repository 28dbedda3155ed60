"""Copies of Detectron2's backbones, users' own ones, parts, and ways to hold SRT wrongly."""

from __future__ import annotations

import types

import pytest

pytest.importorskip("detectron2", reason="needs Detectron2 (make setup DETECTRON2=...)")

import torch
from detectron2.layers import ShapeSpec
from detectron2.modeling import FPN, SimpleFeaturePyramid, ViT
from detectron2.modeling.backbone import Backbone
from detectron2.modeling.backbone.fpn import LastLevelMaxPool
from srt_plugins.adapters import describe
from torch import nn

from srt_plugins import AdapterError, ConfigError, SRTWrapper, attach, detach, srt_enabled
from srt_plugins.core import resample
from tests import reference
from tests.contracts import VIEWS, close, run, same, view_inputs
from tests.detectron2.backbones import BACKBONES, EVEN, ODD, build, images, resnet
from tests.detectron2.tiny import built, pictures, tiny_retinanet_cfg

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")


# --- copies, and users' own ----------------------------------------------------------------------


def copied(cls):
    """The class as a project has it that copied its source: another module, bases apart from it."""
    body = {k: v for k, v in vars(cls).items() if k not in ("__dict__", "__weakref__")}
    made = type(cls.__name__, cls.__bases__, {**body, "__module__": "project.backbones"})
    # super(SimpleFeaturePyramid, self) and such look the class up by name.
    made.__init__ = lambda self, *a, **k: rebound(cls.__init__, made)(self, *a, **k)
    return made


def rebound(function, cls):
    """The function with its own class's name bound to the copy, and the cell of super() too."""
    cells = tuple(
        types.CellType(cls) if name == "__class__" else cell
        for name, cell in zip(function.__code__.co_freevars, function.__closure__ or ())
    )
    scope = {**function.__globals__, cls.__name__: cls}
    made = types.FunctionType(function.__code__, scope, function.__name__, None, cells or None)
    made.__defaults__, made.__kwdefaults__ = function.__defaults__, function.__kwdefaults__
    return made


def test_a_copy_of_a_family_is_known_by_its_name():
    torch.manual_seed(0)
    net = copied(ViT)(
        img_size=64, embed_dim=16, depth=2, num_heads=2, pretrain_img_size=32, window_size=2
    )
    backbone = copied(SimpleFeaturePyramid)(
        net, "last_feat", 8, (4.0, 2.0, 1.0, 0.5), top_block=LastLevelMaxPool()
    ).eval()
    assert not isinstance(backbone, SimpleFeaturePyramid) and not isinstance(net, ViT)
    adapter = describe(backbone)
    assert (adapter.patch, adapter.floor, len(adapter.blocks)) == (16, 16, 2)
    for size in (EVEN, ODD):
        every = [run(backbone, view) for view in view_inputs(images(size))]
        found = run(SRTWrapper(backbone, views=VIEWS), images(size))
        for key, stride in zip(adapter.names, adapter.strides):
            parts = [output[key][0].double().numpy() for output in every]
            close(found[key], reference.aggregate(parts, VIEWS, stride)["mean"])
        detach(backbone)


class OwnPyramid(Backbone):
    """A user's own pyramid on Detectron2's ResNet."""

    def __init__(self):
        super().__init__()
        self.bottom_up = resnet(("res4",))
        self.half = nn.MaxPool2d(4, 4)

    def forward(self, x):
        features = self.bottom_up(x)["res4"]
        return {"p4": features, "p6": self.half(features)}

    def output_shape(self):
        return {"p4": ShapeSpec(channels=256, stride=16), "p6": ShapeSpec(channels=256, stride=64)}


def test_views_of_an_own_pyramid_follow_the_backbone_below_it():
    adapter = describe(OwnPyramid())
    assert (adapter.patch, adapter.strides) == (16, (16, 64))
    assert adapter.blocks[-1] == "bottom_up.res4.0"


def test_a_family_with_an_own_stem_falls_back_to_what_it_declares():
    class Stem(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 16, 8, 8)

        def forward(self, x):
            return self.conv(x).permute(0, 2, 3, 1)

    class Own(ViT):
        def __init__(self):
            super().__init__(img_size=64, patch_size=8, embed_dim=16, depth=1, num_heads=2)
            self.patch_embed = Stem()

    backbone = Own().eval()
    assert describe(backbone).blocks == ()
    plain = run(backbone, images(EVEN))
    assert not same(run(SRTWrapper(backbone, views=2), images(EVEN)), plain)


class Declares(Backbone):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 8, 8)

    def forward(self, x):
        return {"map": self.conv(x)}


class AsProperty(Declares):
    output_shape = property(lambda self: {"map": ShapeSpec(channels=4, stride=8)})


class NoStride(Declares):
    def output_shape(self):
        return {"map": ShapeSpec(channels=4)}


class Raises(Declares):
    def output_shape(self):
        raise RuntimeError("not built yet")


@pytest.mark.parametrize("cls", [Declares, AsProperty, NoStride, Raises])
@pytest.mark.parametrize("way", ["python", "config"])
def test_a_declaration_of_no_use_is_replaced_by_a_probe(cls, way):
    from srt_plugins.detectron2 import srt_backbone

    torch.manual_seed(0)
    wrapped = SRTWrapper(cls().eval(), views=2) if way == "python" else None
    backbone = wrapped or srt_backbone(wraps=cls, views=2).eval()
    plain = detached_run(backbone)
    assert not same(run(backbone, images(EVEN)), plain)
    assert backbone._srt.adapter.strides == (8,)


def detached_run(backbone):
    with srt_enabled(backbone, enabled=False):
        return run(backbone, images(EVEN))


# --- outputs beside the declared ones ------------------------------------------------------------


class Extra(FPN):
    """Returns what nobody declared: a map, tokens and a mask."""

    def forward(self, x):
        found = super().forward(x)
        n = len(x)
        return {
            "bottom": found["p3"][:, :, ::2, ::2],
            **found,
            "tokens": torch.arange(n * 400.0).reshape(n, 100, 4),
            "mask": torch.ones(n, 3, dtype=torch.bool),
        }


@pytest.fixture
def extra():
    features = ["res3", "res4", "res5"]
    torch.manual_seed(0)
    return Extra(resnet(features), features, 8).eval()


def test_undeclared_outputs_are_named_and_can_be_left_out(extra):
    plain = run(extra, images(EVEN, batch=2))
    SRTWrapper(extra, views=VIEWS)
    with pytest.raises(AdapterError, match=r"p3, p4, p5, got 'bottom' too. .*outputs="):
        run(extra, images(EVEN))
    SRTWrapper(extra, views=VIEWS, outputs=["p3", "p5"])
    found = run(extra, images(EVEN, batch=2))
    assert list(found) == list(plain)
    for key in ("bottom", "p4", "mask"):
        assert torch.allclose(found[key], plain[key], atol=1e-5)
    # Of the centre view, as the plain forward gives them for a chunk of one view.
    assert found["tokens"].shape == plain["tokens"].shape
    assert not torch.allclose(found["p3"], plain["p3"], atol=1e-3)


# --- parts ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "target"),
    [
        ("fpn", "bottom_up.res4"),
        ("fpn", "top_block"),
        ("fpn", "fpn_lateral4"),
        ("simple-pyramid", "net.blocks.0"),
        ("simple-pyramid", "simfp_3"),
        ("vit", "blocks"),
        ("swin", "layers.0"),
    ],
)
def test_parts_that_take_features_are_refused(name, target):
    backbone = build(BACKBONES[name])
    with pytest.raises(ConfigError, match="that takes images"):
        attach(backbone, target=target)
    assert type(backbone).__module__.startswith("detectron2.")


def test_a_part_wrapped_after_the_whole_is_refused_when_it_runs():
    backbone = SRTWrapper(build(BACKBONES["fpn"]), views=2)
    SRTWrapper(backbone.bottom_up, views=2)
    with pytest.raises(ConfigError, match="'bottom_up', got both"):
        run(backbone, images(EVEN))
    detach(backbone.bottom_up)
    run(backbone, images(EVEN))


def test_strides_are_refused_in_a_context_too():
    model = built(tiny_retinanet_cfg())
    attach(model, views=2)
    with pytest.raises(ConfigError, match="declares"), srt_enabled(model, stride=8):
        pass
    detach(model)
    with pytest.raises(ConfigError, match="declares"), srt_enabled(model, stride=8):
        pass
    with srt_enabled(model, target="bottom_up", views=2):
        assert model.backbone.bottom_up._srt is not None
        with srt_enabled(model, target="bottom_up", level=1):
            assert model.backbone.bottom_up._srt.settings.level == 1
    attach(model, views=2)
    refused = pytest.raises(ConfigError, match="wrapped already, got 'bottom_up'")
    with refused, srt_enabled(model, target="bottom_up"):
        pass


# --- how it is called ----------------------------------------------------------------------------


def test_images_may_be_given_by_name():
    backbone = SRTWrapper(build(BACKBONES["vit"]), views=2)
    with torch.no_grad():
        assert same(backbone(x=images(EVEN)), backbone(images(EVEN)))


def test_something_that_is_no_module():
    class Predictor:
        model = None

    with pytest.raises(ConfigError, match=r"\.model.*Predictor"):
        attach(Predictor())


def test_tracing_leaves_nothing_in_the_cache():
    backbone = SRTWrapper(build(BACKBONES["vit"]), views=2)
    expected = run(backbone, images(EVEN))
    resample._CACHE.clear()

    class Maps(nn.Module):
        def __init__(self):
            super().__init__()
            self.backbone = backbone

        def forward(self, x):
            return self.backbone(x)["last_feat"]

    traced = torch.jit.trace(Maps().eval(), images(EVEN), check_trace=False)
    assert not resample._CACHE
    torch.testing.assert_close(traced(images(EVEN)), expected["last_feat"], rtol=1e-4, atol=1e-5)


def test_a_model_says_the_same_after_everything():
    model = built(tiny_retinanet_cfg())
    batch = pictures(2)
    with torch.no_grad():
        before = model(batch)
        for keywords in (dict(views=2), dict(target="bottom_up"), dict(layer=1), dict(smooth=3)):
            attach(model, **keywords)
            model(batch)
            detach(model)
        after = model(batch)
    for a, b in zip(before, after):
        assert torch.equal(a["instances"].pred_boxes.tensor, b["instances"].pred_boxes.tensor)
        assert torch.equal(a["instances"].scores, b["instances"].scores)
