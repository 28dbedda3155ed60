# Demo model of vit_scenes.pth: a small plain ViT (patch 16, 6 layers, width 192) with a linear
# head on procedurally rendered scenes. Needs no data on disk. train.py made the checkpoint.
custom_imports = dict(imports=["srt_plugins.mmseg"], allow_failed_imports=False)
default_scope = "mmseg"

num_classes = 10
crop_size = (192, 256)
# 200 rows and 312 columns are not multiples of the patch: the last patches are partly padding.
scene_size = (200, 312)

model = dict(
    type="EncoderDecoder",
    data_preprocessor=dict(
        type="SegDataPreProcessor",
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        bgr_to_rgb=True,
        pad_val=0,
        seg_pad_val=255,
        size=crop_size,
        test_cfg=dict(size_divisor=16),
    ),
    backbone=dict(
        type="VisionTransformer",
        img_size=crop_size,
        patch_size=16,
        embed_dims=192,
        num_layers=6,
        num_heads=3,
        out_indices=(1, 3, 5),
        drop_path_rate=0.05,
        norm_cfg=dict(type="LN", eps=1e-6),
        final_norm=True,
        interpolate_mode="bicubic",
    ),
    decode_head=dict(
        type="FCNHead",
        in_channels=192,
        in_index=2,
        channels=192,
        num_convs=0,
        concat_input=False,
        dropout_ratio=0.0,
        num_classes=num_classes,
        norm_cfg=None,
        align_corners=False,
        loss_decode=dict(
            type="CrossEntropyLoss",
            use_sigmoid=False,
            # Fences, poles, signs and people cover little of the pictures.
            class_weight=[0.8, 1.0, 1.0, 1.0, 1.3, 1.7, 1.5, 1.4, 1.2, 1.7],
        ),
    ),
    train_cfg=dict(),
    test_cfg=dict(mode="whole"),
)

train_pipeline = [
    dict(type="LoadScene", cache=True),
    dict(type="RandomResize", scale=(312, 200), ratio_range=(0.96, 1.5), keep_ratio=True),
    dict(type="RandomCrop", crop_size=crop_size, cat_max_ratio=0.9),
    dict(type="RandomFlip", prob=0.5),
    dict(type="PhotoMetricDistortion", brightness_delta=16, hue_delta=9),
    dict(type="PackSegInputs"),
]
test_pipeline = [dict(type="LoadScene"), dict(type="PackSegInputs")]

train_dataloader = dict(
    batch_size=16,
    num_workers=1,
    persistent_workers=True,
    sampler=dict(type="InfiniteSampler", shuffle=True),
    dataset=dict(
        type="ScenesDataset", split="train", length=12000, size=scene_size, pipeline=train_pipeline
    ),
)
val_dataloader = dict(
    batch_size=1,
    num_workers=0,
    persistent_workers=False,
    sampler=dict(type="DefaultSampler", shuffle=False),
    dataset=dict(
        type="ScenesDataset",
        split="val",
        length=80,
        size=scene_size,
        pipeline=test_pipeline,
        test_mode=True,
    ),
)
test_dataloader = val_dataloader
val_evaluator = dict(type="IoUMetric", iou_metrics=["mIoU"])
test_evaluator = val_evaluator

train_cfg = dict(type="IterBasedTrainLoop", max_iters=3600, val_interval=600)
val_cfg = dict(type="ValLoop")
test_cfg = dict(type="TestLoop")
optim_wrapper = dict(
    type="OptimWrapper",
    optimizer=dict(type="AdamW", lr=1e-3, betas=(0.9, 0.98), weight_decay=0.05),
    clip_grad=dict(max_norm=1.0),
    paramwise_cfg=dict(
        custom_keys=dict(pos_embed=dict(decay_mult=0.0), cls_token=dict(decay_mult=0.0)),
        norm_decay_mult=0.0,
    ),
)
param_scheduler = [
    dict(type="LinearLR", start_factor=0.01, by_epoch=False, begin=0, end=300),
    dict(type="CosineAnnealingLR", eta_min=1e-6, by_epoch=False, begin=300, end=3600),
]
default_hooks = dict(
    logger=dict(type="LoggerHook", interval=50, log_metric_by_epoch=False),
    checkpoint=dict(type="CheckpointHook", by_epoch=False, interval=400, max_keep_ckpts=2),
)
log_processor = dict(by_epoch=False)
randomness = dict(seed=0)
log_level = "INFO"
