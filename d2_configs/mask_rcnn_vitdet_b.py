"""ViTDet, ViT-B/16, Mask R-CNN on COCO (ViTDet's mask_rcnn_vitdet_b_100ep), ensembled.

Images are padded to 1024 x 1024 pixels, 64 x 64 tokens. Views: (0 | 8, 0 | 8) pixels, half a patch,
which are whole cells of the pyramid's finer maps: (8 / 4, 8 / 8) = (2, 1) cells of p2 and p3.
Cost: 2 x 2 = 4 x the ViT and its pyramid; the proposals and the heads run once. With
``with_srt(model.backbone.net)`` the pyramid runs once too, but on a small ViTDet that lost accuracy
where this gained.

    python tools/lazyconfig_train_net.py --eval-only --config-file d2_configs/mask_rcnn_vitdet_b.py
    ... model.backbone.level=3    # the paper's grid: (2 * 3 + 1) ** 2 = 49 views

Under your own copy of projects/ViTDet's config the same takes two lines:

    from srt_plugins.detectron2 import with_srt
    with_srt(model.backbone)
"""

from detectron2 import model_zoo

from srt_plugins.detectron2 import with_srt

from ._coco_lsj import dataloader, train

model = model_zoo.get_config("common/models/mask_rcnn_vitdet.py").model
with_srt(model.backbone)

train.init_checkpoint = (
    "detectron2://ViTDet/COCO/mask_rcnn_vitdet_b/f325346929/model_final_61ccd1.pkl"
)
