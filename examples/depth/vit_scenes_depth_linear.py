# The small ViT with DINOv2's linear head on four layers; test it with vit_scenes_depth_linear.pth.
# The backbone's weights come from a file of their own, as DINOv2 ships them.
_base_ = ["./vit_scenes_depth.py"]
model = dict(
    backbone=dict(checkpoint="{{ fileDirname }}/vit_scenes_depth_backbone.pth"),
    decode_head={{_base_.linear_head}},
)
