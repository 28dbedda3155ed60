"""Where the backbone is in models of transformers, and what is said where it is not."""

from __future__ import annotations

import pytest

pytest.importorskip(
    "transformers", reason="needs transformers (pip install srt-plugins[transformers])"
)

import torch
import transformers
from srt_plugins.adapters import find_backbone
from torch import nn

from srt_plugins import AdapterError, ConfigError, SRTWrapper, attach, detach, srt_enabled
from tests.contracts import same
from tests.transformers import models
from tests.transformers.backbones import BACKBONES, build, model, vit
from tests.transformers.by_hand import flat
from tests.transformers.tiny import STAGES, VIT, config, dinov2, images

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")

TEXT = dict(hidden_size=16, intermediate_size=16, num_hidden_layers=1, vocab_size=99)


@torch.no_grad()
def run(module, image, **ask):
    return module(image, **ask)


def detr():
    sizes = dict(encoder_layers=1, decoder_layers=1, encoder_ffn_dim=16, decoder_ffn_dim=16)
    settings = config(
        "Detr",
        d_model=64,
        num_queries=5,
        backbone_config=config("ResNet", embedding_size=8, **STAGES, out_indices=[1, 2, 3, 4]),
        **sizes,
    )
    return model("DetrForSegmentation", settings)


def sam():
    size = dict(image_size=48, patch_size=8)
    vision = {**VIT, "output_channels": 16, "mlp_ratio": 2.0, "num_pos_feats": 8}
    prompt = dict(hidden_size=16, mask_input_channels=4, **size)
    decoder = dict(hidden_size=16, num_attention_heads=2, mlp_dim=16, iou_head_hidden_dim=16)
    return model(
        "SamModel",
        config(
            "Sam",
            vision_config=vision,
            prompt_encoder_config=prompt,
            mask_decoder_config=decoder,
        ),
    )


def clip():
    text = {**TEXT, "num_attention_heads": 2, "max_position_embeddings": 8}
    settings = config("CLIP", text_config=text, vision_config=VIT, projection_dim=8)
    return model("CLIPModel", settings)


def depth_pro():
    inside = dict(patch_size=8, image_size=32)
    vits = {f"{n}_model_config": dinov2(**inside).to_dict() for n in ("image", "patch", "fov")}
    dims = dict(intermediate_feature_dims=[8, 8], scaled_images_feature_dims=[8, 8, 8])
    settings = config(
        "DepthPro",
        patch_size=32,
        fusion_hidden_size=8,
        intermediate_hook_ids=[1, 0],
        **vits,
        **dims,
    )
    return model("DepthProForDepthEstimation", settings)


# --- found ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "path", "size", "more"),
    [
        (detr, "detr.model.backbone.model", (64, 96), {}),
        (sam, "vision_encoder", (48, 48), dict(input_points=torch.tensor([[[[9.0, 5.0]]]]))),
        (clip, "vision_model", (48, 48), dict(input_ids=torch.ones(1, 4, dtype=torch.long))),
    ],
)
def test_the_backbone_is_found_where_models_keep_it(make, path, size, more):
    whole, image = make(), images(size)
    assert find_backbone(whole) is whole.get_submodule(path)
    with torch.no_grad():
        plain = whole(pixel_values=image, **more)
        with srt_enabled(whole, views=2):
            found = whole(pixel_values=image, **more)
    assert type(found) is type(plain)
    changed = 0
    for a, b in zip(flat(found).values(), flat(plain).values()):
        assert a.shape == b.shape and (not a.is_floating_point() or a.isfinite().all())
        changed += not torch.equal(a, b)
    assert changed


def test_what_a_model_without_its_head_is_called_makes_no_difference():
    whole = models.depth_anything()
    holder = nn.Module()
    holder.model = whole
    for given in (whole, holder, nn.Sequential(whole), whole.backbone):
        attach(given, views=2)
        assert whole.backbone._srt is not None
        detach(given)


# --- not found, or not one -----------------------------------------------------------------------


def test_several_backbones_are_listed_and_one_is_taken_by_its_path():
    whole, image = depth_pro(), images((128, 128))
    paths = [f"depth_pro.encoder.{part}_encoder.model" for part in ("patch", "image")]
    with pytest.raises(AdapterError) as told:
        attach(whole)
    for path in paths:
        assert f".{path} (Dinov2Model)" in str(told.value)
    plain = run(whole, image)
    attach(whole, target=paths[0], views=2)
    found = run(whole, image)
    assert found.predicted_depth.shape == plain.predicted_depth.shape
    assert not torch.equal(found.predicted_depth, plain.predicted_depth)
    with pytest.raises(ConfigError, match="one part of a model"):
        attach(whole, target=paths[1], views=2)


def test_a_model_without_a_backbone_says_what_it_has():
    sizes = dict(hidden_sizes=[16, 24, 32], num_attention_heads=[1, 2, 2], depths=[1, 1, 1])
    levit = model("LevitForImageClassification", config("Levit", key_dim=[8] * 3, **sizes))
    with pytest.raises(AdapterError, match=r"LevitFor.*\.levit \(LevitModel\).*SRTWrapper"):
        attach(levit)
    assert type(levit.levit).__name__ == "LevitModel"


@pytest.mark.parametrize(
    ("name", "family", "keywords", "reason"),
    [
        ("ViTMAEModel", "ViTMAE", {}, "load its weights into ViTModel"),
        ("ViTMAEForPreTraining", "ViTMAE", {}, "shuffles"),
        ("YolosForObjectDetection", "Yolos", dict(image_size=[48, 48]), "detection tokens"),
        ("Siglip2VisionModel", "Siglip2Vision", {}, "takes patches"),
        ("EomtForUniversalSegmentation", "Eomt", dict(num_blocks=1, mlp_ratio=2), "queries"),
    ],
)
def test_models_whose_tokens_have_no_grid_are_refused(name, family, keywords, reason):
    whole = vit(name, family, **keywords)
    classes = [type(module) for module in whole.modules()]
    with pytest.raises(AdapterError, match=rf"tokens lie on a grid, got .*{reason}"):
        attach(whole)
    assert [type(module) for module in whole.modules()] == classes


@pytest.mark.parametrize("name", ["Bert", "Mamba"])
def test_models_of_text_are_refused(name):
    heads = dict(num_attention_heads=2) if name == "Bert" else {}
    head = {"Bert": "BertModel", "Mamba": "MambaForCausalLM"}[name]
    text = model(head, config(name, **{**TEXT, **heads}))
    with pytest.raises(AdapterError, match=f"takes images, got {head}, which takes text"):
        attach(text)
    if name == "Bert":
        SRTWrapper(text, views=2)
        with pytest.raises(ConfigError, match="to be images"):
            text(torch.ones(1, 4, dtype=torch.long))


def test_something_without_a_model():
    with pytest.raises(ConfigError, match=r"torch module, or to hold one as \.model"):
        attach(transformers.DPTImageProcessor())


# --- targets, and twice --------------------------------------------------------------------------


def test_a_target_that_is_missing_is_answered_with_those_there_are():
    whole = models.depth_anything()
    for target in ("encoder", "backbone"):
        with pytest.raises(ConfigError, match=f"Dinov2Backbone that takes images, got '{target}'"):
            attach(whole, target=target)
    with pytest.raises(ConfigError, match=r"got 'depth_pro\.encoders'.*'encoder' \(DepthProEnc"):
        attach(depth_pro(), target="depth_pro.encoders")
    assert type(whole.backbone).__name__ == "Dinov2Backbone" and not hasattr(whole.backbone, "_srt")


def test_wrapping_twice_changes_the_settings():
    whole, image = models.depth_anything(), images((61, 77))
    attach(whole, views=2)
    first = run(whole, image)
    attach(whole, views=3, layer=1)
    assert whole.backbone._srt.settings.layer == 1
    assert not same(run(whole, image), first)
    attach(whole, views=2)
    assert same(run(whole, image), first)


def test_a_part_and_the_whole_are_not_both_wrapped():
    backbone = build(BACKBONES["swin-backbone"])
    SRTWrapper(backbone.swin, views=2)
    with pytest.raises(ConfigError, match=r"\['swin'\].*views of views"):
        SRTWrapper(backbone, views=2)
    detach(backbone)
    SRTWrapper(backbone, views=2)
    SRTWrapper(backbone.swin, views=2)
    with pytest.raises(ConfigError, match="'swin', got both"):
        run(backbone, images((64, 96)))


def test_settings_that_change_after_wrapping_are_noticed():
    backbone = SRTWrapper(build(BACKBONES["convnext"]), views=2)
    backbone.out_indices = [2, 3]
    with pytest.raises(AdapterError, match=r"8x12 \(stride 4\)|stride"):
        run(backbone, images((64, 96)))
    detach(backbone)
    found = run(SRTWrapper(backbone, views=2), images((64, 96)))
    assert [tuple(t.shape[2:]) for t in found.feature_maps] == [(8, 12), (4, 6)]
