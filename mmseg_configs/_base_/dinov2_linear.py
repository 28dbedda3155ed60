# DINOv2's linear segmentation models, plain; the files of ../dinov2 add size, data set and SRT.
#
# As released: normed features of the last layer; the shorter side resized to 512 pixels; windows of
# 512 x 512 pixels every 341, which the backbone completes to 518 x 518 (37 x 37 patches of 14) with
# zeros on all sides. The heads named `ms` read the last four layers (out_indices=(-4, -3, -2, -1),
# four in_channels), with windows of 640 every 320, and DINOv2 averages five scales and flips with
# them.
#
# Tested with the checkpoint of the head alone, which is all that DINOv2 ships; the backbone's is
# fetched when the model is built (checkpoint= takes a file too).
_base_ = ["mmseg::_base_/default_runtime.py"]
model = dict(
    type="EncoderDecoder",
    data_preprocessor=dict(
        type="SegDataPreProcessor",
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        bgr_to_rgb=True,
        pad_val=0,
        seg_pad_val=255,
    ),
    backbone=dict(type="DINOv2", out_indices=(-1,), pad=True),
    decode_head=dict(
        type="DINOv2LinearHead",
        align_corners=False,
        loss_decode=dict(type="CrossEntropyLoss", use_sigmoid=False),
    ),
    test_cfg=dict(mode="slide", crop_size=(512, 512), stride=(341, 341)),
)
val_cfg = dict(type="ValLoop")
test_cfg = dict(type="TestLoop")
