# BEiT-B + UPerNet: patch 16, outputs of blocks 3, 5, 7 and 11 at stride 16.
# Its relative position tables fit images of img_size = 640 x 640 and no others: views keep the size
# of the window, and the base config's sliding windows are of that size. An image smaller than a
# window is completed with its own edge pixels; the base config would fail on it.
# Views: the 2 x 2 phases of the patch, (0 | 8, 0 | 8) pixels. Cost: 4 x per window.
_base_ = [
    "mmseg::beit/beit-base_upernet_8xb2-160k_ade20k-640x640.py",
    "./_base_/srt.py",
]
model = dict(
    data_preprocessor=dict(type="PaddedSegDataPreProcessor", test_cfg=dict(size=(640, 640))),
    backbone=dict(type="SRTWrapper", wraps="BEiT", srt=dict(views="phases")),
)
