# SegFormer-B0: overlapping patches, outputs of strides 4, 8, 16, 32, so the grid repeats after 32
# pixels. Half of that would be a whole number of tokens for the finer maps, which such a view
# hardly changes; 10 are off the grid of every stride: 10 mod (4, 8, 16, 32) = (2, 2, 10, 10).
# Views: (0 | 10, 0 | 10) pixels. Cost: 4 x.
_base_ = [
    "mmseg::segformer/segformer_mit-b0_8xb2-160k_ade20k-512x512.py",
    "./_base_/srt.py",
]
model = dict(
    backbone=dict(
        type="SRTWrapper",
        wraps="MixVisionTransformer",
        srt=dict(views=[(0, 0), (10, 10), (0, 10), (10, 0)]),
    )
)
