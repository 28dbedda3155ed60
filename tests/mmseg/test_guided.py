"""Smoothing along the image from MMSegmentation's configs."""

from __future__ import annotations

import pytest
import torch
from mmengine.config import Config, DictAction
from mmengine.registry import init_default_scope

from srt_plugins import ConfigError, Settings
from tests import reference
from tests.mmseg.tiny import FIXED, PATCH, build, flat, images, logits, nested, segmentor, vit

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")
STRONG = "guided:1:0.7"


@pytest.fixture(autouse=True)
def scope():
    init_default_scope("mmseg")


@pytest.mark.parametrize("form", [nested, flat])
def test_both_forms_smooth_every_output(form):
    image = images(FIXED)[:1].double()
    plain = build(vit()).double()
    wrapped = build(form(level=0, smooth=STRONG)).double()
    with torch.no_grad():
        before, after = plain(image), wrapped(image)
    assert len(before) == len(after)
    for tokens, got in zip(before, after):
        expected = reference.guided(tokens[0].numpy(), image[0].numpy(), *(PATCH,) * 3, 1, 0.7)
        assert abs(got[0].numpy() - expected).max() < 1e-9 * abs(expected).max()


@pytest.mark.parametrize("text", ["guided", "guided:0.5", STRONG])
def test_cfg_options(text):
    """``--cfg-options model.backbone.srt.smooth=guided:1:0.7``"""
    config = Config(dict(model=segmentor(flat(level=0))))
    config.merge_from_dict({"model.backbone.srt.smooth": DictAction._parse_iterable(text)})
    model = build(config.model)
    assert model.backbone._srt.settings == Settings(level=0, smooth=text)
    assert not torch.equal(logits(model), logits(build(segmentor())))


def test_a_bad_strength_is_refused_before_anything_is_built():
    with pytest.raises(ConfigError, match="smooth .*got 'guided:1:2:3'"):
        build(nested(smooth="guided:1:2:3"))
