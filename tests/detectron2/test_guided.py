"""Smoothing along the image from Detectron2's two kinds of config."""

from __future__ import annotations

import pytest

pytest.importorskip("detectron2", reason="needs Detectron2 (make setup DETECTRON2=...)")

import torch
from detectron2.config import LazyConfig
from detectron2.modeling import build_backbone
from omegaconf import OmegaConf

from srt_plugins import ConfigError, Settings
from srt_plugins.detectron2 import with_srt
from tests import reference

from .tiny import (
    SIZE,
    built,
    flat,
    pictures,
    same,
    srt_cfg,
    tiny_rcnn_fpn_cfg,
    tiny_semantic_cfg,
    tiny_vitdet_cfg,
)

STRONG = "guided:1:0.7"


@pytest.mark.parametrize("text", ["guided", "guided:0.5", STRONG])
def test_strengths_from_a_yacs_file_and_its_command_line(text, tmp_path):
    file = tmp_path / "some.yaml"
    file.write_text(f"MODEL: {{SRT: {{LEVEL: 0, SMOOTH: {text}}}}}\nVERSION: 2\n")
    read, given = srt_cfg(tiny_rcnn_fpn_cfg()), srt_cfg(tiny_rcnn_fpn_cfg())
    read.merge_from_file(str(file))
    given.merge_from_list(["MODEL.SRT.LEVEL", "0", "MODEL.SRT.SMOOTH", text])
    for cfg in (read, given):
        assert build_backbone(cfg)._srt.settings == Settings(level=0, smooth=text)


def test_a_bad_strength_is_refused_by_name():
    cfg = srt_cfg(tiny_rcnn_fpn_cfg(), smooth="guided:0")
    with pytest.raises(ConfigError, match="smooth .*got 'guided:0'"):
        build_backbone(cfg)


def test_an_override_of_a_lazy_config():
    cfg = OmegaConf.create({"model": tiny_vitdet_cfg()}, flags={"allow_objects": True})
    with_srt(cfg.model.backbone, target="net", level=0)
    cfg = LazyConfig.apply_overrides(cfg, [f"model.backbone.smooth={STRONG}"])
    net = built(cfg.model).backbone.net
    assert net._srt.settings == Settings(level=0, smooth=STRONG)


def test_each_map_of_a_pyramid_is_smoothed_at_its_own_stride():
    cfg = tiny_semantic_cfg()
    plain = built(cfg).backbone.double()
    guided = built(srt_cfg(cfg, level=0, smooth=STRONG)).backbone.double()
    image = torch.stack([p["image"] for p in pictures(1)]).double()
    with torch.no_grad():
        before, after = plain(image), guided(image)
    for name, shape in plain.output_shape().items():
        if shape.stride >= 8:
            stride = (shape.stride,) * 3
            expected = reference.guided(before[name][0].numpy(), image[0].numpy(), *stride, 1, 0.7)
            scale = abs(expected).max()
            assert abs(after[name][0].numpy() - expected).max() < 1e-9 * scale
    assert set(after) == set(before) and after["p2"].shape == (1, 16, SIZE[0] // 4, SIZE[1] // 4)


def test_whole_models_run_and_see_the_filter():
    cfg = tiny_rcnn_fpn_cfg()
    with torch.no_grad():
        plain = built(cfg)(pictures())
        guided = built(srt_cfg(cfg, target="bottom_up", smooth="guided", level=0))(pictures())
    assert not same(plain, guided)
    assert all(t.isfinite().all() for t in flat(guided) if t.is_floating_point())
