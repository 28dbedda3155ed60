"""The same weights give the same numbers in MMSegmentation and in Detectron2."""

from __future__ import annotations

import copy

import pytest

pytest.importorskip("detectron2", reason="needs Detectron2 (make setup DETECTRON2=...)")
pytest.importorskip("mmseg", reason="MMSegmentation is not installed")

import torch
from detectron2.layers import ShapeSpec
from detectron2.modeling import SemanticSegmentor, ViT

import srt_plugins.mmseg  # noqa: F401  (before mmseg.models: the placeholder for the ops)
from srt_plugins import CheckpointError, attach
from srt_plugins.detectron2 import LinearSemSegHead, TorchBackbone, timm_net
from srt_plugins.detectron2.weights import from_mmseg_vit

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")

MEAN, STD = [123.675, 116.28, 103.53], [58.395, 57.12, 57.375]
SIZE = (48, 64)  # what the position table is made for, and images are padded to
IMAGE = (41, 60)


def vit(**keywords):
    return dict(
        type="VisionTransformer",
        img_size=SIZE,
        patch_size=16,
        embed_dims=32,
        num_layers=3,
        num_heads=2,
        out_indices=(2,),
        norm_cfg=dict(type="LN", eps=1e-6),
        **keywords,
    )


def randomized(module):
    """Every parameter away from zero and one, so that none is swapped unseen."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in module.parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.add_(0.3 * noise / max(1, parameter.shape[-1]) ** 0.5)
    module.eval()  # that of some backbones of MMSegmentation returns None
    return module


def in_mmseg():
    from mmengine.config import ConfigDict
    from mmengine.registry import init_default_scope
    from mmseg.registry import MODELS

    init_default_scope("mmseg")
    config = dict(
        type="EncoderDecoder",
        data_preprocessor=dict(
            type="SegDataPreProcessor",
            mean=MEAN,
            std=STD,
            bgr_to_rgb=True,
            test_cfg=dict(size_divisor=16),
        ),
        backbone=vit(final_norm=True),
        decode_head=dict(
            type="FCNHead",
            in_channels=32,
            in_index=0,
            channels=32,
            num_convs=0,
            concat_input=False,
            num_classes=5,
            norm_cfg=None,
        ),
        test_cfg=dict(mode="whole"),
    )
    return randomized(MODELS.build(ConfigDict(config)))


def in_detectron2(state):
    net = timm_net(
        "vit_base_patch16_224",
        img_size=SIZE,
        embed_dim=32,
        depth=3,
        num_heads=2,
        out_indices=[2],
        norm=True,
    )
    model = SemanticSegmentor(
        backbone=TorchBackbone(net, size_divisibility=16),
        sem_seg_head=LinearSemSegHead({"p0": ShapeSpec(channels=32, stride=16)}, num_classes=5),
        pixel_mean=MEAN,
        pixel_std=STD,
    )
    prefix = "backbone.net.model."
    named = {prefix + key: value for key, value in from_mmseg_vit(state).items()}
    for part in ("weight", "bias"):
        named[f"sem_seg_head.predictor.{part}"] = state[f"decode_head.conv_seg.{part}"]
    model.load_state_dict(named)  # strict
    return model.eval()


@pytest.mark.parametrize("srt", [None, {}, dict(level=1, smooth=3), dict(views=2, padding="zeros")])
def test_a_segmentation_model_gives_the_same_logits_in_both(srt):
    from mmseg.structures import SegDataSample

    first = in_mmseg()
    second = in_detectron2(first.state_dict())
    if srt is not None:
        attach(first, **srt)
        attach(second, **srt)
    image = torch.randint(0, 255, (3, *IMAGE), generator=torch.Generator().manual_seed(1))
    sample = SegDataSample(metainfo=dict(ori_shape=IMAGE, img_shape=IMAGE))
    with torch.no_grad():
        batch = dict(inputs=[image.flip(0)], data_samples=[copy.deepcopy(sample)])  # BGR
        (expected,) = first.test_step(batch)
        (found,) = second([dict(image=image.float(), height=IMAGE[0], width=IMAGE[1])])
    expected = expected.seg_logits.data
    assert expected.std() > 0.1
    torch.testing.assert_close(found["sem_seg"], expected, rtol=1e-4, atol=1e-4)


def test_detectron2_s_vit_gives_the_same_features():
    from mmseg.models.backbones import VisionTransformer

    # Detectron2's ViT knows square tables only, and no class token in the attention.
    config = {**vit(with_cls_token=False), "img_size": (48, 48)}
    config.pop("type")
    first = randomized(VisionTransformer(**config))
    second = ViT(img_size=48, embed_dim=32, depth=3, num_heads=2, pretrain_img_size=48,
                 norm_layer=torch.nn.LayerNorm).eval()  # fmt: skip
    for module in second.modules():
        if isinstance(module, torch.nn.LayerNorm):
            module.eps = 1e-6
    state = from_mmseg_vit(first.state_dict(), prefix="")
    assert {"cls_token"} == set(state) - set(second.state_dict())
    state.pop("cls_token")
    second.load_state_dict(state)
    image = torch.randn(1, 3, 48, 48, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        torch.testing.assert_close(
            second(image)["last_feat"], first(image)[0], rtol=1e-4, atol=1e-4
        )


def test_other_checkpoints_are_refused_with_their_keys():
    with pytest.raises(CheckpointError, match=r"(?s)projection.weight.*blocks.0.*prefix"):
        from_mmseg_vit({"blocks.0.norm1.weight": torch.zeros(1)})
