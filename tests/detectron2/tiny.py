"""Tiny random Detectron2 models, each built in a few hundredths of a second."""

from __future__ import annotations

import copy
from functools import partial

import torch
from detectron2 import model_zoo
from detectron2.config import CfgNode, get_cfg, instantiate
from detectron2.layers import ShapeSpec
from detectron2.modeling import build_model
from torch import nn

from srt_plugins.detectron2 import add_srt_config

SIZE = (64, 96)  # whole tokens of every stride up to 32


def pictures(count: int = 2, size: tuple[int, int] = SIZE, seed: int = 0) -> list[dict]:
    """A batch in the format of Detectron2's models."""
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 256, (count, 3, *size), generator=generator).float()
    return [{"image": i, "height": size[0], "width": size[1]} for i in images]


def _tiny(official: str) -> CfgNode:
    cfg = get_cfg()
    add_srt_config(cfg)
    cfg.merge_from_file(model_zoo.get_config_file(official), allow_unsafe=True)
    model = cfg.MODEL
    model.DEVICE, model.WEIGHTS = "cpu", ""
    model.RESNETS.STEM_OUT_CHANNELS, model.RESNETS.RES2_OUT_CHANNELS = 8, 16
    model.RESNETS.WIDTH_PER_GROUP, model.FPN.OUT_CHANNELS = 4, 16
    model.RPN.PRE_NMS_TOPK_TEST, model.RPN.POST_NMS_TOPK_TEST = 20, 8
    model.ROI_HEADS.SCORE_THRESH_TEST, model.ROI_HEADS.NUM_CLASSES = 0.0, 4
    model.ROI_BOX_HEAD.FC_DIM = 32
    model.ROI_MASK_HEAD.CONV_DIM, model.ROI_MASK_HEAD.NUM_CONV = 8, 1
    model.RETINANET.NUM_CLASSES, model.RETINANET.SCORE_THRESH_TEST = 4, 0.0
    model.RETINANET.TOPK_CANDIDATES_TEST = 20
    model.SEM_SEG_HEAD.CONVS_DIM, model.SEM_SEG_HEAD.NUM_CLASSES = 32, 10
    cfg.INPUT.MIN_SIZE_TEST, cfg.INPUT.MAX_SIZE_TEST = SIZE
    cfg.TEST.DETECTIONS_PER_IMAGE = 5
    cfg.DATALOADER.NUM_WORKERS = 0
    return cfg


def tiny_rcnn_fpn_cfg() -> CfgNode:
    """Mask R-CNN on a ResNet-FPN, 4 classes."""
    return _tiny("COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_3x.yaml")


def tiny_retinanet_cfg() -> CfgNode:
    """RetinaNet on a ResNet-FPN, 4 classes."""
    return _tiny("COCO-Detection/retinanet_R_50_FPN_1x.yaml")


def tiny_panoptic_cfg() -> CfgNode:
    """Panoptic FPN, 4 things and 10 stuff classes."""
    return _tiny("COCO-PanopticSegmentation/panoptic_fpn_R_50_1x.yaml")


def tiny_semantic_cfg() -> CfgNode:
    """SemanticSegmentor with an FPN head, 10 classes."""
    return _tiny("Misc/semantic_R_50_FPN_1x.yaml")


def tiny_linear_cfg() -> CfgNode:
    """SemanticSegmentor with a linear head on two maps of a ResNet, 10 classes."""
    cfg = tiny_semantic_cfg()
    cfg.MODEL.BACKBONE.NAME = "build_resnet_backbone"
    cfg.MODEL.RESNETS.OUT_FEATURES = ["res3", "res4"]
    cfg.MODEL.SEM_SEG_HEAD.NAME = "LinearSemSegHead"
    cfg.MODEL.SEM_SEG_HEAD.IN_FEATURES = ["res4", "res3"]
    return cfg


CFGS = {
    "rcnn": tiny_rcnn_fpn_cfg,
    "retinanet": tiny_retinanet_cfg,
    "panoptic": tiny_panoptic_cfg,
    "semantic": tiny_semantic_cfg,
    "linear": tiny_linear_cfg,
}


def srt_cfg(cfg: CfgNode, target: str | None = None, **keywords) -> CfgNode:
    """A copy of a config with SRT on."""
    cfg = cfg.clone()
    cfg.MODEL.SRT.BACKBONE, cfg.MODEL.BACKBONE.NAME = cfg.MODEL.BACKBONE.NAME, "build_srt_backbone"
    cfg.MODEL.SRT.TARGET = target
    for name, value in keywords.items():
        cfg.MODEL.SRT[name.upper()] = value
    return cfg


def tiny_vitdet_cfg():
    """LazyConfig node of a ViTDet Mask R-CNN, patch 16, 4 classes."""
    model = model_zoo.get_config("common/models/mask_rcnn_vitdet.py").model
    model.backbone.net.update(
        img_size=64,
        pretrain_img_size=32,
        embed_dim=16,
        depth=3,
        num_heads=2,
        window_size=3,
        window_block_indexes=[0, 1],
        norm_layer=partial(nn.LayerNorm, eps=1e-6),
    )
    model.backbone.update(out_channels=16, square_pad=0)
    model.proposal_generator.head.in_channels = 16
    model.proposal_generator.pre_nms_topk = (20, 20)
    model.proposal_generator.post_nms_topk = (8, 8)
    heads = model.roi_heads
    heads.num_classes = 4
    heads.box_head.input_shape = ShapeSpec(channels=16, height=7, width=7)
    heads.box_head.update(conv_dims=[8], fc_dims=[32])
    heads.box_predictor.update(
        input_shape=ShapeSpec(channels=32), test_score_thresh=0.0, test_topk_per_image=5
    )
    heads.mask_head.input_shape = ShapeSpec(channels=16, height=14, width=14)
    heads.mask_head.conv_dims = [8, 8]
    return model


def built(cfg, seed: int = 0) -> nn.Module:
    """The model of a yacs or lazy config in eval mode; no parameter is left at zero."""
    torch.manual_seed(seed)
    model = build_model(cfg) if isinstance(cfg, CfgNode) else instantiate(copy.deepcopy(cfg))
    with torch.no_grad():
        for parameter in model.parameters():
            if not parameter.any():
                parameter.normal_(std=0.1)
    model.eval()
    return model


def flat(output) -> list[torch.Tensor]:
    """Every tensor of a model's output, in order."""
    if isinstance(output, torch.Tensor):
        return [output]
    if isinstance(output, dict):
        output = list(output.values())
    if isinstance(output, (list, tuple)):
        return [tensor for value in output for tensor in flat(value)]
    if hasattr(output, "get_fields"):  # Instances
        return flat(output.get_fields())
    return [output.tensor] if hasattr(output, "tensor") else []  # Boxes


def same(a, b) -> bool:
    """Equality to the bit."""
    a, b = flat(a), flat(b)
    return len(a) == len(b) > 0 and all(map(torch.equal, a, b))
