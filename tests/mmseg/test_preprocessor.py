"""Test images completed with real pixels instead of a constant."""

from __future__ import annotations

import pytest
import torch
from mmengine.structures import PixelData
from mmseg.models.data_preprocessor import SegDataPreProcessor
from mmseg.registry import MODELS

from srt_plugins import ConfigError
from tests import reference
from tests.mmseg.tiny import build, logits, sample_of, segmentor

SIZE = (21, 35)
COMMON = dict(mean=[100.0, 110.0, 120.0], std=[50.0, 60.0, 70.0], bgr_to_rgb=True, pad_val=7)
TARGETS = {
    "divisor": (dict(size_divisor=16), (32, 48)),
    "size": (dict(size=(64, 80)), (64, 80)),
    "narrow size": (dict(size=(10, 40)), (21, 40)),
    "nothing to do": (dict(size_divisor=7), (21, 35)),
}


def batch(count=2, labels=False):
    generator = torch.Generator().manual_seed(0)
    inputs = [
        torch.randint(0, 256, (3, *SIZE), generator=generator, dtype=torch.uint8)
        for _ in range(count)
    ]
    samples = [sample_of(SIZE) for _ in range(count)]
    if labels:
        for sample in samples:
            sample.gt_sem_seg = PixelData(data=torch.ones(1, *SIZE, dtype=torch.long))
    return dict(inputs=inputs, data_samples=samples)


def ours(padding=None, **keywords):
    config = dict(COMMON, type="PaddedSegDataPreProcessor", **keywords)
    return MODELS.build(config if padding is None else dict(config, padding=padding))


@pytest.mark.parametrize(("test_cfg", "full"), TARGETS.values(), ids=TARGETS)
def test_zeros_is_the_parent_to_the_bit(test_cfg, full):
    expected = SegDataPreProcessor(**COMMON, test_cfg=test_cfg)(batch())
    found = ours("zeros", test_cfg=test_cfg)(batch())
    assert torch.equal(found["inputs"], expected["inputs"])
    assert found["inputs"].shape[-2:] == full
    for a, b in zip(found["data_samples"], expected["data_samples"]):
        assert a.metainfo == b.metainfo


@pytest.mark.parametrize("padding", [None, "replicate", "reflect"])
@pytest.mark.parametrize(("test_cfg", "full"), TARGETS.values(), ids=TARGETS)
def test_continues_the_normalised_image(padding, test_cfg, full):
    found = ours(padding, test_cfg=test_cfg)(batch())
    parent = SegDataPreProcessor(**COMMON, test_cfg=test_cfg)(batch())
    assert found["inputs"].shape == parent["inputs"].shape and found["inputs"].is_contiguous()
    for image, whole in zip(found["inputs"], parent["inputs"]):
        content = whole[:, : SIZE[0], : SIZE[1]].double().numpy()
        expected = reference.translate(content, 0, 0, padding or "replicate", full)
        assert torch.equal(image.double(), torch.from_numpy(expected))
    for a, b in zip(found["data_samples"], parent["data_samples"]):
        assert a.metainfo == b.metainfo


def test_training_is_the_parents():
    keywords = dict(size=(32, 48), test_cfg=dict(size_divisor=16))
    found = ours(**keywords)(batch(labels=True), training=True)
    expected = SegDataPreProcessor(**COMMON, **keywords)(batch(labels=True), training=True)
    assert torch.equal(found["inputs"], expected["inputs"])
    for a, b in zip(found["data_samples"], expected["data_samples"]):
        assert a.metainfo == b.metainfo
        assert torch.equal(a.gt_sem_seg.data, b.gt_sem_seg.data)


def test_a_segmentor_predicts_in_the_size_of_the_image():
    found = {}
    for kind in ("SegDataPreProcessor", "PaddedSegDataPreProcessor"):
        config = segmentor()
        config["data_preprocessor"].update(type=kind, test_cfg=dict(size_divisor=16))
        found[kind] = logits(build(config), SIZE)
        assert found[kind].shape[-2:] == SIZE
    assert not torch.equal(*found.values())


def test_mistakes_are_named():
    with pytest.raises(ConfigError, match=r"replicate, reflect, zeros, got 'mirror'"):
        ours("mirror", test_cfg=dict(size_divisor=16))
    with pytest.raises(ConfigError, match=r"test_cfg=dict\(size_divisor=.*got test_cfg=None"):
        ours("replicate")
