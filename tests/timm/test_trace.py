"""torch.jit.trace of ensembled models."""

from __future__ import annotations

import pytest

pytest.importorskip("timm", reason="timm is not installed")

import torch
from timm.models.vision_transformer import VisionTransformer

from srt_plugins import attach


@pytest.mark.parametrize("layer", [None, 0])
@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
def test_a_traced_model_gives_the_same_for_other_images(layer):
    model = VisionTransformer(
        img_size=(32, 48), embed_dim=24, depth=2, num_heads=2, num_classes=3
    ).eval()
    plain = model(torch.ones(1, 3, 32, 48))
    attach(model, layer=layer)
    example, other = torch.randn(2, 1, 3, 32, 48, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        traced = torch.jit.trace(model, example, check_trace=False)
        torch.testing.assert_close(traced(other), model(other), rtol=1e-5, atol=1e-6)
        assert traced(other).shape == plain.shape
        assert not torch.allclose(traced(other), traced(example))
