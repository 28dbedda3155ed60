# CamVid (11 classes, 480x360) for a small ViT-16 segmentation model trained on it.
#
# Expects $CAMVID_ROOT/{val,valannot}/*.png with labels 0-10 and 11 = unlabelled, for example
#   CAMVID_ROOT=path/to/camvid python -m srt_plugins compare mmseg \
#       benchmarks/camvid/vit_camvid.py path/to/vit_camvid.pth
custom_imports = dict(imports=["srt_plugins.mmseg"], allow_failed_imports=False)
default_scope = "mmseg"
log_level = "ERROR"
classes = (
    "Sky",
    "Building",
    "Pole",
    "Road",
    "Pavement",
    "Tree",
    "SignSymbol",
    "Fence",
    "Car",
    "Pedestrian",
    "Bicyclist",
)

model = dict(
    type="EncoderDecoder",
    data_preprocessor=dict(
        type="SegDataPreProcessor",
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        bgr_to_rgb=True,
        pad_val=0,
        seg_pad_val=255,
        test_cfg=dict(size_divisor=16),
    ),  # 360 rows are completed to 368
    backbone=dict(
        type="VisionTransformer",
        img_size=(256, 256),
        patch_size=16,
        embed_dims=256,
        num_layers=10,
        num_heads=4,
        out_indices=(2, 5, 7, 9),
        drop_path_rate=0.1,
        norm_cfg=dict(type="LN", eps=1e-6),
        final_norm=True,
        interpolate_mode="bicubic",
    ),
    decode_head=dict(
        type="FCNHead",
        in_channels=256,
        in_index=3,
        channels=256,
        num_convs=0,
        concat_input=False,
        dropout_ratio=0.1,
        num_classes=11,
        norm_cfg=None,
        align_corners=False,
        loss_decode=dict(type="CrossEntropyLoss", use_sigmoid=False),
    ),
    test_cfg=dict(mode="whole"),
)

test_dataloader = dict(
    batch_size=1,
    num_workers=0,
    sampler=dict(type="DefaultSampler", shuffle=False),
    dataset=dict(
        type="BaseSegDataset",
        data_root="{{$CAMVID_ROOT:data/camvid}}",
        data_prefix=dict(img_path="val", seg_map_path="valannot"),
        img_suffix=".png",
        seg_map_suffix=".png",
        metainfo=dict(classes=classes),
        pipeline=[
            dict(type="LoadImageFromFile"),
            dict(type="LoadAnnotations"),
            dict(type="PackSegInputs"),
        ],
    ),
)
test_evaluator = dict(type="IoUMetric", iou_metrics=["mIoU"], ignore_index=11)
test_cfg = dict(type="TestLoop")
