# DINOv2 ViT-S, patch 14, and its linear head, on Pascal VOC 2012. Test it with
# https://dl.fbaipublicfiles.com/dinov2/dinov2_vits14/dinov2_vits14_voc2012_linear_head.pth
# Views: the 2 x 2 phases of the patch, (0 | 7, 0 | 7) pixels. Cost: 4 x.
_base_ = [
    "mmseg::_base_/datasets/pascal_voc12.py",
    "../_base_/dinov2_linear.py",
    "../_base_/srt.py",
]
model = dict(
    backbone=dict(
        type="SRTWrapper",
        wraps="DINOv2",
        srt=dict(views="phases"),
        arch="vits14",
        checkpoint="https://dl.fbaipublicfiles.com/dinov2/dinov2_vits14/dinov2_vits14_pretrain.pth",
    ),
    decode_head=dict(in_channels=[384], num_classes=21),
)
