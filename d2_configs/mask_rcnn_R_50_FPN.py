"""Mask R-CNN, R50-FPN on COCO (mask_rcnn_R_50_FPN_3x), ensembled at the outputs of its FPN.

Strides 4, 8, 16, 32. Views: (0 | 16, 0 | 16) pixels, half of the coarsest, which are whole cells of
the others: (16 / 4, 16 / 8, 16 / 16) = (4, 2, 1). Convolutions move with such a view except at
stride 32, so expect little from it. Cost: 4 x the ResNet and its FPN; the rest runs once.
"""

from detectron2 import model_zoo

from srt_plugins.detectron2 import with_srt

model = model_zoo.get_config("common/models/mask_rcnn_fpn.py").model
model.backbone.bottom_up.freeze_at = 2
with_srt(model.backbone)

dataloader = model_zoo.get_config("common/data/coco.py").dataloader
dataloader.train.mapper.image_format = "BGR"
train = model_zoo.get_config("common/train.py").train
train.init_checkpoint = (
    "detectron2://COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_3x/137849600/model_final_f10217.pkl"
)
