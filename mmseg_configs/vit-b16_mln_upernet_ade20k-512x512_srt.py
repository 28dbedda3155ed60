# ViT-B + multi-level neck + UPerNet: patch 16, four outputs of stride 16 that the neck resizes.
# Views: the 2 x 2 phases of the patch, (0 | 8, 0 | 8) pixels. Cost: 4 x; neck and head run once.
_base_ = [
    "mmseg::vit/vit_vit-b16_mln_upernet_8xb2-160k_ade20k-512x512.py",
    "./_base_/srt.py",
]
model = dict(backbone=dict(type="SRTWrapper", wraps="VisionTransformer", srt=dict(views="phases")))
