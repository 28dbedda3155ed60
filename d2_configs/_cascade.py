"""The Cascade R-CNN heads of the ViTDet project: three stages, each 4 convolutions and 1 linear."""

from typing import Any

from detectron2 import model_zoo


def cascade(model: Any) -> Any:
    """Give a Mask R-CNN node those heads, with layer norm."""
    model.roi_heads = model_zoo.get_config("common/models/cascade_rcnn.py").model.roi_heads
    model.roi_heads.mask_head.conv_norm = "LN"
    for head in model.roi_heads.box_heads:
        head.update(conv_dims=[256, 256, 256, 256], fc_dims=[1024], conv_norm="LN")
    return model
