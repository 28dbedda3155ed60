"""Every config: equal to the official one but for the ensemble, and run at a reduced width."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("detectron2", reason="needs Detectron2 (make setup DETECTRON2=...)")

import torch
from detectron2 import model_zoo
from detectron2.config import LazyConfig, get_cfg, instantiate
from detectron2.modeling import build_model
from omegaconf import DictConfig, OmegaConf

from srt_plugins import ConfigError, Settings, d2_configs
from srt_plugins.detectron2 import add_srt_config, srt_backbone

from .tiny import pictures

LAZY = [name for name in d2_configs.names() if name.endswith(".py")]
YAML = [name for name in d2_configs.names() if name.endswith(".yaml")]

# Hyper-parameters of the official models, as their projects' configs and papers give them.
VIT_B = dict(embed_dim=768, depth=12, num_heads=12, drop_path_rate=0.1, window_size=14,
             window_block_indexes=[0, 1, 3, 4, 6, 7, 9, 10], use_rel_pos=True, img_size=1024,
             patch_size=16, out_feature="last_feat")  # fmt: skip
VIT_L = {**VIT_B, "embed_dim": 1024, "depth": 24, "num_heads": 16, "drop_path_rate": 0.4,
         "window_block_indexes": [0, 1, 2, 3, 4, 6, 7, 8, 9, 10, 12, 13, 14, 15, 16, 18, 19, 20,
                                  21, 22]}  # fmt: skip
SWIN_B = dict(embed_dim=128, depths=[2, 2, 18, 2], num_heads=[4, 8, 16, 32], drop_path_rate=0.4)
MVIT_B = dict(embed_dim=96, depth=24, num_heads=1, last_block_indexes=[1, 4, 20, 23],
              residual_pooling=True, drop_path_rate=0.4,
              out_features=["scale2", "scale3", "scale4", "scale5"])  # fmt: skip
R_50 = {"stages.depth": 50, "stages.norm": "FrozenBN", "stages.stride_in_1x1": True,
        "out_features": ["res2", "res3", "res4", "res5"], "freeze_at": 2}  # fmt: skip
WRAPPED = {
    "mask_rcnn_vitdet_b.py": ("net", "ViT", VIT_B),
    "mask_rcnn_vitdet_l.py": ("net", "ViT", VIT_L),
    "cascade_mask_rcnn_vitdet_b.py": ("net", "ViT", VIT_B),
    "cascade_mask_rcnn_vitdet_l.py": ("net", "ViT", VIT_L),
    "cascade_mask_rcnn_swin_b.py": ("bottom_up", "SwinTransformer", SWIN_B),
    "cascade_mask_rcnn_mvitv2_b.py": ("bottom_up", "MViT", MVIT_B),
    "mask_rcnn_R_50_FPN.py": ("bottom_up", "ResNet", R_50),
}
# The same kinds of networks, small enough to build at once.
REDUCED = {
    "ViT": dict(embed_dim=16, depth=3, num_heads=2, window_block_indexes=[0, 1], img_size=64,
                pretrain_img_size=32),
    "SwinTransformer": dict(embed_dim=8, depths=[1, 1, 1, 1], num_heads=[1, 1, 2, 2]),
    "MViT": dict(embed_dim=8, depth=4, last_block_indexes=[0, 1, 2, 3], img_size=64,
                 pretrain_img_size=32),
}  # fmt: skip


def load(name):
    return LazyConfig.load(d2_configs.path(name))


def at(node, key):
    value = OmegaConf.select(node, key)
    return OmegaConf.to_container(value) if OmegaConf.is_config(value) else value


@pytest.mark.parametrize("name", LAZY)
def test_backbone_is_the_official_one(name):
    part, kind, expected = WRAPPED[name]
    backbone = load(name).model.backbone
    node = backbone[part]
    assert {key: at(node, key) for key in expected} == expected
    assert at(backbone, f"{part}._target_").__name__ == kind
    wraps = "SimpleFeaturePyramid" if kind == "ViT" else "FPN"
    assert backbone._target_ is srt_backbone and backbone.wraps.rpartition(".")[2] == wraps
    assert not {"level", "views"} & set(backbone)  # the default: half-patch phases


@pytest.mark.parametrize("name", LAZY)
def test_rest_is_the_official_one(name):
    cfg = load(name)
    base = "mask_rcnn_vitdet" if "vitdet" in name else "mask_rcnn_fpn"
    official = model_zoo.get_config(f"common/models/{base}.py").model
    model, heads = cfg.model, cfg.model.roi_heads
    for key in ("num_classes", "mask_head.conv_dims", "mask_pooler.output_size"):
        assert at(heads, key) == at(official.roi_heads, key)
    assert at(model, "backbone.out_channels") == 256
    rgb = "R_50" not in name
    assert (
        model.input_format == cfg.dataloader.test.mapper.image_format == ("RGB" if rgb else "BGR")
    )
    mean = [123.675, 116.28, 103.53]
    assert at(model, "pixel_mean") == (mean if rgb else mean[::-1])
    assert at(model, "pixel_std") == ([58.395, 57.12, 57.375] if rgb else [1.0, 1.0, 1.0])
    if not rgb:
        return
    assert model.backbone.norm == heads.mask_head.conv_norm == "LN"
    assert model.backbone.square_pad == 1024
    assert at(model, "proposal_generator.head.conv_dims") == [-1, -1]
    if name.startswith("cascade"):
        assert len(heads.box_heads) == len(heads.box_predictors) == 3
        assert [at(m, "thresholds") for m in heads.proposal_matchers] == [[0.5], [0.6], [0.7]]
        assert all(p.cls_agnostic_bbox_reg and p.num_classes == 80 for p in heads.box_predictors)
    for head in heads.box_heads if name.startswith("cascade") else [heads.box_head]:
        assert (at(head, "conv_dims"), at(head, "fc_dims")) == ([256] * 4, [1024])
        assert head.conv_norm == "LN"


@pytest.mark.parametrize("name", LAZY)
def test_evaluation_is_complete(name, tmp_path):
    cfg = load(name)
    model = name[: -len(".py")]
    assert cfg.train.init_checkpoint.startswith("detectron2://")
    assert f"/{model}" in cfg.train.init_checkpoint
    assert cfg.dataloader.evaluator.dataset_name == "coco_2017_val"
    sides = dict(short_edge_length=1024, max_size=1024)
    if "R_50" in name:
        sides = dict(short_edge_length=800, max_size=1333)
    (resize,) = cfg.dataloader.test.mapper.augmentations
    assert {key: resize[key] for key in sides} == sides
    LazyConfig.save(cfg, str(tmp_path / "config.yaml"))  # Detectron2's default_setup does
    again = LazyConfig.load(str(tmp_path / "config.yaml"))
    assert again.model.backbone.keys() == cfg.model.backbone.keys()


@pytest.mark.parametrize("name", LAZY)
def test_runs(name):
    part, kind, _ = WRAPPED[name]
    model = load(name).model
    node = model.backbone[part]
    for key, value in REDUCED.get(kind, {}).items():
        node[key] = value
    model.backbone.square_pad = 64
    model.roi_heads.mask_head.conv_dims = [16, 16]
    for head in model.roi_heads.get("box_heads") or [model.roi_heads.box_head]:
        head.conv_dims = [8]
    model.proposal_generator.post_nms_topk = (20, 20)
    built = instantiate(model).eval()
    seen = count(built.backbone, part)
    with torch.no_grad():
        (output,) = built(pictures(1, (48, 64)))
    assert output["instances"].image_size == (48, 64)
    # As the file says: 4 views of the padded image through the backbone, all else once.
    assert seen == {part: 4, "backbone": 1}


def count(backbone, part) -> dict:
    """Images that reach the wrapped network's first convolution, and the whole backbone."""
    seen = {part: 0, "backbone": 0}

    def add(name):
        def hook(module, args):
            seen[name] += len(args[0])

        return hook

    first = next(m for m in getattr(backbone, part).modules() if isinstance(m, torch.nn.Conv2d))
    first.register_forward_pre_hook(add(part))
    backbone.register_forward_pre_hook(add("backbone"))
    return seen


def test_paper_setting_from_the_command_line():
    cfg = LazyConfig.apply_overrides(load("mask_rcnn_vitdet_b.py"), ["model.backbone.level=3"])
    for key, value in REDUCED["ViT"].items():
        cfg.model.backbone.net[key] = value
    backbone = instantiate(cfg.model.backbone)
    assert backbone._srt.settings == Settings(level=3) and len(backbone._srt.views()) == 49


# --- yaml ----------------------------------------------------------------------------------------

OFFICIAL = {
    "mask_rcnn_R_50_FPN.yaml": "COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_3x.yaml",
    "panoptic_fpn_R_50.yaml": "COCO-PanopticSegmentation/panoptic_fpn_R_50_3x.yaml",
}


def merged(path):
    cfg = get_cfg()
    add_srt_config(cfg)
    cfg.merge_from_file(path)
    return cfg


def leaves(cfg, prefix="") -> dict:
    found = {}
    for key, value in cfg.items():
        name = f"{prefix}{key}"
        found.update(leaves(value, f"{name}.") if isinstance(value, dict) else {name: value})
    return found


@pytest.mark.parametrize("name", YAML)
def test_yaml_is_the_official_one_but_for_srt(name):
    ours = merged(d2_configs.path(name))
    official = leaves(merged(model_zoo.get_config_file(OFFICIAL[name])))
    changed = {key: value for key, value in leaves(ours).items() if value != official[key]}
    assert changed == {
        "MODEL.BACKBONE.NAME": "build_srt_backbone",
        "MODEL.SRT.BACKBONE": "build_resnet_fpn_backbone",
        "MODEL.WEIGHTS": ours.MODEL.WEIGHTS,
    }
    trained = model_zoo.get_checkpoint_url(OFFICIAL[name])
    assert trained.endswith(ours.MODEL.WEIGHTS[len("detectron2://") :])


@pytest.mark.parametrize("name", YAML)
def test_yaml_runs(name):
    cfg = merged(d2_configs.path(name))
    cfg.MODEL.DEVICE = "cpu"
    cfg.MODEL.RESNETS.STEM_OUT_CHANNELS, cfg.MODEL.RESNETS.RES2_OUT_CHANNELS = 8, 16
    cfg.MODEL.RESNETS.WIDTH_PER_GROUP, cfg.MODEL.ROI_BOX_HEAD.FC_DIM = 4, 64
    model = build_model(cfg).eval()
    seen = count(model.backbone, "bottom_up")
    with torch.no_grad():
        (output,) = model(pictures(1))
    assert seen == {"bottom_up": 4, "backbone": 1} and "instances" in output
    assert ("panoptic_seg" in output) == name.startswith("panoptic")


# --- finding them --------------------------------------------------------------------------------


def test_every_config_is_tested_and_listed():
    assert set(LAZY) == set(WRAPPED) and set(YAML) == set(OFFICIAL)
    readme = Path(d2_configs.__file__).with_name("README.md").read_text()
    assert [name for name in d2_configs.names() if f"`{name}`" not in readme] == []


def test_unknown_name():
    with pytest.raises(ConfigError, match="got 'mask_rcnn_vitdet_g.py'; near it are 'mask_"):
        d2_configs.path("mask_rcnn_vitdet_g.py")
    assert isinstance(load("mask_rcnn_vitdet_b.py"), DictConfig)
