"""``predictor``: Detectron2's, of a tiny Mask R-CNN; ``model``: a tiny ViTDet."""

from __future__ import annotations

from detectron2.engine import DefaultPredictor

from tests.detectron2.tiny import built, tiny_rcnn_fpn_cfg, tiny_vitdet_cfg


def setup(names: dict) -> None:
    """Bind them."""
    names.update(predictor=DefaultPredictor(tiny_rcnn_fpn_cfg()), model=built(tiny_vitdet_cfg()))
