# Segmenter with a linear decoder: ViT-S, patch 16, one output of stride 16.
# Views: the 2 x 2 phases of the patch, (0 | 8, 0 | 8) pixels. Cost: 4 x.
_base_ = [
    "mmseg::segmenter/segmenter_vit-s_fcn_8xb1-160k_ade20k-512x512.py",
    "./_base_/srt.py",
]
model = dict(backbone=dict(type="SRTWrapper", wraps="VisionTransformer", srt=dict(views="phases")))
