"""Ensembling at a block: what it costs, and that compiled blocks are not bypassed."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from mmseg.models.backbones import VisionTransformer
from torch.utils.flop_counter import FlopCounterMode

from srt_plugins import SRTWrapper, attach, detach

IMAGE = torch.randn(1, 3, 32, 48, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def backbone():
    torch.manual_seed(0)
    made = VisionTransformer(
        img_size=(32, 32),
        patch_size=8,
        embed_dims=16,
        num_layers=6,
        num_heads=2,
        out_indices=(1, 5),
    )
    made.eval()
    with torch.no_grad():
        yield made


def flops(call):
    with FlopCounterMode(display=False) as counter:
        call()
    return counter.get_total_flops()


@pytest.mark.parametrize("layer", [0, 2, 4, 5])
def test_views_pay_for_the_part_before_and_one_pass_for_the_rest(backbone, layer):
    """N * (embedding + blocks up to layer) + 1 * (embedding + blocks after it), and the alignment
    (1 or 2 % of so small a model)."""
    whole = flops(lambda: backbone(IMAGE))
    tokens = 1 + 4 * 6
    block = flops(lambda: backbone.layers[0](torch.randn(1, tokens, 16)))
    embedding = whole - 6 * block
    SRTWrapper(backbone, layer=layer)
    before, after = (layer + 1) * block, (5 - layer) * block
    assert block > 0
    expected = 4 * (embedding + before) + embedding + after
    assert expected <= flops(lambda: backbone(IMAGE)) <= 1.03 * expected


def test_early_outputs_are_ensembled_and_late_ones_continued(backbone):
    early, late = backbone(IMAGE)
    every = SRTWrapper(backbone)(IMAGE)
    at_layer = SRTWrapper(backbone, layer=3)(IMAGE)
    torch.testing.assert_close(at_layer[0], every[0])
    assert not torch.allclose(at_layer[0], early)
    assert not torch.allclose(at_layer[1], every[1]) and not torch.allclose(at_layer[1], late)


@pytest.mark.parametrize("order", ["compile, wrap", "wrap, compile"])
def test_blocks_compiled_one_by_one(backbone, order):
    torch.compiler.reset()
    expected = SRTWrapper(backbone, layer=3)(IMAGE)
    detach(backbone)
    plain = backbone(IMAGE)
    if order == "compile, wrap":
        for block in backbone.layers:
            block.compile(backend="eager")
        torch.testing.assert_close(backbone(IMAGE), plain)
    SRTWrapper(backbone, layer=3)
    if order == "wrap, compile":
        for block in backbone.layers:
            block.compile(backend="eager")
    torch.testing.assert_close(backbone(IMAGE), expected)
    detach(backbone)
    torch.testing.assert_close(backbone(IMAGE), plain)


def test_a_whole_compiled_model_at_a_layer(backbone):
    torch.compiler.reset()
    expected = SRTWrapper(backbone, layer=3)(IMAGE)
    torch.testing.assert_close(torch.compile(backbone, backend="eager")(IMAGE), expected)


def test_threads_do_not_see_each_other_s_patched_blocks(backbone):
    SRTWrapper(backbone, layer=3)
    expected = backbone(IMAGE)
    attributes = [set(vars(block)) for block in backbone.layers]

    def work(_):
        with torch.no_grad():
            return [backbone(IMAGE) for _ in range(10)]

    with ThreadPoolExecutor(3) as pool:
        for results in pool.map(work, range(3)):
            for result in results:
                torch.testing.assert_close(result, expected)
    assert [set(vars(block)) for block in backbone.layers] == attributes


def test_attach_takes_a_backbone_itself(backbone):
    before = backbone(IMAGE)
    attach(backbone)
    assert not torch.equal(backbone(IMAGE)[0], before[0])
    assert type(detach(backbone)) is VisionTransformer
