# Metric depth on procedurally rendered scenes: a small ViT of DINOv2's shape (patch 14, 6 layers,
# width 192) for DINOv2's DPT and linear heads. Needs no data on disk. train.py trains both heads at
# once with this file; vit_scenes_depth_dpt.py and vit_scenes_depth_linear.py test one of them.
custom_imports = dict(imports=["srt_plugins.mmseg"], allow_failed_imports=False)
default_scope = "mmseg"

crop_size = (196, 252)
# 200 rows and 312 columns are not multiples of the patch: the last patches are partly padding.
scene_size = (200, 312)
depth_range = dict(min_depth=0.001, max_depth=80.0)  # metres; sky and what is farther is left out

linear_head = dict(
    type="DINOv2LinearDepthHead",
    in_channels=[192] * 4,
    n_bins=128,
    loss_decode=dict(type="SiLogLoss"),
    **depth_range,
)
dpt_head = dict(
    type="DINOv2DPTDepthHead",
    embed_dims=192,
    post_process_channels=[32, 48, 64, 64],
    channels=32,
    hidden_channels=16,
    loss_decode=dict(type="SiLogLoss"),
    **depth_range,
)
model = dict(
    type="DepthEstimator",
    data_preprocessor=dict(
        type="SegDataPreProcessor",
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        bgr_to_rgb=True,
        pad_val=0,
        seg_pad_val=0,
        size=crop_size,
        test_cfg=dict(size_divisor=14),
    ),
    backbone=dict(
        type="DINOv2",
        arch=None,
        embed_dim=192,
        depth=6,
        num_heads=3,
        img_size=224,
        drop_path_rate=0.05,
        out_indices=(1, 2, 4, 5),
        output_cls_token=True,
        final_norm=False,
    ),
    train_cfg=dict(),
    test_cfg=dict(mode="whole"),
)

train_pipeline = [
    dict(type="LoadScene", depth=True, cache=True),
    dict(type="RandomCrop", crop_size=crop_size),
    dict(type="RandomFlip", prob=0.5),
    dict(type="PhotoMetricDistortion", brightness_delta=16, hue_delta=9),
    dict(type="PackSegInputs"),
]
test_pipeline = [dict(type="LoadScene", depth=True), dict(type="PackSegInputs")]

train_dataloader = dict(
    batch_size=8,
    num_workers=0,
    persistent_workers=False,
    sampler=dict(type="InfiniteSampler", shuffle=True),
    dataset=dict(
        type="ScenesDataset", split="train", length=6000, size=scene_size, pipeline=train_pipeline
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
        length=100,
        size=scene_size,
        pipeline=test_pipeline,
        test_mode=True,
    ),
)
test_dataloader = val_dataloader
val_evaluator = dict(type="DepthMetric", min_depth_eval=0.001, max_depth_eval=80.0)
test_evaluator = val_evaluator

train_cfg = dict(type="IterBasedTrainLoop", max_iters=5600, val_interval=1400)
val_cfg = dict(type="ValLoop")
test_cfg = dict(type="TestLoop")
optim_wrapper = dict(
    type="OptimWrapper",
    optimizer=dict(type="AdamW", lr=5e-4, betas=(0.9, 0.98), weight_decay=0.05),
    clip_grad=dict(max_norm=1.0),
    paramwise_cfg=dict(
        custom_keys=dict(
            pos_embed=dict(decay_mult=0.0),
            cls_token=dict(decay_mult=0.0),
            gamma=dict(decay_mult=0.0),  # LayerScale
            head=dict(lr_mult=2.0),
        ),
        norm_decay_mult=0.0,
        bias_decay_mult=0.0,
    ),
)
param_scheduler = [
    dict(type="LinearLR", start_factor=0.01, by_epoch=False, begin=0, end=200),
    dict(type="CosineAnnealingLR", eta_min=1e-6, by_epoch=False, begin=200, end=5600),
]
default_hooks = dict(
    logger=dict(type="LoggerHook", interval=50, log_metric_by_epoch=False),
    checkpoint=dict(type="CheckpointHook", by_epoch=False, interval=400, max_keep_ckpts=2),
)
log_processor = dict(by_epoch=False)
randomness = dict(seed=0)
log_level = "INFO"
