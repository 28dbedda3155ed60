# DINOv2 ViT-L, patch 14, and the linear head on block 23, on NYU Depth v2. Test it with
# https://dl.fbaipublicfiles.com/dinov2/dinov2_vitl14/dinov2_vitl14_nyu_linear_head.pth
# Views: the 2 x 2 phases of the patch, (0 | 7, 0 | 7) pixels. Cost: 4 x.
_base_ = ["../_base_/dinov2_nyu.py", "../_base_/srt.py"]
model = dict(
    backbone=dict(
        type="SRTWrapper",
        wraps="DINOv2",
        srt=dict(views="phases"),
        arch="vitl14",
        out_indices=(23,),
        checkpoint="https://dl.fbaipublicfiles.com/dinov2/dinov2_vitl14/dinov2_vitl14_pretrain.pth",
    ),
    decode_head=dict(type="DINOv2LinearDepthHead", in_channels=[1024]),
)
