"""Mirrored views: every second view is seen mirrored, and its features are mirrored back."""

import numpy as np
import pytest
import torch

from srt_plugins import Settings, SRTWrapper
from srt_plugins.core.views import explicit, phases
from srt_plugins.errors import ConfigError
from tests import reference
from tests.toys import PairBackbone, PatchBackbone

POINTS = [(0, 0), (8, 8), (0, 8), (8, 0)]


def by_hand(backbone, image, points, statistic="mean", **how):
    """The oracle, with odd views mirrored before and after the backbone."""
    features = []
    for i, (dy, dx) in enumerate(points):
        view = reference.translate(image, dy, dx, "replicate", how.get("size"))
        turn = (lambda a: a[:, :, ::-1].copy()) if i % 2 and (dy, dx) != (0, 0) else (lambda a: a)
        tokens = backbone(torch.from_numpy(turn(view))[None])[0].numpy()
        features.append(turn(tokens))
    return reference.aggregate(features, points, 16, cells=how.get("cells"))[statistic]


@pytest.mark.parametrize("statistic", ["mean", "median"])
@pytest.mark.parametrize("view_batch", [1, 3])
@pytest.mark.parametrize("points", [POINTS, [(4, 4), (0, 0), (-4, 4)], [(0, 0)]])
@torch.no_grad()
def test_as_by_hand(points, view_batch, statistic):
    backbone = PatchBackbone(16).double().eval()
    images = torch.randn(2, 3, 48, 64, dtype=torch.float64)
    expected = [by_hand(backbone, image.numpy(), points, statistic) for image in images]
    SRTWrapper(backbone, views=points, flip=True, view_batch=view_batch, statistic=statistic)
    np.testing.assert_allclose(backbone(images).numpy(), np.stack(expected), atol=1e-10)


@torch.no_grad()
def test_a_mirrored_half_of_the_views_is_as_good_as_none_for_a_symmetric_backbone():
    backbone = PatchBackbone(16).double().eval()
    weight = backbone.embed.weight
    weight.copy_((weight + weight.flip(-1)) / 2)
    backbone.position.zero_()
    images = torch.randn(1, 3, 32, 64, dtype=torch.float64)
    plain = SRTWrapper(backbone, views=POINTS)(images)
    torch.testing.assert_close(SRTWrapper(backbone, views=POINTS, flip=True)(images), plain)


def test_the_untranslated_view_stays_as_it_is():
    assert explicit([(4, 4), (0, 0), (-4, 4), (2, 2)]).alternated().mirrored == (
        False,
        False,
        False,
        True,
    )
    assert phases(16).alternated().part(slice(1, 3)).mirrored == (True, False)


@pytest.mark.parametrize("flip", [1, "yes", None])
def test_only_true_or_false(flip):
    with pytest.raises(ConfigError, match="flip"):
        Settings(flip=flip)


@torch.no_grad()
def test_partial_patches_that_the_backbone_leaves_out_are_refused():
    backbone = SRTWrapper(PatchBackbone(16, partial="floor").eval(), views=POINTS, flip=True)
    backbone(torch.randn(1, 3, 40, 64))
    with pytest.raises(ConfigError, match="flip=False"):
        backbone(torch.randn(1, 3, 32, 70))


@torch.no_grad()
def test_what_is_not_ensembled_comes_from_the_view_as_it_is():
    backbone = PairBackbone(16).eval()
    images = torch.randn(2, 3, 32, 48)
    plain = backbone(images)
    got = SRTWrapper(backbone, views=POINTS[::-1], flip=True, outputs=["coarse"])(images)
    torch.testing.assert_close(got["deep"], plain["deep"])
