"""A tiny random ViT segmentor and two rendered scenes: a base of the pages' configs."""

custom_imports = dict(imports=["srt_plugins.mmseg"], allow_failed_imports=False)
default_scope = "mmseg"
model = dict(
    type="EncoderDecoder",
    data_preprocessor=dict(
        type="SegDataPreProcessor",
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        bgr_to_rgb=True,
        test_cfg=dict(size_divisor=8),
    ),
    backbone=dict(
        type="VisionTransformer",
        img_size=(40, 56),
        patch_size=8,
        embed_dims=16,
        num_layers=2,
        num_heads=2,
        mlp_ratio=2,
        out_indices=(0, 1),
        final_norm=True,
    ),
    decode_head=dict(
        type="FCNHead",
        in_channels=16,
        in_index=1,
        channels=16,
        num_convs=0,
        concat_input=False,
        num_classes=10,
        norm_cfg=None,
        align_corners=False,
        loss_decode=dict(type="CrossEntropyLoss"),
    ),
    train_cfg=dict(),
    test_cfg=dict(mode="whole"),
)
test_dataloader = dict(
    batch_size=1,
    num_workers=0,
    sampler=dict(type="DefaultSampler", shuffle=False),
    dataset=dict(
        type="ScenesDataset",
        length=2,
        size=(36, 52),
        pipeline=[dict(type="LoadScene"), dict(type="PackSegInputs")],
    ),
)
test_evaluator = dict(type="IoUMetric")
test_cfg = dict(type="TestLoop")
log_level = "ERROR"
