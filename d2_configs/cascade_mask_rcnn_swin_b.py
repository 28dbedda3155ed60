"""Swin-B, Cascade Mask R-CNN on COCO (ViTDet's cascade_mask_rcnn_swin_b_in21k_50ep), ensembled
at the outputs of its FPN.

Views and cost as in cascade_mask_rcnn_mvitv2_b.py; 16 pixels also move the windows of attention,
seven tokens wide, on every level.
"""

from detectron2.config import LazyCall as L
from detectron2.modeling import SwinTransformer

from srt_plugins.detectron2 import with_srt

from .cascade_mask_rcnn_mvitv2_b import dataloader, model, train

model.backbone.in_features = ("p0", "p1", "p2", "p3")
model.backbone.bottom_up = L(SwinTransformer)(
    depths=[2, 2, 18, 2], drop_path_rate=0.4, embed_dim=128, num_heads=[4, 8, 16, 32]
)
with_srt(model.backbone)

train.init_checkpoint = (
    "detectron2://ViTDet/COCO/cascade_mask_rcnn_swin_b_in21k/f342979038/model_final_246a82.pkl"
)
