"""``cfg``: Detectron2's defaults; ``my_config.yaml``: a tiny Mask R-CNN on a ResNet-FPN."""

from __future__ import annotations

from pathlib import Path

from detectron2.config import get_cfg

from tests.detectron2.tiny import tiny_rcnn_fpn_cfg


def setup(names: dict) -> None:
    """Bind and write them."""
    plain = tiny_rcnn_fpn_cfg()
    del plain.MODEL["SRT"]  # a file of a user who has none yet
    Path("my_config.yaml").write_text(plain.dump())
    names["cfg"] = get_cfg()
