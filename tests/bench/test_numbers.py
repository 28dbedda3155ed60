"""What is timed is the same thing: the naive loop and ours give the same numbers."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F

from srt_plugins import Settings, SRTWrapper
from srt_plugins.bench import naive
from srt_plugins.bench.aggregation import Stored
from srt_plugins.bench.rows import NAIVE, STATISTICS, rows, view_keywords
from srt_plugins.core.views import resolve

PATCH = 8


class Local(torch.nn.Module):
    """Patches without positions: translated input, translated output."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.embed = torch.nn.Conv2d(3, 5, PATCH, PATCH)

    def forward(self, images):
        return [torch.tanh(self.embed(images))]


def views_of(count):
    keywords = view_keywords(count)
    return resolve(keywords.get("views"), keywords.get("level"), PATCH, quiet=True)


def interior(maps, margin):
    return maps[..., margin:-margin, margin:-margin]


@pytest.mark.parametrize("count", [4, 16, 49])
def test_a_number_of_views_is_that_many(count):
    assert len(views_of(count)) == count


@pytest.mark.parametrize("chunk", [1, 3])
@pytest.mark.parametrize("count", [4, 49])
def test_naive_and_ours_agree_where_all_views_look(count, chunk):
    torch.manual_seed(1)
    views = views_of(count)
    stored = Stored.like(torch.zeros(1, 3, 5, 6), views, chunk, PATCH)
    assert sum(map(len, stored.chunks)) == count
    slow = stored.aggregate_naively()
    (pixels,) = stored.aggregate(Settings(stride=1))
    (tokens,) = stored.aggregate(Settings())
    assert pixels.shape == slow.shape == (1, 3, 40, 48)
    margin = views.level
    torch.testing.assert_close(interior(pixels, margin), interior(slow, margin))
    assert not torch.allclose(pixels, slow)  # it rolls the border around
    torch.testing.assert_close(interior(tokens, 1), interior(F.avg_pool2d(slow, PATCH), 1))


def test_the_naive_loop_with_its_forwards_agrees_as_well():
    torch.manual_seed(2)
    backbone, images = Local().eval(), torch.randn(1, 3, 40, 48)
    shifts = views_of(4).translations
    with torch.no_grad():
        slow = naive.run(backbone, images, shifts, PATCH)
        (ours,) = SRTWrapper(copy.deepcopy(backbone), stride=1)(images)
    torch.testing.assert_close(interior(ours, PATCH), interior(slow, PATCH))


def test_stored_features_are_laid_out_as_those_of_the_backbone():
    like = torch.zeros(1, 5, 6, 3).permute(0, 3, 1, 2)
    stored = Stored.like(like, views_of(4), 1, PATCH)
    assert {chunk.stride()[1:] for chunk in stored.chunks} == {like.stride()[1:]}
    assert len({chunk.data_ptr() for chunk in stored.chunks}) == 4


def test_every_statistic_has_a_row_for_every_number_of_views():
    made = {(row.name, row.views) for row in rows((4, 16, 49), 12)}
    expected = [*STATISTICS, NAIVE, "smooth=3", "layer=5 of 12", "layer=9 of 12"]
    assert made >= {(name, n) for name in expected for n in (4, 16, 49)}
    assert ("smooth=3", 1) in made


@pytest.mark.parametrize(("blocks", "layers"), [(0, []), (1, []), (2, [0]), (4, [1, 2])])
def test_layers_of_shallow_backbones(blocks, layers):
    found = [row.keywords["layer"] for row in rows((4,), blocks) if "layer" in row.keywords]
    assert found == layers
