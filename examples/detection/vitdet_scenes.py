"""A small ViTDet Mask R-CNN on procedurally rendered scenes: a delta on Detectron2's own ViTDet.

Needs no data on disk. train.py made vitdet_scenes.pth.
"""

import detectron2.data.transforms as T
from detectron2 import model_zoo
from detectron2.config import LazyCall as L
from detectron2.data import (
    DatasetMapper,
    build_detection_test_loader,
    build_detection_train_loader,
    get_detection_dataset_dicts,
)
from detectron2.evaluation import COCOEvaluator
from detectron2.layers import ShapeSpec
from detectron2.solver import WarmupParamScheduler
from detectron2.solver.build import get_default_optimizer_params
from fvcore.common.param_scheduler import CosineParamScheduler
from omegaconf import OmegaConf
from torch.optim import AdamW

from srt_plugins.detectron2.scenes import register_scenes

num_classes = 4
channels = 80

model = model_zoo.get_config("common/models/mask_rcnn_vitdet.py").model
net = model.backbone.net
net.img_size = 384
net.pretrain_img_size = 224
net.embed_dim, net.depth, net.num_heads, net.drop_path_rate = 192, 6, 3, 0.05
net.window_block_indexes = [0, 1, 3, 4]  # blocks 2 and 5 attend globally
model.backbone.out_channels = channels
model.backbone.square_pad = 0  # 320 x 480 are whole patches on every level

# Half of the objects are smaller than 24 x 24 pixels.
model.proposal_generator.anchor_generator.sizes = [[12], [24], [48], [96], [192]]
model.proposal_generator.head.in_channels = channels
model.proposal_generator.head.conv_dims = [-1]
model.proposal_generator.pre_nms_topk = (1000, 500)
model.proposal_generator.post_nms_topk = (500, 300)
heads = model.roi_heads
heads.num_classes = num_classes
heads.batch_size_per_image = 128
heads.box_head.input_shape = ShapeSpec(channels=channels, height=7, width=7)
heads.box_head.conv_dims, heads.box_head.fc_dims = [channels, channels], [128]
heads.box_predictor.input_shape = ShapeSpec(channels=128)
heads.mask_head.input_shape = ShapeSpec(channels=channels, height=14, width=14)
heads.mask_head.conv_dims = [channels, channels, channels]

dataloader = OmegaConf.create()
dataloader.train = L(build_detection_train_loader)(
    dataset=L(get_detection_dataset_dicts)(
        names=L(register_scenes)(split="train", length=4000, size=(320, 480))
    ),
    mapper=L(DatasetMapper)(
        is_train=True,
        augmentations=[
            L(T.RandomFlip)(),
            L(T.ResizeScale)(min_scale=0.8, max_scale=1.6, target_height=320, target_width=480),
            L(T.FixedSizeCrop)(crop_size=(256, 384), pad=True),
            L(T.RandomBrightness)(intensity_min=0.8, intensity_max=1.2),
            L(T.RandomContrast)(intensity_min=0.8, intensity_max=1.2),
        ],
        image_format="RGB",
        use_instance_mask=True,
        instance_mask_format="bitmask",
        recompute_boxes=True,
    ),
    total_batch_size=4,
    num_workers=1,
)
dataloader.test = L(build_detection_test_loader)(
    dataset=L(get_detection_dataset_dicts)(
        names=L(register_scenes)(split="val", length=200, size=(320, 480)), filter_empty=False
    ),
    # No resizing: pictures come in the size that the model is for.
    mapper=L(DatasetMapper)(is_train=False, augmentations=[], image_format="RGB"),
    num_workers=0,
)
dataloader.evaluator = L(COCOEvaluator)(
    dataset_name="${..test.dataset.names}",
    tasks=("bbox", "segm"),
    distributed=False,
    output_dir="${train.output_dir}",
)

train = model_zoo.get_config("common/train.py").train
train.device = "cpu"
train.amp.enabled = False
train.init_checkpoint = ""
train.output_dir = "work_dirs/detection"
train.max_iter = 4500
train.eval_period = 1500
train.log_period = 50
train.checkpointer.period, train.checkpointer.max_to_keep = 500, 2

optimizer = L(AdamW)(
    params=L(get_default_optimizer_params)(base_lr="${..lr}", weight_decay_norm=0.0),
    lr=5e-4,
    betas=(0.9, 0.999),
    weight_decay=0.05,
)
lr_multiplier = L(WarmupParamScheduler)(
    scheduler=L(CosineParamScheduler)(start_value=1.0, end_value=0.01),
    warmup_length=250 / 4500,
    warmup_factor=0.01,
)
