"""``cfg``: a LazyConfig with a tiny ViTDet; ``model``: its node."""

from __future__ import annotations

from omegaconf import OmegaConf

from tests.detectron2.tiny import tiny_vitdet_cfg


def setup(names: dict) -> None:
    """Bind them."""
    cfg = OmegaConf.create({"model": {}}, flags={"allow_objects": True})
    cfg.model = tiny_vitdet_cfg()
    names.update(cfg=cfg, model=cfg.model)
