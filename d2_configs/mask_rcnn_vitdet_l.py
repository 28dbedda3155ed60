"""ViTDet, ViT-L/16, Mask R-CNN on COCO (ViTDet's mask_rcnn_vitdet_l_100ep), ensembled.

Views: (0 | 8, 0 | 8) pixels, half a patch. Cost: 2 x 2 = 4 x the ViT and its
pyramid, the rest once.
"""

from .mask_rcnn_vitdet_b import dataloader, model, train

model.backbone.net.update(
    embed_dim=1024,
    depth=24,
    num_heads=16,
    drop_path_rate=0.4,
    window_block_indexes=[i for i in range(24) if i % 6 != 5],  # 5, 11, 17, 23 attend globally
)

train.init_checkpoint = (
    "detectron2://ViTDet/COCO/mask_rcnn_vitdet_l/f325599698/model_final_6146ed.pkl"
)
