"""The LazyConfig form: nodes, overrides, files, whole models and Detectron2's evaluation path."""

from __future__ import annotations

import copy
from functools import partial

import pytest

pytest.importorskip("detectron2", reason="needs Detectron2 (make setup DETECTRON2=...)")

import torch
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.config import LazyCall as L
from detectron2.config import LazyConfig, instantiate
from detectron2.data import (
    DatasetMapper,
    build_detection_test_loader,
    get_detection_dataset_dicts,
)
from detectron2.evaluation import COCOEvaluator, inference_on_dataset
from detectron2.layers import ShapeSpec
from detectron2.modeling import FPN, Backbone, SimpleFeaturePyramid, ViT
from omegaconf import DictConfig, OmegaConf
from torch import nn

from srt_plugins import CheckpointError, ConfigError, Settings, attach, views
from srt_plugins.detectron2 import TorchBackbone, register_scenes, srt_backbone, with_srt

from .tiny import SIZE, built, pictures, same, tiny_vitdet_cfg

VIEWS = [(0, 0), (6, 6), (0, 6), (6, 0)]


def run(model) -> list:
    with torch.no_grad():
        return model(pictures())


def unchanged(node, call):
    """What a refused call raised, with the node as it was."""
    before = copy.deepcopy(node)
    with pytest.raises(ConfigError) as caught:
        call(node)
    assert node == before
    return str(caught.value)


class Own(Backbone):
    """Somebody's backbone, with keywords that SRT has too."""

    def __init__(self, stride=16, channels=4, **more):
        super().__init__()
        self.more = more
        self.body = nn.Conv2d(3, channels, stride, stride)
        self._out_features = ["last"]
        self._out_feature_channels, self._out_feature_strides = {"last": channels}, {"last": stride}

    def forward(self, images):
        return {"last": self.body(images)}


# --- nodes ---------------------------------------------------------------------------------------


def test_keys_stay_flat():
    model = tiny_vitdet_cfg()
    net = model.backbone.net
    keys = {k: v for k, v in net.items() if k != "_target_"}
    assert with_srt(net, level=3) is net
    assert {k: net[k] for k in keys} == keys
    assert set(net) - set(keys) == {"_target_", "wraps", "level"}
    assert model.backbone.in_feature == "last_feat"  # "${.net.out_feature}"
    assert net["_target_"] is srt_backbone and net.wraps == "detectron2.modeling.ViT"


def test_twice_is_once():
    first = tiny_vitdet_cfg().backbone
    second = copy.deepcopy(first)
    with_srt(first, target="net", level=3)
    with_srt(with_srt(second, target="net", level=3), target="net", level=3)
    assert first == second
    # New keywords replace the old ones, as SRTWrapper's do.
    with_srt(second, views=9)
    assert "level" not in second and "target" not in second and second.views == 9
    assert second.wraps == first.wraps


def test_strict_and_plain_nodes():
    strict = DictConfig({"_target_": "detectron2.modeling.ViT", "depth": 1})
    OmegaConf.set_struct(strict, True)
    plain = {"_target_": ViT, "depth": 1}
    for node in (strict, plain):
        made = instantiate(with_srt(node, views=views.grid(1)))
        assert made._srt.views() == views.grid(1) and len(made.blocks) == 1
    assert OmegaConf.is_struct(strict)


@pytest.mark.parametrize(
    "override, expected",
    [
        ("level=2", dict(level=2)),
        ("views=9", dict(level=3, views=9)),
        ("views=phases:3", dict(level=3, views="phases:3")),
        ("views=[[0,0],[2,3]]", dict(level=3, views=[[0, 0], [2, 3]])),
        ("layer=-1", dict(level=3, layer=-1)),
        ("smooth=3", dict(level=3, smooth=3)),
    ],
)
def test_overrides(override, expected):
    cfg = OmegaConf.create({"model": tiny_vitdet_cfg()}, flags={"allow_objects": True})
    with_srt(cfg.model.backbone.net, level=3)
    LazyConfig.apply_overrides(
        cfg, [f"model.backbone.net.{override}", "model.backbone.net.depth=2"]
    )
    net = instantiate(cfg.model.backbone).net
    assert net._srt.settings == Settings(**expected) and len(net.blocks) == 2


@pytest.mark.parametrize("form", ["yaml", "py", "deepcopy"])
def test_files_keep_it(tmp_path, form):
    cfg = OmegaConf.create({"model": tiny_vitdet_cfg()}, flags={"allow_objects": True})
    with_srt(cfg.model.backbone.net, views=VIEWS)
    expected = run(built(cfg.model))
    if form == "yaml":
        path = str(tmp_path / "config.yaml")
        LazyConfig.save(cfg, path)
        assert not (tmp_path / "config.yaml.pkl").exists()  # readable, so it was not pickled
        again = LazyConfig.load(path)
    elif form == "deepcopy":
        again = copy.deepcopy(cfg)
    else:
        text = LazyConfig.to_py(cfg)
        assert "srt_plugins.detectron2.srt_backbone(" in text
        assert "wraps='detectron2.modeling.ViT'" in text.replace('"', "'")
        return
    assert again.model.backbone.in_feature == "last_feat"
    LazyConfig.apply_overrides(again, ["model.backbone.net.statistic=mean"])
    assert same(run(built(again.model)), expected)


def test_one_line_for_a_loaded_file(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(
        "from detectron2.config import LazyCall as L\n"
        "from detectron2.modeling import ViT\n"
        "backbone = L(ViT)(img_size=64, embed_dim=16, depth=1, num_heads=2)\n"
    )
    cfg = LazyConfig.load(str(path))
    with_srt(cfg.backbone, level=3)
    assert instantiate(cfg.backbone)._srt.settings == Settings(level=3)
    path.write_text(path.read_text() + "from srt_plugins.detectron2 import with_srt\n"
                    "with_srt(backbone, level=2)\n")  # fmt: skip
    assert instantiate(LazyConfig.load(str(path)).backbone)._srt.settings == Settings(level=2)


class Inner:
    """Anything that a config builds for a backbone."""

    def __init__(self, a, shape):
        self.a, self.shape = a, shape


def make_target(stride):
    """A target that is itself built from a node."""
    return partial(Own, stride=stride)


def a_function(channels, norm, inner):
    return Own(channels=channels, norm=norm, inner=inner)


@pytest.mark.parametrize(
    "target",
    [Own, a_function, partial(Own, stride=8), L(make_target)(stride=4)],
    ids=["class", "function", "partial", "nested"],
)
def test_values_arrive_untouched(target):
    norm, marker = partial(nn.LayerNorm, eps=1e-6), object()
    node = L(target)(channels=5, norm=norm, inner=L(Inner)(a=marker, shape=ShapeSpec(channels=3)))
    made = instantiate(with_srt(node, level=1))
    assert isinstance(made, Own) and made.body.out_channels == 5
    assert made.more["norm"] is norm and made.more["inner"].a is marker
    assert made.more["inner"].shape == ShapeSpec(channels=3)
    assert made._srt.settings == Settings(level=1)


def test_written_by_hand():
    node = L(srt_backbone)(wraps="detectron2.modeling.ViT", level=2, embed_dim=16, depth=1,
                           num_heads=2)  # fmt: skip
    assert isinstance(instantiate(node), ViT)


# --- models --------------------------------------------------------------------------------------


@pytest.mark.parametrize("target", [None, "net"])
def test_whole_model(target):
    plain, srt = built(tiny_vitdet_cfg()), tiny_vitdet_cfg()
    with_srt(srt.backbone, target=target, views=VIEWS)
    wrapped = built(srt)
    backbone = wrapped.backbone
    assert isinstance(backbone, SimpleFeaturePyramid) and isinstance(backbone.net, ViT)
    assert backbone.output_shape() == plain.backbone.output_shape()
    assert backbone.size_divisibility == plain.backbone.size_divisibility
    assert backbone.padding_constraints == plain.backbone.padding_constraints
    assert list(wrapped.state_dict()) == list(plain.state_dict())
    assert not same(run(wrapped), run(plain))
    assert same(run(wrapped), run(attach(plain, target, views=VIEWS)))


def test_node_of_the_net_is_the_part_of_the_pyramid():
    inner, outer = tiny_vitdet_cfg(), tiny_vitdet_cfg()
    with_srt(inner.backbone.net, views=VIEWS)
    with_srt(outer.backbone, target="net", views=VIEWS)
    assert same(run(built(inner)), run(built(outer)))


def test_level_0_changes_nothing():
    srt = tiny_vitdet_cfg()
    with_srt(srt.backbone.net, level=0)
    found = run(built(srt))
    assert len(found[0]["instances"]) == 5 and same(found, run(built(tiny_vitdet_cfg())))


@pytest.mark.parametrize("form", ["plain", "module", "heuristics"])
def test_checkpoints(tmp_path, form):
    source = built(tiny_vitdet_cfg(), seed=1)
    state, query = source.state_dict(), ""
    if form == "module":
        state = {f"module.{key}": value for key, value in state.items()}
    if form == "heuristics":  # as ViTDet starts from MAE weights
        state, query = source.backbone.net.state_dict(), "?matching_heuristics=True"
    torch.save({"model": state}, tmp_path / "model.pth")
    srt = tiny_vitdet_cfg()
    with_srt(srt.backbone.net, views=VIEWS)
    model = built(srt, seed=2)
    DetectionCheckpointer(model).load(f"{tmp_path / 'model.pth'}{query}")
    assert same(model.backbone.net.state_dict(), source.backbone.net.state_dict())
    if form != "heuristics":
        assert same(run(model), run(attach(source, "net", views=VIEWS)))


def test_checkpoint_that_matches_nothing(tmp_path):
    srt = tiny_vitdet_cfg()
    model = built(with_srt(srt.backbone.net, level=3) and srt)
    alien = {f"detector.{key}": value for key, value in model.state_dict().items()}
    torch.save({"model": alien}, tmp_path / "alien.pth")
    with pytest.raises(CheckpointError, match=r"such as 'backbone\.net\."):
        DetectionCheckpointer(model).load(str(tmp_path / "alien.pth"))


def test_evaluation_path(tmp_path):
    """What tools/lazyconfig_train_net.py --eval-only does."""
    torch.save({"model": built(tiny_vitdet_cfg(), seed=1).state_dict()}, tmp_path / "model.pth")
    cfg = OmegaConf.create({"model": tiny_vitdet_cfg()}, flags={"allow_objects": True})
    cfg.dataloader = {
        "test": L(build_detection_test_loader)(
            dataset=L(get_detection_dataset_dicts)(
                names=L(register_scenes)(split="val", length=2, size=SIZE), filter_empty=False
            ),
            mapper=L(DatasetMapper)(is_train=False, augmentations=[], image_format="RGB"),
            num_workers=0,
        ),
        "evaluator": L(COCOEvaluator)(
            dataset_name="${..test.dataset.names}",
            tasks=("bbox", "segm"),
            distributed=False,
            output_dir=str(tmp_path),
        ),
    }
    with_srt(cfg.model.backbone.net, level=3)
    cfg = LazyConfig.apply_overrides(cfg, ["model.backbone.net.views=4"])
    LazyConfig.save(cfg, str(tmp_path / "config.yaml"))
    model = instantiate(cfg.model)
    DetectionCheckpointer(model).load(str(tmp_path / "model.pth"))
    results = inference_on_dataset(
        model, instantiate(cfg.dataloader.test), instantiate(cfg.dataloader.evaluator)
    )
    assert set(results) == {"bbox", "segm"} and "AP" in results["bbox"]


# --- mistakes ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "keywords, message",
    [
        (dict(levle=3), "Unknown SRT keyword 'levle'; did you mean 'level'"),
        (dict(level=-1), "Expected level"),
        (dict(views="fases"), "Expected views"),
        (dict(stride=8), "Expected stride=None, got 8"),
        (dict(target="bottom_up"), "a part of ViT that takes images, got 'bottom_up'; it has none"),
        (dict(target=0), "Expected target"),
    ],
)
def test_bad_keywords(keywords, message):
    assert message in unchanged(tiny_vitdet_cfg().backbone.net, lambda n: with_srt(n, **keywords))


def test_parts_that_are_known():
    message = unchanged(tiny_vitdet_cfg().backbone, lambda n: with_srt(n, target="bottom_up"))
    assert (
        "part of SimpleFeaturePyramid that takes images, got 'bottom_up'; it has 'net'" in message
    )
    message = unchanged(L(FPN)(bottom_up=L(ViT)()), lambda n: with_srt(n, target="net"))
    assert "it has 'bottom_up'" in message


def test_part_that_another_backbone_lacks():
    node = with_srt(L(Own)(), target="net", level=3)
    with pytest.raises(ConfigError, match="got 'net'; it has 'body'"):
        instantiate(node)


@pytest.mark.parametrize("key", ["stride", "target", "wraps"])
def test_collision(key):
    message = unchanged(L(Own)(**{key: 8}), lambda n: with_srt(n, level=3))
    assert f"Expected {key!r} to be an SRT keyword only, but Own has" in message


def test_collision_from_an_override():
    node = with_srt(L(Own)(channels=5), level=3)
    node.stride = 8
    with pytest.raises(ConfigError, match="'stride' to be an SRT keyword only"):
        instantiate(node)


def test_misspelt_override():
    node = with_srt(tiny_vitdet_cfg().backbone.net, level=3)
    node.levle = 2
    with pytest.raises(ConfigError, match="Unknown keyword 'levle' of ViT.*'level'"):
        instantiate(node)


@pytest.mark.parametrize("node", [None, {}, DictConfig({"a": 1}), nn.Identity()])
def test_not_a_node(node):
    with pytest.raises(ConfigError, match="LazyCall of a backbone"):
        with_srt(node, level=3)


def test_node_of_a_whole_model():
    message = unchanged(tiny_vitdet_cfg(), lambda n: with_srt(n, level=3))
    assert "got that of GeneralizedRCNN, which has one: use with_srt(node.backbone" in message


def test_target_that_cannot_be_imported():
    node = DictConfig({"_target_": "nowhere.Backbone"})
    assert "got 'nowhere.Backbone'" in unchanged(node, lambda n: with_srt(n, level=3))


@pytest.mark.parametrize("own", [False, True])
def test_level_of_a_whole_patch_before_the_rest_is_built(own):
    model = tiny_vitdet_cfg()
    if own:  # no adapter knows it, but it declares its stride
        model.backbone = L(Own)()
    with_srt(model.backbone if own else model.backbone.net, level=16)
    model.proposal_generator = L(unreachable)()
    with pytest.raises(ConfigError, match="got 16"):
        instantiate(model)


def unreachable():
    raise AssertionError("built after the backbone was refused")


def test_torch_backbone_node():
    node = L(TorchBackbone)(
        net=L(nn.Conv2d)(in_channels=3, out_channels=4, kernel_size=8, stride=8)
    )
    assert instantiate(with_srt(node, level=3)).output_shape()["p0"].stride == 8
