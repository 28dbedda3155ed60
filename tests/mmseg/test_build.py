"""The backbone type: its two forms, what it forwards, and what it refuses."""

from __future__ import annotations

import copy
import subprocess
import sys

import pytest
import torch
from mmengine.config import Config, ConfigDict
from mmengine.registry import init_default_scope
from mmseg.models.backbones import VisionTransformer
from mmseg.registry import MODELS

import srt_plugins
from srt_plugins import ConfigError
from srt_plugins.mmseg import SRTWrapper
from tests.mmseg.tiny import FIXED, build, flat, images, logits, nested, segmentor, vit

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")
FORMS = {"nested": nested, "flat": flat}


@pytest.fixture(autouse=True)
def scope():
    init_default_scope("mmseg")


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_builds_the_backbone_itself(form):
    config = form(level=2, statistic="median")
    before = copy.deepcopy(config)
    built = build(config)
    assert config == before, "the config is left as it was"
    assert isinstance(built, VisionTransformer)
    assert (built._srt.settings.level, built._srt.settings.statistic) == (2, "median")
    expected = srt_plugins.SRTWrapper(build(vit()), level=2, statistic="median")
    with torch.no_grad():
        assert torch.equal(built(images(FIXED))[0], expected(images(FIXED))[0])


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_a_whole_segmentor_is_ensembled(form):
    plain, wrapped = build(segmentor()), build(segmentor(form(level=1)))
    off = build(segmentor(form(level=0)))
    assert torch.equal(logits(off), logits(plain))
    assert not torch.equal(logits(wrapped), logits(plain))
    assert list(wrapped.state_dict()) == list(plain.state_dict())


def test_flat_form_without_srt_has_the_default_views():
    config = flat()
    del config["srt"]
    assert build(config)._srt.settings == srt_plugins.Settings()


def test_command_line_overrides_need_no_delete_and_no_import():
    config = Config(dict(model=segmentor()))
    config.merge_from_dict(
        {
            "model.backbone.type": "srt_plugins.mmseg.SRTWrapper",
            "model.backbone.wraps": "VisionTransformer",
            "model.backbone.srt.level": 1,
            "model.backbone.srt.views": [(0, 0), (1, 1)],
        }
    )
    model = build(config.model)
    assert model.backbone._srt.settings.views == [(0, 0), (1, 1)]
    expected = build(segmentor(nested(level=1, views=[(0, 0), (1, 1)])))
    assert torch.equal(logits(model), logits(expected))


def test_a_config_survives_dumping(tmp_path):
    config = Config(dict(model=segmentor(flat(level=1, views=[[0, 0], [1, 1]]))))
    config.dump(tmp_path / "dumped.py")
    read = Config.fromfile(tmp_path / "dumped.py")
    assert torch.equal(logits(build(read.model)), logits(build(config.model)))


def test_nested_form_around_an_inherited_backbone(tmp_path):
    (tmp_path / "base.py").write_text(f"model = {segmentor()!r}")
    (tmp_path / "derived.py").write_text(
        """
_base_ = "./base.py"
custom_imports = dict(imports=["srt_plugins.mmseg"], allow_failed_imports=False)
model = dict(
    backbone=dict(_delete_=True, type="SRTWrapper", backbone={{_base_.model.backbone}}, level=1)
)
"""
    )
    found = logits(build(Config.fromfile(tmp_path / "derived.py").model))
    assert torch.equal(found, logits(build(segmentor(nested(level=1)))))


def test_classes_dotted_names_and_scopes_are_types_too():
    for kind in (
        VisionTransformer,
        "mmseg.VisionTransformer",
        "mmseg.models.backbones.VisionTransformer",
    ):
        assert isinstance(build(dict(flat(level=1), wraps=kind)), VisionTransformer)
        inner = dict(vit(), type=kind)
        assert isinstance(build(dict(nested(level=1), backbone=inner)), VisionTransformer)


def test_an_already_built_backbone_is_wrapped_in_place():
    backbone = build(vit())
    assert SRTWrapper(backbone, level=1) is backbone
    assert not backbone._srt.needs_weights
    with pytest.raises(ConfigError, match="already built"):
        SRTWrapper(build(vit()), level=1, pretrained="weights.pth")


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_pretrained_and_init_cfg_reach_the_backbone(form):
    built = MODELS.build(dict(form(level=1), pretrained="weights.pth"))
    assert built.init_cfg == dict(type="Pretrained", checkpoint="weights.pth")
    init = dict(type="Pretrained", checkpoint="other.pth")
    assert MODELS.build(dict(form(level=1), init_cfg=init)).init_cfg == init
    assert MODELS.build(dict(form(level=1), init_cfg=None, pretrained=None)).init_cfg is None
    # EncoderDecoder sets it on the config of its backbone.
    model = MODELS.build(ConfigDict(segmentor(form(level=1), pretrained="weights.pth")))
    assert model.backbone.init_cfg == dict(type="Pretrained", checkpoint="weights.pth")


def test_pretrained_in_both_places_is_refused():
    config = nested(level=1)
    config["backbone"]["pretrained"] = "inner.pth"
    with pytest.raises(ConfigError, match=r"both: 'outer.pth' and 'inner.pth'"):
        MODELS.build(dict(config, pretrained="outer.pth"))


BAD = {
    "neither form": (dict(level=1), r"got neither"),
    "both forms": (dict(nested(level=1), wraps="VisionTransformer"), r"got both"),
    "misspelt keyword, nested": (nested(levle=1), r"'levle'; did you mean 'level'"),
    "misspelt keyword, flat": (flat(levle=1), r"'levle'; did you mean 'level'"),
    "bad value": (flat(level=-1), r"level"),
    "misplaced keyword, flat": (dict(flat(), level=1), r"'level' in srt=dict\(level=\.\.\.\)"),
    "misspelt and misplaced": (dict(flat(), levle=1), r"'levle'.*'level'.*srt=dict"),
    "misspelt backbone keyword": (dict(flat(), patch_sise=1), r"'patch_sise'.*'patch_size'"),
    "misplaced keyword, nested": (
        dict(type="SRTWrapper", backbone=vit(level=1)),
        r"'level' in the outer dict",
    ),
    "misplaced for an open-ended type": (
        dict(type="SRTWrapper", wraps="TIMMBackbone", model_name="resnet10t", level=1),
        r"'level' in srt=dict",
    ),
    "srt in the nested form": (nested(srt=dict(level=1)), r"flat form with wraps="),
    "srt is no dict": (dict(flat(), srt=3), r"srt to be a dict, got int"),
    "backbone is no dict": (dict(backbone="VisionTransformer"), r"backbone to be a dict, got str"),
    "unknown type, flat": (
        dict(wraps="VisionTransfomer"),
        r"wraps to be a registered backbone, got 'VisionTransfomer'; near .*'VisionTransformer'",
    ),
    "unknown type, nested": (dict(backbone=dict(type="SwimTransformer")), r"'SwinTransformer'"),
    "no type": (dict(backbone=dict(depth=50)), r"backbone.type.*got None"),
    "a module as type": (dict(wraps="torch"), r"got 'torch'"),
    "unknown dotted type": (dict(wraps="torch.nn.Nothing"), r"got 'torch.nn.Nothing'"),
    "unknown layer": (flat(layer="blocks.0"), r"layer.*'layers.0'"),
    "a whole patch": (flat(level=8), r"below one patch"),
    "stride": (flat(stride=3), r"stride"),
}


@pytest.mark.parametrize(("config", "message"), BAD.values(), ids=BAD)
def test_mistakes_name_the_argument_and_the_next_step(config, message):
    with pytest.raises(ConfigError, match=message):
        MODELS.build(dict(config, type="SRTWrapper"))


class Counted(VisionTransformer):
    built = 0

    def __init__(self, img_size=224, patch_size=16):
        type(self).built += 1
        super().__init__(img_size, patch_size, embed_dims=16, num_layers=1, num_heads=2)


def test_nothing_is_built_before_everything_is_checked():
    good = dict(type="SRTWrapper", wraps=Counted, img_size=32, patch_size=8, srt=dict(level=1))
    for wrong in (dict(srt=dict(levle=1)), dict(srt=dict(level=-1)), dict(patch_sise=8)):
        with pytest.raises(ConfigError):
            MODELS.build({**good, **wrong})
    assert Counted.built == 0
    MODELS.build(good)
    assert Counted.built == 1


def test_a_missing_mmseg_says_what_to_install():
    code = """
import sys
sys.modules["mmseg"] = None
from srt_plugins import MissingDependencyError
try:
    import srt_plugins.mmseg
except MissingDependencyError as error:
    print(error)
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "pip install" in run.stdout and "srt-plugins[mmseg]" in run.stdout, run.stderr
