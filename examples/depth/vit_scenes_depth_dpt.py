# The small ViT with DINOv2's DPT head; test it with vit_scenes_depth_dpt.pth. The backbone's
# weights come from a file of their own, as DINOv2 ships them.
_base_ = ["./vit_scenes_depth.py"]
model = dict(
    backbone=dict(checkpoint="{{ fileDirname }}/vit_scenes_depth_backbone.pth"),
    decode_head={{_base_.dpt_head}},
)
