# Segmenter with the mask transformer, at the paper's setting: every translation of up to 3 pixels.
# Patch 16, so sub-token translations only. Views: (2 * 3 + 1) ** 2 = 49. Cost: 49 x.
_base_ = [
    "mmseg::segmenter/segmenter_vit-s_mask_8xb1-160k_ade20k-512x512.py",
    "./_base_/srt.py",
]
model = dict(backbone=dict(type="SRTWrapper", wraps="VisionTransformer", srt=dict(level=3)))
