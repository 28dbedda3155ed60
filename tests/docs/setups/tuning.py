"""``config.py`` and ``weights.pth``: of the tiny segmentor; ``model``: a tiny ViT."""

from __future__ import annotations

from pathlib import Path

import torch
from mmengine.config import Config

from tests.docs.setups import vit
from tests.mmseg.tiny import build


def setup(names: dict) -> None:
    """Write and bind them."""
    cfg = Config.fromfile(Path(__file__).parents[1] / "bases" / "tiny.py")
    cfg.val_dataloader, cfg.val_evaluator = cfg.test_dataloader, cfg.test_evaluator
    cfg.val_cfg = dict(type="ValLoop")
    cfg.dump("config.py")
    torch.save({"state_dict": build(cfg.model).state_dict()}, "weights.pth")
    vit.setup(names)
