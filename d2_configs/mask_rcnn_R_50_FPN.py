"""Mask R-CNN, R50-FPN on COCO (mask_rcnn_R_50_FPN_3x), the ResNet ensembled below its FPN.

Strides 4, 8, 16, 32, so 10 pixels are off every grid: 10 mod (4, 8, 16, 32) = (2, 2, 10, 10).
Views: (0 | 10, 0 | 10) pixels. Cost: 4 x the ResNet; FPN, proposals and heads run once.
"""

from detectron2 import model_zoo

from srt_plugins.detectron2 import with_srt

model = model_zoo.get_config("common/models/mask_rcnn_fpn.py").model
model.backbone.bottom_up.freeze_at = 2
with_srt(model.backbone.bottom_up, views=[(0, 0), (10, 10), (0, 10), (10, 0)])

dataloader = model_zoo.get_config("common/data/coco.py").dataloader
dataloader.train.mapper.image_format = "BGR"
train = model_zoo.get_config("common/train.py").train
train.init_checkpoint = (
    "detectron2://COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_3x/137849600/model_final_f10217.pkl"
)
