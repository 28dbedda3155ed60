# SETR: ViT-L, patch 16, outputs of blocks 9, 14, 19 and 23, all of stride 16. Only the last feeds
# the decoder, the others are for auxiliary heads in training: the centre view is enough for them.
# Views: the 2 x 2 phases of the patch, (0 | 8, 0 | 8) pixels. Cost: 4 x.
_base_ = [
    "mmseg::setr/setr_vit-l_naive_8xb2-160k_ade20k-512x512.py",
    "./_base_/srt.py",
]
model = dict(
    backbone=dict(
        type="SRTWrapper", wraps="VisionTransformer", srt=dict(views="phases", outputs=[3])
    )
)
