"""ViTDet, ViT-L/16, Cascade Mask R-CNN on COCO (ViTDet's cascade_mask_rcnn_vitdet_l_100ep),
ensembled.

Views: (0 | 8, 0 | 8) pixels, half a patch. Cost: 2 x 2 = 4 x the ViT and its
pyramid, the rest once.
"""

from ._cascade import cascade
from .mask_rcnn_vitdet_l import dataloader, model, train

model = cascade(model)

train.init_checkpoint = (
    "detectron2://ViTDet/COCO/cascade_mask_rcnn_vitdet_l/f328021305/model_final_1a9f28.pkl"
)
