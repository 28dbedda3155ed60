"""The yacs form: keys, the builder, whole models, checkpoints and Detectron2's own tools."""

from __future__ import annotations

import importlib
import sys
from dataclasses import fields

import pytest

pytest.importorskip("detectron2", reason="needs Detectron2 (make setup DETECTRON2=...)")

import torch
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.config import get_cfg
from detectron2.data import build_detection_test_loader
from detectron2.engine import DefaultPredictor, DefaultTrainer
from detectron2.evaluation import COCOEvaluator, SemSegEvaluator, inference_on_dataset
from detectron2.modeling import (
    BACKBONE_REGISTRY,
    Backbone,
    GeneralizedRCNNWithTTA,
    build_backbone,
    build_model,
)

import srt_plugins.detectron2.build as build
from srt_plugins import CheckpointError, ConfigError, MissingDependencyError, Settings, attach
from srt_plugins.detectron2 import add_srt_config, register_scenes

from .tiny import (
    CFGS,
    SIZE,
    built,
    flat,
    pictures,
    same,
    srt_cfg,
    tiny_linear_cfg,
    tiny_panoptic_cfg,
    tiny_rcnn_fpn_cfg,
    tiny_semantic_cfg,
)

VIEWS = [[0, 0], [6, 6], [0, 6], [6, 0]]
models = pytest.mark.parametrize("name", CFGS)


def run(model) -> list:
    with torch.no_grad():
        return model(pictures())


# --- keys ----------------------------------------------------------------------------------------


def test_one_key_per_keyword():
    cfg = get_cfg()
    add_srt_config(cfg)
    assert set(cfg.MODEL.SRT) == {"BACKBONE", "TARGET", *(f.name.upper() for f in fields(Settings))}
    assert all(cfg.MODEL.SRT[f.name.upper()] is None for f in fields(Settings))


def test_adding_twice_keeps_values(tmp_path):
    cfg = get_cfg()
    add_srt_config(cfg)
    file = tmp_path / "some.yaml"
    file.write_text("MODEL: {SRT: {LEVEL: 2}, TIMM_NET: {KWARGS: {depth: 3}}}\nVERSION: 2\n")
    cfg.merge_from_file(str(file))
    add_srt_config(cfg)
    assert cfg.MODEL.SRT.LEVEL == 2 and cfg.MODEL.TIMM_NET.KWARGS == {"depth": 3}
    other = get_cfg()
    add_srt_config(other)
    assert other.MODEL.TIMM_NET.KWARGS == {}  # configs share nothing


@pytest.mark.parametrize("text, value", [("9", 9), ("phases:3", "phases:3"), (str(VIEWS), VIEWS)])
def test_views_of_any_type(text, value):
    cfg = srt_cfg(tiny_rcnn_fpn_cfg(), target="bottom_up")
    cfg.merge_from_list(["MODEL.SRT.VIEWS", text])
    assert build_backbone(cfg).bottom_up._srt.settings == Settings(views=value)
    # As documented: None in between changes the type.
    cfg.merge_from_list(["MODEL.SRT.VIEWS", "None", "MODEL.SRT.VIEWS", "4"])
    assert cfg.MODEL.SRT.VIEWS == 4


def test_every_keyword_arrives():
    given = dict(views=5, statistic="mean", dispersion=True, layer=None, outputs=["res2"],
                 smooth=3, padding="reflect", view_batch=2)  # fmt: skip
    cfg = srt_cfg(tiny_rcnn_fpn_cfg(), target="bottom_up", **given)
    assert build_backbone(cfg).bottom_up._srt.settings == Settings(**given)


# --- models --------------------------------------------------------------------------------------


@models
def test_contract_of_the_backbone(name):
    cfg = CFGS[name]()
    plain, wrapped = built(cfg), built(srt_cfg(cfg, views=VIEWS))
    backbone = wrapped.backbone
    assert isinstance(backbone, Backbone) and isinstance(backbone, type(plain.backbone))
    assert backbone.output_shape() == plain.backbone.output_shape()
    assert backbone.size_divisibility == plain.backbone.size_divisibility
    assert backbone.padding_constraints == plain.backbone.padding_constraints
    assert list(wrapped.state_dict()) == list(plain.state_dict())
    with torch.no_grad():
        maps = backbone(torch.zeros(1, 3, *SIZE))
    for key, shape in backbone.output_shape().items():
        expected = (1, shape.channels, *(-(-n // shape.stride) for n in SIZE))
        assert maps[key].shape == expected


@models
def test_level_0_changes_nothing(name):
    cfg = CFGS[name]()
    assert same(run(built(srt_cfg(cfg, level=0))), run(built(cfg)))


@pytest.mark.parametrize(
    "name, target",
    [(n, t) for n in CFGS for t in (None, "bottom_up") if t is None or n != "linear"],
)
def test_same_as_attach(name, target):
    cfg = CFGS[name]()
    expected = run(attach(built(cfg), target=target, views=VIEWS))
    assert same(run(built(srt_cfg(cfg, target=target, views=VIEWS))), expected)
    assert not same(run(built(cfg)), expected)


def test_training_passes_through():
    cfg = tiny_linear_cfg()
    batch = [{**x, "sem_seg": torch.randint(0, 10, SIZE)} for x in pictures()]
    losses = []
    for config in (cfg, srt_cfg(cfg, views=VIEWS)):
        losses.append(built(config).train()(batch)["loss_sem_seg"])
    assert torch.equal(*losses)


# --- checkpoints ---------------------------------------------------------------------------------


def saved(path, state) -> str:
    torch.save({"model": state}, path)
    return str(path)


@pytest.mark.parametrize("target", [None, "bottom_up"])
@pytest.mark.parametrize("form", ["plain", "module", "heuristics"])
def test_checkpoint_round_trip(tmp_path, form, target):
    cfg = tiny_rcnn_fpn_cfg()
    source = built(cfg, seed=1)
    state = source.state_dict()
    if form == "module":
        state = {f"module.{key}": value for key, value in state.items()}
    path = saved(tmp_path / "model.pth", state)
    if form == "heuristics":  # keys of the ResNet alone, without their prefix
        state = source.backbone.bottom_up.state_dict()
        path = saved(tmp_path / "resnet.pth", state) + "?matching_heuristics=True"
    model = built(srt_cfg(cfg, target=target, views=VIEWS), seed=2)
    checkpointer = DetectionCheckpointer(model)
    logged = []
    checkpointer._log_incompatible_keys = logged.append
    checkpointer.load(path)
    if form == "heuristics":
        assert same(model.backbone.bottom_up.state_dict(), state)
    else:
        assert not logged[0].missing_keys and not logged[0].unexpected_keys
        assert same(run(model), run(attach(source, target, views=VIEWS)))
        model.load_state_dict(source.state_dict())  # strict, a second time


def test_own_checkpoint_loads_into_the_plain_model(tmp_path):
    cfg = tiny_rcnn_fpn_cfg()
    wrapped = built(srt_cfg(cfg, target="bottom_up", views=VIEWS), seed=1)
    DetectionCheckpointer(wrapped, str(tmp_path)).save("model")
    plain = built(cfg, seed=2)
    DetectionCheckpointer(plain).load(str(tmp_path / "model.pth"))
    assert same(plain.state_dict(), wrapped.state_dict())


@pytest.mark.parametrize("target", [None, "bottom_up"])
def test_checkpoint_that_matches_nothing(tmp_path, target):
    cfg = tiny_rcnn_fpn_cfg()
    source = built(cfg)
    model = built(srt_cfg(cfg, target=target, views=VIEWS))
    alien = {f"model.detector.{key}": value for key, value in source.state_dict().items()}
    with pytest.raises(CheckpointError, match="such as 'backbone[.]"):
        DetectionCheckpointer(model).load(saved(tmp_path / "alien.pth", alien))
    # Detectron2 itself would only log a warning and evaluate random weights.
    DetectionCheckpointer(source).load(saved(tmp_path / "alien.pth", alien))


# --- Detectron2's tools --------------------------------------------------------------------------


@pytest.fixture(scope="module")
def dataset() -> str:
    return register_scenes("val", 2, SIZE, name="scenes_for_the_yacs_tests")


def evaluator(name, folder) -> COCOEvaluator:
    return COCOEvaluator(name, ("bbox", "segm"), distributed=False, output_dir=str(folder))


def test_default_predictor(tmp_path):
    cfg = tiny_rcnn_fpn_cfg()
    source = built(cfg, seed=1)
    cfg.MODEL.WEIGHTS = saved(tmp_path / "model.pth", source.state_dict())
    wrapped = srt_cfg(cfg, target="bottom_up", views=VIEWS)
    image = pictures()[0]["image"]
    found = DefaultPredictor(wrapped)(image.permute(1, 2, 0).byte().numpy())
    with torch.no_grad():
        expected = attach(source, "bottom_up", views=VIEWS)([pictures()[0]])
    assert same(found, expected[0]) and len(found["instances"]) == 5


def test_inference_on_dataset_and_default_trainer(tmp_path, dataset):
    cfg = srt_cfg(tiny_rcnn_fpn_cfg(), target="bottom_up", views=VIEWS)
    cfg.DATASETS.TEST = (dataset,)
    model = built(cfg).train()
    loader = build_detection_test_loader(cfg, dataset)
    results = inference_on_dataset(model, loader, evaluator(dataset, tmp_path / "a"))
    assert set(results) == {"bbox", "segm"} and "AP" in results["segm"]
    again = DefaultTrainer.test(cfg, model, [evaluator(dataset, tmp_path / "b")])
    assert repr(again) == repr(results)


@pytest.mark.parametrize("make", [tiny_semantic_cfg, tiny_linear_cfg])
def test_semantic_evaluation(make, dataset):
    cfg = srt_cfg(make(), views=VIEWS)
    cfg.DATASETS.TEST = (dataset,)
    loader = build_detection_test_loader(cfg, dataset)
    results = inference_on_dataset(built(cfg), loader, SemSegEvaluator(dataset, distributed=False))
    assert 0 <= results["sem_seg"]["mIoU"] <= 100


def test_test_time_augmentation():
    cfg = tiny_rcnn_fpn_cfg()
    cfg.TEST.AUG.MIN_SIZES, cfg.TEST.AUG.MAX_SIZE = (64, 80), 96
    plain, model = built(cfg), built(srt_cfg(cfg, target="bottom_up", views=VIEWS))
    with torch.no_grad():
        found = GeneralizedRCNNWithTTA(cfg, model)(pictures(1))
        without = GeneralizedRCNNWithTTA(cfg, plain)(pictures(1))
    assert len(found[0]["instances"]) == 5 and not same(found, without)


def test_panoptic_output():
    out = run(built(srt_cfg(tiny_panoptic_cfg(), views=VIEWS)))[0]
    assert out["sem_seg"].shape == (10, *SIZE) and out["panoptic_seg"][0].shape == SIZE
    assert len(flat(out["instances"])) > 0


# --- mistakes ------------------------------------------------------------------------------------


class Counted(Exception):
    """Raised by a builder that must not be reached."""


@pytest.fixture
def unreachable(monkeypatch):
    """A registered builder that fails when it is called."""

    def build_unreachable_backbone(cfg, input_shape):
        raise Counted

    BACKBONE_REGISTRY.register(build_unreachable_backbone)
    yield "build_unreachable_backbone"
    del BACKBONE_REGISTRY._obj_map["build_unreachable_backbone"]


@pytest.mark.parametrize(
    "changes, message",
    [
        (dict(level=-1), "Expected level"),
        (dict(level=2.5), "Expected level"),
        (dict(views="fases"), "Expected views"),
        (dict(views=[[0, 0], [0, 0]]), "distinct views"),
        (dict(statistic="mode"), "Expected statistic"),
        (dict(padding="mirror"), "Expected padding"),
        (dict(view_batch=0), "Expected view_batch"),
        (dict(stride=8), "Expected stride=None.*output_shape"),
        (dict(target=3), "Expected target"),
    ],
)
def test_bad_values_before_anything_is_built(unreachable, changes, message):
    cfg = tiny_rcnn_fpn_cfg()
    cfg.MODEL.BACKBONE.NAME = unreachable
    with pytest.raises(ConfigError, match=message):
        build_backbone(srt_cfg(cfg, **changes))
    with pytest.raises(Counted):
        build_backbone(srt_cfg(cfg, level=3))


def test_detectron2_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "detectron2", None)
    monkeypatch.delitem(sys.modules, "srt_plugins.detectron2")
    with pytest.raises(MissingDependencyError, match="detectron2.readthedocs.io/.*install.html"):
        importlib.import_module("srt_plugins.detectron2")


def test_keys_missing():
    cfg = get_cfg()
    cfg.MODEL.DEVICE = "cpu"
    cfg.MODEL.BACKBONE.NAME = "build_srt_backbone"
    with pytest.raises(ConfigError, match=r"call srt_plugins.detectron2.add_srt_config\(cfg\)"):
        build_model(cfg)


@pytest.mark.parametrize(
    "name, message",
    [
        ("build_resnet_fpn_backbon", "a registered builder, got.*'build_resnet_fpn_backbone'"),
        ("", r"what cfg.MODEL.BACKBONE.NAME was"),
        ("build_srt_backbone", "another builder"),
    ],
)
def test_unknown_inner_builder(name, message):
    cfg = srt_cfg(tiny_rcnn_fpn_cfg())
    cfg.MODEL.SRT.BACKBONE = name
    with pytest.raises(ConfigError, match=message):
        build_backbone(cfg)


@pytest.mark.parametrize("make, parts", [(tiny_linear_cfg, "none"), (tiny_rcnn_fpn_cfg, "'bot")])
def test_part_that_detectron2_does_not_have(monkeypatch, make, parts):
    cfg = srt_cfg(make(), target="net")
    monkeypatch.setattr(build, "ensemble", None)  # reached only with a built backbone
    with pytest.raises(ConfigError, match=f"got 'net'; it has {parts}"):
        build_backbone(cfg)


def test_part_that_another_backbone_lacks():
    cfg = srt_cfg(tiny_linear_cfg(), target="body")
    cfg.MODEL.SRT.BACKBONE = "build_torch_net_backbone"
    cfg.MODEL.TORCH_NET.CLASS = "torch.nn.Identity"
    cfg.MODEL.SEM_SEG_HEAD.NAME = "never looked up"
    with pytest.raises(ConfigError, match="got 'body'; it has 'net'"):
        build_model(cfg)


@pytest.mark.parametrize(
    "features, dilation, level",
    [(["res4", "res5"], 1, 32), (["res3", "res4"], 1, 16), (["res5"], 2, 16), (["stem"], 1, 4)],
)
def test_level_too_large_for_a_resnet_before_it_is_built(features, dilation, level):
    cfg = srt_cfg(tiny_rcnn_fpn_cfg(), level=level)
    cfg.MODEL.RESNETS.OUT_FEATURES, cfg.MODEL.RESNETS.RES5_DILATION = features, dilation
    cfg.MODEL.RESNETS.DEPTH = 999  # building it would fail
    with pytest.raises(ConfigError, match=rf"below one patch \({level} pixels\), got {level}"):
        build_backbone(cfg)
    cfg.MODEL.SRT.LEVEL = 1
    with pytest.raises(KeyError, match="999"):
        build_backbone(cfg)


@pytest.mark.parametrize("name, level", [("linear", 16), ("rcnn", 64)])
def test_level_of_a_whole_period(name, level):
    cfg = srt_cfg(CFGS[name](), level=level)
    cfg.MODEL.SEM_SEG_HEAD.NAME = cfg.MODEL.PROPOSAL_GENERATOR.NAME = "never looked up"
    with pytest.raises(ConfigError, match=rf"got {level}"):
        build_model(cfg)
