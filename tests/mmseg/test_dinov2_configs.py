"""The DINOv2 configs in ``mmseg_configs``: as released in names and shapes, then shrunk and run."""

from __future__ import annotations

import re
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmengine.runner import Runner
from mmseg.registry import MODELS
from torch.nn import functional as F

from srt_plugins import srt_enabled
from srt_plugins.errors import CheckpointError
from tests.mmseg.dinov2 import SIZES, dpt_shapes, linear_depth_shapes, linear_seg_shapes, random
from tests.mmseg.tiny import build, images, sample_of

CONFIGS = Path(__file__).resolve().parents[2] / "mmseg_configs"
DEPTH = sorted((CONFIGS / "depth").glob("*.py"))
SEGMENTATION = sorted((CONFIGS / "dinov2").glob("*.py"))
# Sizes differ by width, depth and layers only.
RUN = [p for p in DEPTH + SEGMENTATION if "vits14" in p.stem or p.stem == "dinov2_vitl14_nyu_dpt"]
every = pytest.mark.parametrize("path", DEPTH + SEGMENTATION, ids=lambda p: p.stem)

pytestmark = [
    pytest.mark.filterwarnings("ignore::UserWarning"),
    pytest.mark.usefixtures("offline"),
]


@pytest.fixture
def offline(monkeypatch):
    """Whatever would fetch a file fails."""

    def refuse(url, *args, **kwargs):
        raise AssertionError(f"fetches {url}")

    init_default_scope("mmseg")
    monkeypatch.setattr(torch.hub, "download_url_to_file", refuse)
    monkeypatch.setattr("urllib.request.urlopen", refuse)


def parts(path):
    """Model, data set and head that a config's name says."""
    return re.fullmatch(r"dinov2_(vit[sbl]14)_(nyu|ade20k|voc12)_(linear4|linear|dpt)", path.stem)


def shrunk(path, **options):
    """The config with a model of width 16 and no weights."""
    cfg = Config.fromfile(path)
    arch, data, head = parts(path).groups()
    taps = {"linear4": 4, "dpt": 4}.get(head, 1)
    backbone = {"arch": None, "embed_dim": 16, "num_heads": 2, "img_size": 56}
    backbone.update(depth=SIZES[arch]["depth"], checkpoint=None)
    if head == "dpt":
        small = {"embed_dims": 16, "channels": 8, "post_process_channels": [4, 4, 8, 8]}
    else:
        small = {"in_channels": [16] * taps}
    if data == "nyu" and head != "dpt":
        small["n_bins"] = 8
    if data != "nyu":
        options = {"test_cfg.crop_size": (70, 70), "test_cfg.stride": (50, 50), **options}
    cfg.merge_from_dict({f"model.backbone.{key}": value for key, value in backbone.items()})
    cfg.merge_from_dict({f"model.decode_head.{key}": value for key, value in small.items()})
    cfg.merge_from_dict({f"model.{key}": value for key, value in options.items()})
    return cfg


def small_model(path):
    model = build(shrunk(path).model)
    if "dpt" in path.stem:  # random heads may well be below zero everywhere
        torch.nn.init.constant_(model.decode_head.conv_depth.head[-1].bias, 2.0)
    return model


def prediction(model, size):
    image = (images(size)[0] * 60 + 120).clamp(0, 255)
    with torch.no_grad():
        (sample,) = model.test_step({"inputs": [image], "data_samples": [sample_of(size)]})
    return (sample.pred_depth_map if "pred_depth_map" in sample else sample.seg_logits).data


def test_there_is_a_config_for_every_size_data_set_and_head():
    names = {p.stem for p in DEPTH + SEGMENTATION}
    depth = {f"nyu_{head}" for head in ("linear", "linear4", "dpt")}
    pairs = depth | {"ade20k_linear", "voc12_linear"}
    assert names == {f"dinov2_vit{s}14_{pair}" for s in "sbl" for pair in pairs}


@every
def test_names_shapes_and_layers_are_those_of_the_released_models(path):
    cfg = Config.fromfile(path)
    arch, data, head = parts(path).groups()
    width, taps = SIZES[arch]["width"], SIZES[arch]["taps"]
    backbone = cfg.model.backbone
    assert backbone.arch == arch
    url = f"https://dl.fbaipublicfiles.com/dinov2/dinov2_{arch}/dinov2_{arch}"
    assert backbone.checkpoint == f"{url}_pretrain.pth"
    assert f"{url}_{data.replace('voc12', 'voc2012')}_{head}_head.pth" in path.read_text()
    assert backbone.get("final_norm", True) is (data != "nyu")
    if data == "nyu":
        layers = 4 if head != "linear" else 1
        assert tuple(backbone.out_indices) == (taps if layers == 4 else taps[-1:])
        assert backbone.output_cls_token is True
        expected = dpt_shapes(width) if head == "dpt" else linear_depth_shapes(width, layers)
        assert (cfg.model.decode_head.min_depth, cfg.model.decode_head.max_depth) == (0.001, 10.0)
    else:
        classes = {"ade20k": 150, "voc12": 21}[data]
        expected = linear_seg_shapes(width, 1, classes)
    with torch.device("meta"):
        built = MODELS.build(cfg.model.decode_head)
    assert {f"decode_head.{k}": tuple(v.shape) for k, v in built.state_dict().items()} == expected


@every
def test_configs_are_short_and_say_what_views_cost(path):
    comments, code = (
        [line for line in path.read_text().splitlines() if line.startswith("#") is wanted]
        for wanted in (True, False)
    )
    assert len(code) <= 20
    cost = re.search(r"Cost: (\d+) x", "\n".join(comments))
    state = small_model(path).backbone._srt
    state.patch = state.adapter.patch
    assert cost is not None and int(cost[1]) == len(state.views())


@pytest.mark.parametrize("path", RUN, ids=lambda p: p.stem)
def test_off_is_the_plain_model_to_the_bit_and_on_is_not(path):
    wrapped = small_model(path)
    plain = shrunk(path)
    for key in ("wraps", "srt"):
        plain.model.backbone.pop(key)
    plain.model.backbone.type = "DINOv2"
    plain = build(plain.model)
    plain.load_state_dict(wrapped.state_dict(), strict=True)
    size = (90, 133)  # whole patches on neither axis, several windows
    expected = prediction(plain, size)
    with srt_enabled(wrapped, enabled=False):
        assert torch.equal(prediction(wrapped, size), expected)
    found = prediction(wrapped, size)
    assert found.shape == expected.shape == (len(expected), *size)
    assert not torch.equal(found, expected)
    # Random weights, up to 24 blocks: views agree in the main only. A misplaced map would not.
    assert torch.corrcoef(torch.stack([found.flatten(), expected.flatten()]))[0, 1] > 0.5


@pytest.mark.parametrize("path", DEPTH[:1] + DEPTH[1:2], ids=lambda p: p.stem)
def test_depth_is_for_the_image_completed_on_all_sides_and_stretched_back(path):
    model = small_model(path)
    size, full = (90, 133), (98, 140)
    image = (images(size) * 60 + 120).clamp(0, 255)
    mean = torch.tensor([123.675, 116.28, 103.53])[:, None, None]
    std = torch.tensor([58.395, 57.12, 57.375])[:, None, None]
    padded = F.pad((image.flip(1) - mean) / std, (3, 4, 4, 4))
    assert padded.shape[-2:] == full
    with torch.no_grad(), srt_enabled(model, enabled=False):
        depth = model.decode_head(model.backbone(padded)).clamp(0.001, 10)
        expected = F.interpolate(depth, size=size, mode="bilinear")[0]
        found = prediction(model, size)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


@pytest.fixture(scope="module")
def nyu(tmp_path_factory):
    """Two test images in the folders of the NYU data set, depth in millimetres."""
    root = tmp_path_factory.mktemp("nyu")
    rng = np.random.default_rng(0)
    for folder in ("images/test", "annotations/test"):
        (root / folder).mkdir(parents=True)
    for name in ("bathroom_0045", "kitchen_0011"):
        image = cv2.resize(rng.integers(0, 255, (6, 8, 3)).astype(np.uint8), (640, 480))
        depth = cv2.resize(rng.uniform(500, 12000, (6, 8)).astype(np.float32), (640, 480))
        depth[:, 300:330] = 0
        cv2.imwrite(str(root / f"images/test/{name}.jpg"), image)
        cv2.imwrite(str(root / f"annotations/test/{name}.png"), depth.astype(np.uint16))
    return root


def run(cfg, work, head, **options):
    cfg.merge_from_dict(options)
    cfg.work_dir, cfg.load_from, cfg.log_level = str(work), str(head), "ERROR"
    cfg.test_dataloader.num_workers, cfg.test_dataloader.persistent_workers = 0, False
    cfg.experiment_name = work.name
    for key in ("train_dataloader", "val_dataloader", "val_cfg", "val_evaluator"):
        cfg.pop(key, None)
    return Runner.from_cfg(cfg)


def test_nyu_runs_with_the_checkpoint_of_the_head_alone(tmp_path, nyu):
    """As `tools/test.py CONFIG HEAD`: MMEngine's Runner, the data set, the errors; no SRT, SRT."""
    path = CONFIGS / "depth" / "dinov2_vits14_nyu_linear.py"
    quick = {"backbone.depth": 2, "backbone.out_indices": (1,)}
    backbone = build(shrunk(path, **quick).model.backbone).state_dict()
    torch.save(backbone, tmp_path / "backbone.pth")
    torch.save(random(linear_depth_shapes(16, 1, bins=8)), tmp_path / "head.pth")
    root = {"test_dataloader.dataset.data_root": str(nyu)}
    weights = {"model.backbone.checkpoint": str(tmp_path / "backbone.pth")}
    found = {}
    for name, views in (("off", 0), ("on", None)):
        cfg = shrunk(path, **quick)
        cfg.merge_from_dict({**root, **weights})
        if views == 0:
            cfg.model.backbone.srt = dict(level=0)
        runner = run(cfg, tmp_path / name, tmp_path / "head.pth")
        for parameter in runner.model.decode_head.parameters():
            torch.nn.init.zeros_(parameter)  # only MMEngine's own loading can bring the weights
        found[name] = runner.test()
        own = runner.model.backbone.state_dict()
        assert all(torch.equal(own[key], backbone[key]) for key in backbone)
        assert runner.model.decode_head.conv_depth.weight.abs().min() > 0
    assert set(found["off"]) >= {"d1", "abs_rel", "rmse", "log10"}
    assert all(np.isfinite(list(errors.values())).all() for errors in found.values())
    assert found["on"]["rmse"] != found["off"]["rmse"]
    assert found["on"]["rmse"] == pytest.approx(found["off"]["rmse"], rel=0.1)

    cfg = shrunk(path, **quick)  # without the backbone's weights SRT would ensemble random ones
    cfg.merge_from_dict(root)
    with pytest.raises(CheckpointError, match="hold weights of (SRT)?DINOv2"):
        run(cfg, tmp_path / "random", tmp_path / "head.pth").test()
