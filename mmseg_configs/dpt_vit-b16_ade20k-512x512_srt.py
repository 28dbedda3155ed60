# DPT: ViT-B, patch 16, four [feature map, class token] pairs. Maps are put back in place and
# averaged, class tokens are averaged.
# Views: the 2 x 2 phases of the patch, (0 | 8, 0 | 8) pixels. Cost: 4 x.
_base_ = [
    "mmseg::dpt/dpt_vit-b16_8xb2-160k_ade20k-512x512.py",
    "./_base_/srt.py",
]
model = dict(backbone=dict(type="SRTWrapper", wraps="VisionTransformer", srt=dict(views="phases")))
