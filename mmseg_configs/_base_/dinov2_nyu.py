# DINOv2's depth models on NYU Depth v2, plain; the files of ../depth add size, head and SRT.
#
# As released: features without the last norm, each with its class token; depth from 1 mm to 10 m;
# 480 x 640 pixels, which the backbone completes to 490 x 644 (35 x 46 patches of 14) with zeros on
# all sides; the prediction for those is stretched back to 480 x 640. The errors are over the Eigen
# crop, at pixels of 1 mm to 10 m. For patches completed with real pixels, and no stretching:
#
#   model = dict(
#       data_preprocessor=dict(
#           type="PaddedSegDataPreProcessor", padding="replicate", test_cfg=dict(size_divisor=14)
#       )
#   )
#
# Not as released: DINOv2 averages the depth of each image and of its mirror image.
#
# The three heads of each model: `linear` reads the last layer, `linear4` and `dpt` read four. Those
# for KITTI have max_depth=80.0. Tested with the checkpoint of the head alone, which is all that
# DINOv2 ships; the backbone's is fetched when the model is built (checkpoint= takes a file too).
_base_ = ["mmseg::_base_/datasets/nyu.py", "mmseg::_base_/default_runtime.py"]
model = dict(
    type="DepthEstimator",
    data_preprocessor=dict(
        type="SegDataPreProcessor",
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        bgr_to_rgb=True,
        pad_val=0,
        seg_pad_val=0,
    ),
    backbone=dict(type="DINOv2", output_cls_token=True, final_norm=False, pad=True),
    decode_head=dict(min_depth=0.001, max_depth=10.0),
    test_cfg=dict(mode="whole"),
)
val_cfg = dict(type="ValLoop")
test_cfg = dict(type="TestLoop")
