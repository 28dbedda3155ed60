"""Backbones from plain torch and timm: declared shapes against outputs, and SRT on top of them."""

from __future__ import annotations

import sys

import pytest

pytest.importorskip("detectron2", reason="needs Detectron2 (make setup DETECTRON2=...)")

import torch
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.config import LazyCall as L
from detectron2.config import instantiate
from detectron2.layers import ShapeSpec
from detectron2.modeling import FPN, Backbone, build_backbone, build_model
from torch import nn

from srt_plugins import (
    AdapterError,
    CheckpointError,
    ConfigError,
    MissingDependencyError,
    SRTWrapper,
)
from srt_plugins.detectron2 import TorchBackbone, timm_net, with_srt

from .tiny import SIZE, built, pictures, same, srt_cfg, tiny_linear_cfg

VIEWS = [(0, 0), (2, 2), (0, 2), (2, 0)]


class Net(nn.Module):
    """Maps of strides 4 and 8 in any of the forms that a module may return."""

    def __init__(self, form="list", channels=(5, 7)):
        super().__init__()
        self.form, self.calls = form, 0
        self.first = nn.Conv2d(3, channels[0], 4, 4)
        self.norm = nn.BatchNorm2d(channels[0])
        self.second = nn.Conv2d(channels[0], channels[1], 2, 2)

    def forward(self, images):
        self.calls += 1
        first = self.norm(self.first(images))
        second = self.second(first)
        return {
            "tensor": lambda: second,
            "list": lambda: [first, second],
            "tuple": lambda: (first, second),
            "dict": lambda: {"res2": first, "res3": second},
            "feature_maps": lambda: {"feature_maps": (first, second)},
            "channels_last": lambda: [first.permute(0, 2, 3, 1)],
            "tokens": lambda: first.flatten(2),
        }[self.form]()


class Fixed(nn.Module):
    """Takes one size only."""

    def forward(self, images):
        assert images.shape[-1] == 32
        return images


def shapes(backbone) -> dict:
    return {name: (s.channels, s.stride) for name, s in backbone.output_shape().items()}


# --- TorchBackbone -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "form, expected",
    [
        ("tensor", {"p0": (7, 8)}),
        ("list", {"p0": (5, 4), "p1": (7, 8)}),
        ("tuple", {"p0": (5, 4), "p1": (7, 8)}),
        ("dict", {"res2": (5, 4), "res3": (7, 8)}),
        ("feature_maps", {"p0": (5, 4), "p1": (7, 8)}),
    ],
)
def test_shapes_are_found_once(form, expected):
    backbone = TorchBackbone(Net(form))
    assert isinstance(backbone, Backbone) and backbone.net.calls == 0
    assert shapes(backbone) == expected == shapes(backbone)
    assert backbone.net.calls == 1 and backbone.size_divisibility == 8
    maps = backbone(torch.rand(1, 3, *SIZE))
    found = {n: (m.shape[1], SIZE[0] // m.shape[2], SIZE[1] // m.shape[3]) for n, m in maps.items()}
    assert found == {n: (c, s, s) for n, (c, s) in expected.items()}


def test_finding_shapes_leaves_no_trace():
    backbone = TorchBackbone(Net())
    backbone.net.norm.eval()  # a frozen part of a module in training
    before = {k: v.clone() for k, v in backbone.state_dict().items()}
    modes = [m.training for m in backbone.modules()]
    backbone.output_shape()
    assert modes == [m.training for m in backbone.modules()]
    assert same(before, backbone.state_dict())


def test_declared_shapes_need_no_forward():
    names = ["res2", "res3"]
    backbone = TorchBackbone(Net(), out_features=names, channels=(5, 7), strides=(4, 8))
    assert shapes(backbone) == {"res2": (5, 4), "res3": (7, 8)} and backbone.net.calls == 0
    assert list(backbone(torch.rand(1, 3, *SIZE))) == names


def test_entries_of_a_dict_are_chosen():
    backbone = TorchBackbone(Net("dict"), out_features=["res3"])
    assert shapes(backbone) == {"res3": (7, 8)}
    assert list(backbone(torch.rand(1, 3, *SIZE))) == ["res3"]


def test_padding_options():
    backbone = TorchBackbone(Net(), size_divisibility=0, square_pad=128)
    assert backbone.size_divisibility == 0 and backbone.padding_constraints == {"square_size": 128}
    assert TorchBackbone(Net()).padding_constraints == {}


def test_below_an_fpn():
    names = ["res2", "res3"]
    fpn = FPN(TorchBackbone(Net(), out_features=names), in_features=names, out_channels=6)
    maps = fpn(torch.rand(1, 3, *SIZE))
    assert {n: tuple(m.shape) for n, m in maps.items()} == {
        "p2": (1, 6, 16, 24),
        "p3": (1, 6, 8, 12),
    }


@pytest.mark.parametrize("target", [None, "net"])
def test_ensembled(target):
    """A backbone's maps are those of its module, ensembled."""
    images = torch.rand(1, 3, *SIZE)
    net = Net().eval()
    backbone = TorchBackbone(net).eval()
    SRTWrapper(backbone if target is None else net, views=VIEWS)
    assert shapes(backbone) == {"p0": (5, 4), "p1": (7, 8)} and net.calls == 1
    plain = Net().eval()
    plain.load_state_dict(net.state_dict())
    with torch.no_grad():
        expected = SRTWrapper(plain, views=VIEWS)(images)
        assert same(list(backbone(images).values()), expected)
        assert backbone(images)["p0"].shape == (1, 5, 16, 24)


def test_transformers_backbone():
    transformers = pytest.importorskip("transformers")
    config = transformers.Dinov2Config(
        hidden_size=16, num_hidden_layers=2, num_attention_heads=2, mlp_ratio=2, image_size=56,
        patch_size=14, out_indices=[1, 2],
    )  # fmt: skip
    backbone = TorchBackbone(transformers.Dinov2Backbone(config))
    assert shapes(backbone) == {"p0": (16, 14), "p1": (16, 14)}


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: TorchBackbone("resnet"), "net to be a torch module, got str"),
        (lambda: TorchBackbone(Net(), channels=[5, 7]), "channels and strides together"),
        (lambda: TorchBackbone(Net(), channels=[5, 7], strides=[4]), "as many names as channels"),
        (lambda: TorchBackbone(Net(), ["a"]).output_shape(), "one name per map of Net"),
        (lambda: TorchBackbone(Net("dict"), ["res5"]).output_shape(), "among the maps .*'res5'"),
        (lambda: TorchBackbone(Fixed()).output_shape(), "AssertionError.*Declare channels="),
        (lambda: TorchBackbone(nn.Conv2d(3, 4, 3)).output_shape(), "one whole stride"),
        (lambda: TorchBackbone(Net("channels_last")).output_shape(), "one whole stride"),
    ],
)
def test_mistakes(make, message):
    with pytest.raises(ConfigError, match=message):
        make()


def test_outputs_that_are_no_maps():
    with pytest.raises(AdapterError, match=r"feature maps \(N, C, h, w\).*\(1, 5, 3136\)"):
        TorchBackbone(Net("tokens")).output_shape()
    backbone = TorchBackbone(Net("channels_last"), channels=[5], strides=[4])
    with pytest.raises(AdapterError, match="'p0' of Net to be .*5, h, w.*channels-last"):
        backbone(torch.rand(1, 3, *SIZE))


# --- from configs --------------------------------------------------------------------------------


def torch_cfg(path="tests.detectron2.test_backbones.Net", **keys):
    cfg = tiny_linear_cfg()
    cfg.MODEL.BACKBONE.NAME = "build_torch_net_backbone"
    cfg.MODEL.TORCH_NET.CLASS = path
    for key, value in keys.items():
        cfg.MODEL.TORCH_NET[key] = value
    cfg.MODEL.SEM_SEG_HEAD.IN_FEATURES = ["p0", "p1"]
    return cfg


def test_any_class_by_its_path():
    cfg = torch_cfg()
    cfg.MODEL.TORCH_NET.KWARGS.channels = [3, 9]
    plain, wrapped = built(cfg), built(srt_cfg(cfg, views=VIEWS))
    assert shapes(plain.backbone) == {"p0": (3, 4), "p1": (9, 8)}
    assert list(wrapped.state_dict()) == list(plain.state_dict())
    assert "backbone.net.first.weight" in plain.state_dict()
    with torch.no_grad():
        found, without = wrapped(pictures()), plain(pictures())
        assert found[0]["sem_seg"].shape == (10, *SIZE) and not same(found, without)
        assert same(built(srt_cfg(cfg, level=0))(pictures()), without)


def test_options_arrive():
    cfg = torch_cfg(OUT_FEATURES=["a", "b"], CHANNELS=[5, 7], STRIDES=[4, 8], SIZE_DIVISIBILITY=16,
                    SQUARE_PAD=128)  # fmt: skip
    backbone = build_backbone(cfg)
    assert shapes(backbone) == {"a": (5, 4), "b": (7, 8)} and backbone.net.calls == 0
    assert backbone.size_divisibility == 16 and backbone.padding_constraints["square_size"] == 128


def test_a_head_alone_is_no_mistake(tmp_path):
    """The function may have loaded weights of its own, so a checkpoint may leave them out."""
    model = built(srt_cfg(torch_cfg(), views=VIEWS))
    head = {k: v for k, v in model.state_dict().items() if k.startswith("sem_seg_head")}
    torch.save({"model": head}, tmp_path / "head.pth")
    DetectionCheckpointer(model).load(str(tmp_path / "head.pth"))


@pytest.mark.parametrize(
    "path, message",
    [
        ("", "dotted path.*got ''"),
        ("torch.nn.Convolution", "got 'torch.nn.Convolution'"),
        ("nowhere.Net", "got 'nowhere.Net'"),
        ("torch.pi", "nothing callable"),
    ],
)
def test_bad_paths(path, message):
    with pytest.raises(ConfigError, match=message):
        build_backbone(torch_cfg(path))


def test_module_that_fails_to_import(tmp_path, monkeypatch):
    (tmp_path / "broken_module.py").write_text("import surely_not_installed\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(ConfigError, match="surely_not_installed"):
        build_backbone(torch_cfg("broken_module.Net"))


def test_arguments_that_do_not_fit():
    cfg = torch_cfg()
    cfg.MODEL.TORCH_NET.KWARGS.width = 3
    with pytest.raises(ConfigError, match="KWARGS to fit .*Net, got {'width': 3}"):
        build_backbone(cfg)


# --- timm ----------------------------------------------------------------------------------------

TINY = {
    "vit_tiny_patch16_224": dict(embed_dim=16, depth=3, num_heads=2),
    "eva02_tiny_patch14_224": dict(embed_dim=24, depth=3, num_heads=2),
    "swin_tiny_patch4_window7_224": dict(embed_dim=8, depths=(1, 1, 2, 1), num_heads=(1, 2, 2, 4)),
    "convnext_atto": dict(depths=(1, 1, 1, 1), dims=(4, 8, 12, 16)),
    "resnet18": dict(channels=(4, 8, 12, 16)),
}
timm_models = pytest.mark.parametrize("name", TINY)


def timm_cfg(name, **keys):
    pytest.importorskip("timm")
    cfg = tiny_linear_cfg()
    cfg.MODEL.BACKBONE.NAME = "build_timm_net_backbone"
    cfg.MODEL.TIMM_NET.NAME = name
    for key, value in keys.items():
        cfg.MODEL.TIMM_NET[key] = value
    for key, value in TINY.get(name, {}).items():
        cfg.MODEL.TIMM_NET.KWARGS[key] = value
    cfg.MODEL.SEM_SEG_HEAD.IN_FEATURES = ["p0", "p1"]
    return cfg


@timm_models
def test_timm_declares_what_it_gives(name):
    backbone = build_backbone(timm_cfg(name)).eval()
    shape = backbone.output_shape()
    coarsest = max(s.stride for s in shape.values())
    assert backbone.size_divisibility == coarsest
    size = (2 * coarsest, 3 * coarsest)  # neither square nor the size of pretraining
    with torch.no_grad():
        maps = backbone(torch.rand(1, 3, *size))
    for key, s in shape.items():
        assert maps[key].shape == (1, s.channels, size[0] // s.stride, size[1] // s.stride), key


@timm_models
def test_timm_in_a_model(name):
    cfg = timm_cfg(name)
    plain, wrapped = built(cfg), built(srt_cfg(cfg, views=[(0, 0), (1, 1)]))
    assert list(wrapped.state_dict()) == list(plain.state_dict())
    batch = pictures(1, (50, 61))
    with torch.no_grad():
        found, without = wrapped(batch), plain(batch)
        assert found[0]["sem_seg"].shape == (10, 50, 61) and not same(found, without)
        assert same(built(srt_cfg(cfg, level=0))(batch), without)


def test_timm_options():
    options = dict(OUT_INDICES=[1], OUT_FEATURES=["last_feat"], NORM=True)
    backbone = build_backbone(timm_cfg("vit_tiny_patch16_224", **options)).eval()
    assert shapes(backbone) == {"last_feat": (16, 16)}
    with torch.no_grad():
        (found,) = backbone(torch.rand(1, 3, 32, 48)).values()
    # A layer norm without learned scale: zero mean and unit variance over channels.
    torch.testing.assert_close(found.mean(1), torch.zeros(1, 2, 3), atol=1e-5, rtol=0)
    torch.testing.assert_close(found.var(1, unbiased=False), torch.ones(1, 2, 3), atol=1e-3, rtol=0)


def test_timm_fixed_where_told_so():
    net = timm_net("vit_tiny_patch16_224", dynamic_img_size=False, dynamic_img_pad=False,
                   **TINY["vit_tiny_patch16_224"])  # fmt: skip
    with pytest.raises(AssertionError, match="doesn't match model"):
        net(torch.rand(1, 3, 32, 48))


def test_timm_channels_of_the_images():
    backbone = build_backbone(timm_cfg("resnet18"), ShapeSpec(channels=4))
    assert backbone(torch.rand(1, 4, *SIZE))["p4"].shape == (1, 16, 2, 3)


def test_timm_in_a_lazy_config():
    net = L(timm_net)(name="vit_tiny_patch16_224", out_indices=[1], **TINY["vit_tiny_patch16_224"])
    node = with_srt(L(TorchBackbone)(net=net, out_features=["last_feat"]), views=4)
    assert shapes(instantiate(node)) == {"last_feat": (16, 16)}


def test_random_timm_weights_need_a_checkpoint(tmp_path):
    model = build_model(srt_cfg(timm_cfg("resnet18"), views=VIEWS))
    alien = {f"detector.{key}": value for key, value in model.state_dict().items()}
    torch.save({"model": alien}, tmp_path / "alien.pth")
    with pytest.raises(CheckpointError):
        DetectionCheckpointer(model).load(str(tmp_path / "alien.pth"))


@pytest.mark.parametrize(
    "name, keys, message",
    [
        ("vit_tinny_patch16_224", {}, "near it are 'vit_tiny_patch16_224'"),
        ("", {}, "name of a timm model, got ''"),
        ("resnet18", dict(NORM=True), "norm=False for resnet18, which has no final norm"),
        ("resnet18", dict(OUT_INDICES=[9]), "timm to make resnet18 with"),
        ("resnet18", dict(OUT_FEATURES=["a"]), "as many names as channels"),
    ],
)
def test_timm_mistakes(name, keys, message):
    with pytest.raises(ConfigError, match=message):
        build_backbone(timm_cfg(name, **keys))


def test_timm_arguments_that_do_not_fit():
    cfg = timm_cfg("resnet18")
    cfg.MODEL.TIMM_NET.KWARGS.wdith = 3
    with pytest.raises(ConfigError, match="got wdith=3"):
        build_backbone(cfg)


def test_timm_missing(monkeypatch):
    cfg = timm_cfg("resnet18")
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(MissingDependencyError, match=r"srt-plugins\[timm\]"):
        build_backbone(cfg)
