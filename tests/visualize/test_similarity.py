"""Cosines to the feature at a point, against numpy on fields aligned by loops."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from srt_plugins import ConfigError, Settings
from srt_plugins.bench.memory import peak_bytes
from srt_plugins.visualize.features import Features
from srt_plugins.visualize.similarity import cosine_to_point
from tests import reference
from tests.test_guided import photos
from tests.toys import PatchBackbone

VIEWS = [(0, 0), (3, -2), (-1, 2)]
POINT = (13, 20)


@pytest.fixture
def features():
    return Features(PatchBackbone(8, 6).double().eval())


def by_loops(features, image, cell, statistic="mean"):
    """Cosines ``(h, w)`` of one image."""
    size = tuple(-(-n // 8) * 8 for n in image.shape[1:])

    def run(view):
        with torch.no_grad():
            return features.tokens.backbone(torch.from_numpy(view)[None])[0].numpy()

    field = reference.srt(run, image, VIEWS, 8, "replicate", cell, size)[statistic]
    field = field[:, : -(-image.shape[1] // cell), : -(-image.shape[2] // cell)]
    own = field[:, POINT[0] // cell, POINT[1] // cell]
    product = np.einsum("d,dyx->yx", own, field)
    return product / np.linalg.norm(own) / np.linalg.norm(field, axis=0)


@pytest.mark.parametrize("statistic", ["mean", "median"])
@pytest.mark.parametrize("memory", [1 << 30, 60_000], ids=["at once", "one by one"])
def test_pixels_equal_the_loops(features, statistic, memory):
    images = photos(21, 29)
    settings = Settings(views=VIEWS, statistic=statistic)
    found = cosine_to_point(features, images, settings, POINT, memory)
    assert found.stride == (1, 1) and found.values.shape == (2, 1, 21, 29)
    assert found.size == (21, 29) and found.token_stride == (8, 8)
    for i, image in enumerate(images.numpy()):
        expected = by_loops(features, image, 1, statistic)
        np.testing.assert_allclose(found.values[i, 0], expected, atol=1e-6)
        assert float(found.values[i, 0, POINT[0], POINT[1]]) == pytest.approx(1)


def test_less_memory_gives_larger_cells(features):
    images = photos(21, 29)
    settings = Settings(views=VIEWS)
    strides = []
    for memory in (1 << 30, 40_000, 20_000, 8_000, 1_000):
        found = cosine_to_point(features, images, settings, POINT, memory)
        cell = found.stride[0]
        assert found.stride == (cell, cell)
        for i, image in enumerate(images.numpy()):
            np.testing.assert_allclose(
                found.values[i, 0], by_loops(features, image, cell), atol=1e-6
            )
        strides.append(cell)
    assert strides == sorted(strides) and strides[0] == 1 and strides[-1] == 8
    assert len(set(strides)) > 2
    # The settings' own stride is the finest.
    found = cosine_to_point(features, images, settings.but(stride=4), POINT)
    assert found.stride == (4, 4)
    with pytest.raises(ConfigError, match="divide the patch stride 8, got 3"):
        cosine_to_point(features, images, settings.but(stride=3), POINT)


@pytest.mark.parametrize(
    "keywords",
    [
        dict(smooth="guided", dispersion=True),
        dict(views="phases:4", tolerance=0.1),
        dict(flip=True),
    ],
)
def test_other_settings_equal_cosines_of_the_whole_field(features, keywords):
    images = photos(21, 29)
    images[1] *= 0.05
    settings = Settings(**keywords)
    field = features.ensembled(images, settings.but(stride=1))
    own = field.values[..., POINT[0], POINT[1], None, None].expand_as(field.values)
    expected = torch.cosine_similarity(field.values, own, 1)[:, None]
    for memory in (1 << 30, 1 << 17):
        found = cosine_to_point(features, images, settings, POINT, memory)
        assert found.views_used == field.views_used and found.dispersion is None
        if found.stride == (1, 1):
            torch.testing.assert_close(found.values, expected, rtol=0, atol=2e-6)
    assert cosine_to_point(features, images, settings, POINT).stride == (1, 1)


def test_plain_features_have_cells_of_a_token(features):
    image = photos(21, 29, batch=1)
    found = cosine_to_point(features, image, None, POINT)
    tokens = features.plain(image).values[0].double().numpy()
    own = tokens[:, POINT[0] // 8, POINT[1] // 8]
    expected = np.einsum("d,dyx->yx", own, tokens) / np.linalg.norm(own)
    expected /= np.linalg.norm(tokens, axis=0)
    assert found.stride == (8, 8)
    np.testing.assert_allclose(found.values[0, 0], expected, atol=1e-6)


class Wide(nn.Module):
    def forward(self, images):
        pooled = nn.functional.avg_pool2d(images, 16)
        return torch.cat([pooled.roll(i, 2) + 0.1 * i for i in range(32)], 1)


def test_memory_is_kept_to():
    features, images = Features(Wide().eval()), torch.randn(1, 3, 640, 960)
    pixels = 96 * 640 * 960 * 4
    settings = Settings()
    for memory in (pixels // 2, pixels // 8, pixels // 20):
        found = []
        peak = peak_bytes(
            lambda memory=memory, found=found: found.append(
                cosine_to_point(features, images, settings, (5, 5), memory)
            ),
            torch.device("cpu"),
        )
        tokens = 96 * 40 * 60 * 4
        assert peak < memory + 4 * tokens + 3 * images.nbytes
        assert found[0].stride == ((1, 1) if memory > pixels // 20 else (2, 2))


def test_mistakes(features):
    images = photos(21, 29)
    for point in [(21, 0), (0, 29), (-1, 3), (4,)]:
        with pytest.raises(ConfigError, match=r"\(y, x\) in pixels inside images of 21x29"):
            cosine_to_point(features, images, Settings(), point)
    with pytest.raises(ConfigError, match="layer=None"):
        cosine_to_point(features, images, Settings(layer=1), POINT)
    images[0, 0, 3, 3] = float("nan")
    for settings in (None, Settings(), Settings(stride=8)):
        with pytest.raises(ConfigError, match="finite features"):
            cosine_to_point(features, images, settings, POINT)
