# Swin-T + UPerNet: patch 4, outputs of strides 4, 8, 16, 32, so the grid repeats after 32 pixels.
# Half of that would be a whole number of tokens for the finer maps, which such a view hardly
# changes; 10 pixels are off the grid of every stride: 10 mod (4, 8, 16, 32) = (2, 2, 10, 10).
# Views: (0 | 10, 0 | 10) pixels. Cost: 4 x.
_base_ = [
    "mmseg::swin/swin-tiny-patch4-window7-in1k-pre_upernet_8xb2-160k_ade20k-512x512.py",
    "./_base_/srt.py",
]
model = dict(
    backbone=dict(
        type="SRTWrapper",
        wraps="SwinTransformer",
        srt=dict(views=[(0, 0), (10, 10), (0, 10), (10, 0)]),
    )
)
