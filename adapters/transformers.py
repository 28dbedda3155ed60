"""Backbones of transformers, and base models without their heads. What a call asks for comes by
name: feature maps, hidden states, pooled tokens; attention maps come from the centre view.

| classes | outputs | blocks | block tokens | sizes |
|---|---|---|---|---|
| Dinov2, DINOv3ViT, Beit, ViT, DPT, CLIP, … | NLC, NCHW | one list | NLC | any, or as built |
| VitDet; SamVision | NCHW | one list | NCHW; NHWC | any; as built |
| Swin, Segformer, GLPN, PvtV2 | NLC, NCHW | by stage | NLC | any |
| ConvNext, ResNet | NCHW | by stage | NCHW | any |
| Hiera; LwDetr and RfDetr, which have windows | NCHW | | not in raster order | as built |
| TimmBackbone | NCHW | as timm's | as timm's | as timm's |
| MobileNet and other convolutional ones | NCHW | | | any |

Patches that are not whole are left out, or completed with zeros by the backbone itself.
"""

from __future__ import annotations

from srt_plugins.adapters import transformers_families as families
from srt_plugins.adapters.base import Adapter
from torch import nn


def describe(module: nn.Module) -> Adapter | None:
    """The adapter of a backbone or base model (or a subclass of one), None for anything else."""
    for cls in type(module).__mro__:
        if cls.__module__.startswith("transformers.") and cls.__name__ in _FAMILIES:
            try:
                return _FAMILIES[cls.__name__](module)
            except (AttributeError, IndexError, KeyError, TypeError):
                return None  # of that name, but built in another way
    return None


_KINDS: list[tuple[families.Describe, str]] = [
    (families.vit(), "BeitModel BeitBackbone Data2VecVisionModel Dinov2Model Dinov2Backbone"),
    (families.vit(), "ViTModel ViTMSNModel CLIPVisionModel CLIPVisionTransformer MLCDVisionModel"),
    (families.vit(), "CLIPSegVisionModel CLIPSegVisionTransformer ChineseCLIPVisionModel"),
    (families.vit(), "AltCLIPVisionModel MetaClip2VisionModel BlipVisionModel Blip2VisionModel"),
    (
        families.vit(1, "num_register_tokens"),
        "Dinov2WithRegistersModel Dinov2WithRegistersBackbone DINOv3ViTModel DINOv3ViTBackbone "
        "Sapiens2Model Sapiens2Backbone Tipsv2VisionModel Tipsv2VisionBackbone",
    ),
    (families.vit(0, "n_cls_tokens"), "PixioModel PixioBackbone"),
    (families.vit(0), "SiglipVisionModel SiglipVisionTransformer IJepaModel Aimv2VisionModel"),
    (families.vit(0), "VitPoseBackbone"),
    (families.vit(2), "DeiTModel"),
    (families.dpt, "DPTModel"),
    (families.vit(0, layout="NCHW"), "VitDetModel VitDetBackbone"),
    # Before transformers 5 the last hidden state is that of the neck.
    (families.vit(0, layout="NHWC", hidden_states="NHWC NCHW"), "SamVisionEncoder"),
    (families.windowed, "LwDetrViTBackbone RfDetrDinov2Backbone"),
    (families.swin, "SwinModel SwinBackbone Swinv2Model Swinv2Backbone"),
    (families.pyramid(families.doubling, ""), "MaskFormerSwinModel MaskFormerSwinBackbone"),
    (families.pyramid(families.strided, "stages"), "SegformerModel PvtV2Model PvtV2Backbone"),
    (families.pyramid(families.strided, "stages", declares=True), "GLPNModel"),
    (
        families.pyramid(families.doubling, layout="NCHW", completes=False),
        "ConvNextModel ConvNextBackbone ConvNextV2Model ConvNextV2Backbone",
    ),
    (
        families.pyramid(families.from_image, layout="NCHW", completes=False, prefix=1),
        "DINOv3ConvNextModel DINOv3ConvNextBackbone",
    ),
    (
        families.pyramid(families.halving, layout="NCHW"),
        "ResNetModel ResNetBackbone RTDetrResNetBackbone",
    ),
    (families.hiera, "HieraModel HieraBackbone"),
    (families.timm_backbone, "TimmBackbone"),
    (
        families.probed,
        "BitModel BitBackbone EfficientNetModel FocalNetBackbone HGNetV2Backbone RegNetModel "
        "MobileNetV1Model MobileNetV2Model MobileViTModel MobileViTV2Model PoolFormerModel "
        "SwiftFormerModel TextNetModel TextNetBackbone",
    ),
    (
        families.refused(
            "it masks patches at random and shuffles the others; load its weights into ViTModel"
        ),
        "ViTMAEModel",
    ),
    (families.refused("its detection tokens stand behind those of the patches"), "YolosModel"),
    (families.refused("it takes patches, not images"), "Siglip2VisionModel"),
    (
        families.refused("its queries pass through the last blocks among the patches' tokens"),
        "EomtForUniversalSegmentation EomtDinov3ForUniversalSegmentation",
    ),
]
_FAMILIES = {name: kind for kind, names in _KINDS for name in names.split()}
