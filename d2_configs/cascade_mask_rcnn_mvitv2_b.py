"""MViTv2-B, Cascade Mask R-CNN on COCO (ViTDet's cascade_mask_rcnn_mvitv2_b_in21k_100ep),
ensembled at the outputs of its FPN.

Its maps have strides 4, 8, 16, 32. Views: (0 | 16, 0 | 16) pixels, half of the coarsest, which are
whole cells of the others, (16 / 4, 16 / 8, 16 / 16) = (4, 2, 1), so that nothing fine is blurred.
Cost: 2 x 2 = 4 x the MViT and its FPN; the proposals and the heads run once.
"""

from functools import partial

from detectron2 import model_zoo
from detectron2.config import LazyCall as L
from detectron2.modeling import MViT
from torch import nn

from srt_plugins.detectron2 import with_srt

from ._cascade import cascade
from ._coco_lsj import dataloader, train

model = cascade(model_zoo.get_config("common/models/mask_rcnn_fpn.py").model)
constants = model_zoo.get_config("common/data/constants.py").constants
model.pixel_mean, model.pixel_std = constants.imagenet_rgb256_mean, constants.imagenet_rgb256_std
model.input_format = "RGB"
model.proposal_generator.head.conv_dims = [-1, -1]
model.backbone.update(norm="LN", square_pad=1024, in_features="${.bottom_up.out_features}")
model.backbone.bottom_up = L(MViT)(
    embed_dim=96,
    depth=24,
    num_heads=1,
    last_block_indexes=(1, 4, 20, 23),
    residual_pooling=True,
    drop_path_rate=0.4,
    norm_layer=partial(nn.LayerNorm, eps=1e-6),
    out_features=("scale2", "scale3", "scale4", "scale5"),
)
with_srt(model.backbone)

train.init_checkpoint = (
    "detectron2://ViTDet/COCO/cascade_mask_rcnn_mvitv2_b_in21k/f325820315/model_final_8c3da3.pkl"
)
