"""ViTDet, ViT-B/16, Mask R-CNN on COCO (ViTDet's mask_rcnn_vitdet_b_100ep), the ViT ensembled.

Images are padded to 1024 x 1024 pixels, 64 x 64 tokens. Views: (0 | 8, 0 | 8) pixels, half a patch.
Cost: 2 x 2 = 4 x the ViT; the pyramid, the proposals and the heads run once.

    python tools/lazyconfig_train_net.py --eval-only --config-file d2_configs/mask_rcnn_vitdet_b.py
    ... model.backbone.net.level=3    # the paper's grid: (2 * 3 + 1) ** 2 = 49 views

Under your own copy of projects/ViTDet's config the same takes its last two lines:

    from srt_plugins.detectron2 import with_srt
    with_srt(model.backbone.net)
"""

from detectron2 import model_zoo

from srt_plugins.detectron2 import with_srt

from ._coco_lsj import dataloader, train

model = model_zoo.get_config("common/models/mask_rcnn_vitdet.py").model
with_srt(model.backbone.net)

train.init_checkpoint = (
    "detectron2://ViTDet/COCO/mask_rcnn_vitdet_b/f325346929/model_final_61ccd1.pkl"
)
