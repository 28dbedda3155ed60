"""Completing partial patches with real pixels, in what the backbone really gets."""

from __future__ import annotations

import copy

import pytest

pytest.importorskip("detectron2", reason="needs Detectron2 (make setup DETECTRON2=...)")

import numpy as np
import torch
from detectron2.modeling import SemanticSegmentor
from detectron2.modeling.meta_arch.semantic_seg import SemSegFPNHead

from srt_plugins import ConfigError
from srt_plugins.detectron2.padding import complete_patches
from tests import reference
from tests.detectron2.backbones import pyramid

PATCH = 16
MEAN, STD = (100.0, 110.0, 120.0), (50.0, 60.0, 70.0)
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")


@pytest.fixture
def model():
    torch.manual_seed(0)
    # Padded to a square of 96 pixels, six patches.
    backbone = pyramid(square_pad=96)
    head = SemSegFPNHead(
        {k: v for k, v in backbone.output_shape().items() if k in ("p2", "p4")},
        num_classes=3,
        conv_dims=8,
        common_stride=4,
        norm="",
        ignore_value=255,
    )
    made = SemanticSegmentor(
        backbone=backbone, sem_seg_head=head, pixel_mean=MEAN, pixel_std=STD
    ).eval()
    backbone.net.seen = []
    backbone.net.register_forward_pre_hook(lambda net, args: net.seen.append(args[0].clone()))
    return made


def inputs(*sizes):
    generator = torch.Generator().manual_seed(0)
    return [
        {"image": torch.randint(0, 255, (3, *size), generator=generator).float()} for size in sizes
    ]


@torch.no_grad()
def seen(model, batch):
    model.backbone.net.seen.clear()
    outputs = model(batch)
    (images,) = model.backbone.net.seen
    return images, outputs


def expected(image, padding):
    """Normalised, continued to whole patches, zeros from there on."""
    mean, std = np.array(MEAN)[:, None, None], np.array(STD)[:, None, None]
    normal = (image.double().numpy() - mean) / std
    h, w = (-(-n // PATCH) * PATCH for n in image.shape[-2:])
    out = np.zeros((3, 96, 96))
    out[:, :h, :w] = reference.translate(normal, 0, 0, padding, (h, w))
    return torch.from_numpy(out).float()


@pytest.mark.parametrize("padding", ["replicate", "reflect", "zeros"])
@pytest.mark.parametrize("sizes", [[(43, 75)], [(43, 75), (64, 91), (32, 48)]])
def test_images_are_continued_to_their_last_patch_and_no_further(model, padding, sizes):
    batch = inputs(*sizes)
    complete_patches(model, padding)
    images, outputs = seen(model, batch)
    for found, item, size, output in zip(images, batch, sizes, outputs):
        torch.testing.assert_close(found, expected(item["image"], padding))
        assert output["sem_seg"].shape == (3, *size)


def test_zeros_are_detectron2_s_own_padding_and_removing_restores_it(model):
    batch = inputs((43, 75), (50, 50))
    before, outputs = seen(model, batch)
    handle = complete_patches(model, "replicate")
    changed, _ = seen(model, batch)
    assert not torch.equal(changed, before)
    handle.remove()
    after, again = seen(model, batch)
    assert torch.equal(after, before)
    assert all(torch.equal(a["sem_seg"], b["sem_seg"]) for a, b in zip(outputs, again))
    complete_patches(model, "zeros")
    assert torch.equal(seen(model, batch)[0], before)


def test_copies_complete_too_and_an_error_leaves_nothing_behind(model):
    complete_patches(model)
    other = copy.deepcopy(model)
    batch = inputs((43, 75))
    with pytest.raises(TypeError):
        model([{"image": batch[0]["image"], "height": "tall"}])
    torch.testing.assert_close(seen(other, batch)[0][0], expected(batch[0]["image"], "replicate"))
    # A call of the backbone alone is not a batch of the model.
    alone = torch.randn(1, 3, 96, 96)
    model.backbone.net.seen.clear()
    model.backbone(alone)
    assert torch.equal(model.backbone.net.seen[0], alone)


def test_training_is_left_alone(model):
    batch = inputs((43, 75))
    batch[0]["sem_seg"] = torch.zeros(43, 75, dtype=torch.long)
    complete_patches(model)
    model.train()
    model.backbone.net.seen.clear()
    model(batch)
    torch.testing.assert_close(model.backbone.net.seen[0][0], expected(batch[0]["image"], "zeros"))


class Resizing(torch.nn.Module):
    """A container that resizes the images on the way."""

    def __init__(self, model, size):
        super().__init__()
        self.model, self.size = model, size

    def forward(self, batch):
        resized = [torch.nn.functional.interpolate(x["image"][None], self.size) for x in batch]
        return self.model([{"image": image[0]} for image in resized])

    @property
    def backbone(self):
        return self.model.backbone


@pytest.mark.parametrize("size", [(60, 75), (64, 80)])
def test_images_that_were_enlarged_on_the_way_keep_their_pixels(model, size):
    batch = inputs((40, 50))
    container = Resizing(model, size).eval()

    def run():
        model.backbone.net.seen.clear()
        with torch.no_grad():
            container(batch)
        return model.backbone.net.seen[0]

    plain = run()
    complete_patches(container)
    assert torch.equal(run(), plain)


def test_an_image_that_is_cropped_to_the_square_runs(model):
    wide = inputs((64, 117))
    plain, _ = seen(model, wide)
    complete_patches(model)
    found, _ = seen(model, wide)
    assert torch.equal(found, plain)  # nothing to complete: 64 rows are whole patches


def test_calls_by_keyword_nested_calls_and_other_formats(model):
    batch = inputs((43, 75))
    complete_patches(model)
    with torch.no_grad():
        model.backbone.net.seen.clear()
        model(batched_inputs=batch)
    want = expected(batch[0]["image"], "replicate")
    torch.testing.assert_close(model.backbone.net.seen[0][0], want)

    inner = inputs((50, 50))
    handle = model.register_forward_pre_hook(
        lambda module, args: None if args[0] is inner else bool(module(inner)) and None
    )
    images, _ = seen_last(model, batch)
    handle.remove()
    torch.testing.assert_close(images[0], want)
    with pytest.raises((IndexError, TypeError)):
        model([batch[0]["image"]])  # Detectron2's own complaint, not a hook's
    assert torch.equal(seen(model, batch)[0][0], images[0])


@torch.no_grad()
def seen_last(model, batch):
    model.backbone.net.seen.clear()
    outputs = model(batch)
    return model.backbone.net.seen[-1], outputs


def test_mistakes(model):
    with pytest.raises(ConfigError, match=r"padding.*mirror"):
        complete_patches(model, "mirror")
    for multiple in (0, -4, "x", 2.5, True):
        with pytest.raises(ConfigError, match="multiple"):
            complete_patches(model, multiple=multiple)
    assert not model._forward_pre_hooks and not model.backbone._forward_pre_hooks
