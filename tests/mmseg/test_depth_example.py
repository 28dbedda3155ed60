"""The shipped depth model: files as DINOv2 names them, MMEngine's Runner, better than a guess."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip("timm", reason="the backbone is built on timm")

from mmengine.config import Config
from mmengine.runner import Runner

from srt_plugins.scenes import SPLIT_SEEDS, render
from tests.mmseg.dinov2 import backbone_shapes, dpt_shapes, linear_depth_shapes

FOLDER = Path(__file__).resolve().parents[2] / "examples" / "depth"
SHAPES = {
    "backbone": backbone_shapes(192, 6, side=16),
    "linear": linear_depth_shapes(192, 4, bins=128),
    "dpt": dpt_shapes(192, channels=32, stages=[32, 48, 64, 64], hidden=16),
}
IMAGES = 6

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")


def test_files_hold_plain_finite_tensors_under_dinov2s_names_and_are_small():
    size = 0
    for part, shapes in SHAPES.items():
        path = FOLDER / f"vit_scenes_depth_{part}.pth"
        size += path.stat().st_size
        saved = torch.load(path, weights_only=True)
        state = saved if part == "backbone" else saved["state_dict"]
        assert {key: tuple(value.shape) for key, value in state.items()} == shapes
        for value in state.values():
            assert type(value) is torch.Tensor and value.dtype == torch.float16
            assert value.isfinite().all()
    assert size < 8e6


@pytest.mark.parametrize("head", ["linear", "dpt"])
def test_the_head_alone_is_loaded_and_beats_the_best_constant_depth(tmp_path, head):
    cfg = Config.fromfile(str(FOLDER / f"vit_scenes_depth_{head}.py"))
    cfg.work_dir, cfg.log_level = str(tmp_path), "ERROR"
    cfg.load_from = str(FOLDER / f"vit_scenes_depth_{head}.pth")
    cfg.test_dataloader.dataset.indices = IMAGES
    runner = Runner.from_cfg(cfg)
    for parameter in runner.model.decode_head.parameters():
        torch.nn.init.zeros_(parameter)  # so that only mmengine's own loading can bring the head
    found = runner.test()
    assert {p.dtype for p in runner.model.parameters()} == {torch.float32}

    depth = [render(SPLIT_SEEDS["val"], i, cfg.scene_size).depth for i in range(IMAGES)]
    depth = [d[(d > 0.001) & (d < 80)] for d in depth]
    guesses = np.geomspace(1, 80, 200)
    rmse = min(np.mean([np.sqrt(((g - d) ** 2).mean()) for d in depth]) for g in guesses)
    d1 = max(np.mean([(np.maximum(g / d, d / g) < 1.25).mean() for d in depth]) for g in guesses)
    assert found["rmse"] < 0.7 * rmse
    assert found["d1"] > 1.4 * d1
