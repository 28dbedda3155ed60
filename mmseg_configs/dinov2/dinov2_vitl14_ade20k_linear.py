# DINOv2 ViT-L, patch 14, and its linear head, on ADE20K. Test it with
# https://dl.fbaipublicfiles.com/dinov2/dinov2_vitl14/dinov2_vitl14_ade20k_linear_head.pth
# Views: the 2 x 2 phases of the patch, (0 | 7, 0 | 7) pixels. Cost: 4 x.
_base_ = [
    "mmseg::_base_/datasets/ade20k.py",
    "../_base_/dinov2_linear.py",
    "../_base_/srt.py",
]
model = dict(
    backbone=dict(
        type="SRTWrapper",
        wraps="DINOv2",
        srt=dict(views="phases"),
        arch="vitl14",
        checkpoint="https://dl.fbaipublicfiles.com/dinov2/dinov2_vitl14/dinov2_vitl14_pretrain.pth",
    ),
    decode_head=dict(in_channels=[1024], num_classes=150),
)
