"""``cfg``: a LazyConfig with a tiny ViTDet; ``model``: its node."""

from __future__ import annotations

# First, so that where Detectron2 is missing, this is what is told.
from tests.detectron2.tiny import tiny_vitdet_cfg


def setup(names: dict) -> None:
    """Bind them."""
    from omegaconf import OmegaConf  # comes with Detectron2

    cfg = OmegaConf.create({"model": {}}, flags={"allow_objects": True})
    cfg.model = tiny_vitdet_cfg()
    names.update(cfg=cfg, model=cfg.model)
