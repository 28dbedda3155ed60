"""Features of one place, plain and ensembled, against loops and against the wrapped backbone."""

from __future__ import annotations

import copy
import importlib

import numpy as np
import pytest
import torch
import torch.distributed as dist
from torch import nn

from srt_plugins import AdapterError, ConfigError, Settings, SRTWrapper, dispersion, views_used
from srt_plugins.bench.memory import peak_bytes
from srt_plugins.visualize.basis import Basis
from srt_plugins.visualize.features import Features
from tests import reference
from tests.hub.models import DinoVisionTransformer, VisionTransformer
from tests.test_guided import photos
from tests.timm import models as timm_models
from tests.toys import PairBackbone, PatchBackbone

VIEWS = [(0, 0), (3, -2), (-1, 2)]
ODD = (21, 29)


def toy(channels=6):
    """A backbone of patches of 8 in float64."""
    return PatchBackbone(8, channels).double().eval()


def fitted(features, images):
    return Basis.fit([features.plain(images).values])


def numpy_views(backbone, image, padding="replicate"):
    """Tokens of each view of one image, completed to whole patches; by loops."""
    size = tuple(-(-n // 8) * 8 for n in image.shape[1:])
    with torch.no_grad():
        return [
            backbone(torch.from_numpy(reference.translate(image, dy, dx, padding, size))[None])
            for dy, dx in VIEWS
        ]


def by_loops(backbone, basis, image, cell, padding="replicate", smooth=None, **how):
    """Statistics over views of projected tokens, aligned pixel by pixel."""
    tokens = [view[0].numpy() for view in numpy_views(backbone, image, padding)]
    rows, mean = basis.components.numpy(), basis.mean.numpy()
    shown = [np.einsum("kd,dyx->kyx", rows, t - mean[:, None, None]) for t in tokens]
    found = reference.aggregate(shown, VIEWS, 8, cell, **how)
    height, width = (-(-n // cell) for n in image.shape[1:])
    return {name: values[:, :height, :width] for name, values in found.items()}


@pytest.mark.parametrize(
    ("keywords", "how"),
    [
        (dict(stride=1), {}),
        (dict(stride=2, smooth=3, padding="reflect"), dict(taps=(0.25, 0.5, 0.25))),
        (dict(padding="zeros"), {}),
        (dict(stride=1, statistic="median"), {}),
        (dict(stride=4, dispersion=True), {}),
    ],
)
def test_projected_pixel_features_equal_the_loops(keywords, how):
    backbone, images = toy(), photos(*ODD)
    features = Features(backbone)
    basis = fitted(features, images)
    found = features.ensembled(images, Settings(views=VIEWS, **keywords), basis)
    cell, padding = keywords.get("stride") or 8, keywords.get("padding", "replicate")
    assert found.stride == (cell, cell) and found.size == ODD and found.token_stride == (8, 8)
    assert found.values.dtype == torch.float32 and found.views_used == (3, 3)
    for i, image in enumerate(images.numpy()):
        expected = by_loops(backbone, basis, image, cell, padding, **how)
        values = expected[keywords.get("statistic", "mean")]
        np.testing.assert_allclose(found.values[i], values, atol=2e-6 * np.abs(values).max())
        if keywords.get("dispersion"):  # of all channels, at tokens
            every = [view[0].numpy() for view in numpy_views(backbone, image, padding)]
            spread = reference.aggregate(every, VIEWS, 8)["std"]
            spread = np.sqrt((spread**2).mean(0))
            np.testing.assert_allclose(found.dispersion[i, 0], spread, rtol=1e-5)


@pytest.mark.parametrize("smooth", ["guided:1:0.5", "guided:0.6:0.3"])
def test_guided_smoothing_equals_the_loops(smooth):
    backbone, image = toy(), photos(16, 24, batch=1)
    features = Features(backbone)
    basis = fitted(features, image)
    settings = Settings(views=VIEWS, smooth=smooth, stride=4)
    space, colour = map(float, smooth.split(":")[1:])
    size = 8 if space == 1 else 4
    mean = by_loops(backbone, basis, image[0].numpy(), size)["mean"]
    expected = reference.guided(mean, image[0].numpy(), 8, size, 4, space, colour)
    found = features.ensembled(image, settings, basis).values[0]
    np.testing.assert_allclose(found, expected, atol=2e-6 * np.abs(expected).max())


@pytest.mark.parametrize(
    "keywords",
    [
        dict(stride=1, smooth=3, flip=True),
        dict(stride=2, smooth="guided", dispersion=True),
        dict(stride=1, level=1),
        dict(level=0, stride=1),
        dict(views="phases:4", tolerance=0.3, stride=4, dispersion=True, smooth=3),
    ],
)
def test_projecting_views_equals_projecting_the_field(keywords):
    """In float64 to its precision: nothing but the order of two linear maps is changed."""
    features = Features(toy())
    images = photos(*ODD)
    basis = Basis.fit([features.plain(images).values], without_background=True)
    settings = Settings(**keywords)
    field = features.ensembled(images, settings)
    found = features.ensembled(images, settings, basis)
    values, front = basis.split(basis.scores(field.values))
    torch.testing.assert_close(found.values, values, rtol=0, atol=5e-6)
    assert (found.foreground == front).float().mean() > 0.999
    assert found.views_used == field.views_used
    assert found.foreground.any() and not found.foreground.all()
    if keywords.get("dispersion"):
        assert torch.equal(found.dispersion, field.dispersion)
        assert found.dispersion.shape == (2, 1, 3, 4)


def test_views_dispersion_and_tolerance_are_those_of_the_wrapped_backbone():
    backbone, images = toy(), photos(24, 40)
    # Of one image the views agree sooner.
    images[1] *= 0.05
    features = Features(backbone)
    settings = Settings(views="phases:4", tolerance=0.1, dispersion=True, smooth=3)
    twin = SRTWrapper(copy.deepcopy(backbone), views="phases:4", tolerance=0.1, dispersion=True,
                      smooth=3)  # fmt: skip
    with torch.no_grad():
        values = twin(images)
    basis = fitted(features, images)
    for given, stride in ((None, None), (basis, 1)):
        found = features.ensembled(images, settings.but(stride=stride), given)
        assert found.views_used == views_used(twin)
        torch.testing.assert_close(found.dispersion, dispersion(twin)[0].float())
    assert len(set(found.views_used)) == 2
    whole = features.ensembled(images, settings)
    torch.testing.assert_close(whole.values, values.float())


def test_the_median_is_that_of_the_projections():
    """Which the docstring says: another field than the projection of the median."""
    features, images = Features(toy()), photos(16, 24)
    basis = fitted(features, images)
    settings = Settings(views=VIEWS, stride=1, statistic="median")
    found = features.ensembled(images, settings, basis).values
    other = basis.project(features.ensembled(images, settings).values)
    assert (found - other).abs().max() > 0.01


# Every family: how to build it, and what a plain call of the wrapped backbone returns there.
def family_timm(name, size):
    def make():
        backbone = timm_models.build(timm_models.MODELS[name])
        return backbone, lambda images: backbone.forward_features(images), size

    return make


def family(module, name, size, pick, needs=None):
    def make():
        if needs:
            pytest.importorskip(needs)
        cases = importlib.import_module(module)
        if needs == "mmseg":
            from mmseg.registry import MODELS

            import srt_plugins.mmseg  # noqa: F401

            backbone = MODELS.build(cases.BACKBONES[name].config)
            backbone.train(False)
        else:
            backbone = cases.build(cases.BACKBONES[name]).eval()
        return backbone, lambda images: pick(backbone(images)), size

    return make


def family_hub(made, pick):
    def make():
        return made.eval(), pick(made), (24, 32)

    return make


def last(output):
    return output[-1]


HF, MM, D2 = "tests.transformers.backbones", "tests.mmseg.tiny", "tests.detectron2.backbones"
FAMILIES = {
    "timm-vit": family_timm("vit-any", (48, 64)),
    "timm-registers": family_timm("dinov2", (42, 56)),
    "timm-swin": family_timm("swin", (64, 96)),
    "timm-convnext": family_timm("convnext", (64, 96)),
    "dinov2": family(
        HF, "dinov2-registers", (48, 64), lambda o: o.last_hidden_state, "transformers"
    ),
    "hf-vit": family(HF, "vit", (48, 48), lambda o: o.last_hidden_state, "transformers"),
    "hf-swin": family(HF, "swin-backbone", (64, 96), lambda o: o.feature_maps[-1], "transformers"),
    "segformer": family(HF, "segformer", (64, 96), lambda o: o.last_hidden_state, "transformers"),
    "mmseg-vit": family(MM, "vit", (24, 32), last, "mmseg"),
    "mmseg-swin": family(MM, "swin", (24, 32), last, "mmseg"),
    "mmseg-mit": family(MM, "mit", (24, 32), last, "mmseg"),
    "d2-vit": family(D2, "vit", (64, 96), lambda o: o["last_feat"], "detectron2"),
    "d2-pyramid": family(D2, "simple-pyramid", (64, 128), lambda o: o["p4"], "detectron2"),
    "hub-dinov2": family_hub(
        DinoVisionTransformer(2), lambda b: lambda x: b.forward_features(x)["x_norm_patchtokens"]
    ),
    "hub-dino": family_hub(
        VisionTransformer(), lambda b: lambda x: b.get_intermediate_layers(x)[0][:, 1:]
    ),
}


def as_map(tokens, channels, grid):
    """``(N, L, D)`` with prefix tokens, ``(N, h, w, D)`` or ``(N, D, h, w)`` as the last."""
    if tokens.ndim == 3:
        return tokens[:, -grid[0] * grid[1] :].transpose(1, 2).unflatten(2, grid)
    return tokens if tokens.shape[1] == channels else tokens.permute(0, 3, 1, 2)


def found_state(module):
    """All that a look must leave as it is."""
    hooks = sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in module.modules())
    own = [sorted(vars(m)) for m in module.modules()]
    training = [m.training for m in module.modules()]
    gradients = [p.requires_grad for p in module.parameters()]
    values = [t.clone() for t in module.state_dict().values()]
    return (type(module), hooks, own, training, gradients), values


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_of_backbones(name):
    backbone, plainly, size = FAMILIES[name]()
    facts, values = found_state(backbone)
    images = torch.randn(1, 3, *size, generator=torch.Generator().manual_seed(1))
    features = Features(backbone)
    plain = features.plain(images)
    channels, grid = plain.values.shape[1], plain.values.shape[2:]
    assert tuple(grid) == tuple(n // s for n, s in zip(size, plain.stride))
    with torch.no_grad():
        torch.testing.assert_close(plain.values, as_map(plainly(images), channels, grid))
    settings = Settings(views=VIEWS)
    found = features.ensembled(images, settings)
    basis = Basis.fit([plain.values])
    shown = features.ensembled(images, settings.but(stride=1), basis)
    assert shown.values.shape == (1, 3, *size)
    pooled = torch.nn.functional.avg_pool2d(shown.values, plain.stride)
    inner = (..., slice(1, -1), slice(1, -1))
    torch.testing.assert_close(
        pooled[inner], basis.project(found.values)[inner], rtol=1e-3, atol=1e-4
    )
    after, same = found_state(backbone)
    assert after == facts and all(map(torch.equal, values, same))
    if features.tokens.adapter.blocks:
        block = Features(backbone, layer=-1).ensembled(images, settings.but(stride=1), None)
        assert block.values.shape[2:] == size
    SRTWrapper(backbone, views=VIEWS)
    with torch.no_grad():
        expected = as_map(plainly(images), channels, grid)
    torch.testing.assert_close(found.values, expected)


def test_a_block_in_the_middle_and_nothing_after_it():
    backbone = timm_models.build(timm_models.MODELS["vit-any"])
    images = torch.randn(1, 3, 48, 64)
    seen, ran = [], []
    handles = [
        backbone.blocks[0].register_forward_hook(lambda *a: seen.append(a[2])),
        backbone.blocks[1].register_forward_hook(lambda *_: ran.append(1)),
    ]
    with torch.no_grad():
        backbone(images)
    tokens = seen[0][0, 1:]
    ran.clear()
    for layer in (0, -2, "blocks.0"):
        found = Features(backbone, layer).plain(images).values
        assert torch.equal(found[0].flatten(1).T, tokens)
    assert not ran
    for handle in handles:
        handle.remove()
    with pytest.raises(ConfigError, match="'blocks.1'.*got 'blocks.7'"):
        Features(backbone, "blocks.7")
    with pytest.raises(ConfigError, match="between -2 and 1"):
        Features(backbone, 2)


def test_images_of_any_size_are_completed_and_cells_begin_inside():
    backbone = toy()
    features = Features(backbone)
    for size in [(21, 29), (8, 9), (1, 1), (24, 32)]:
        images = photos(*size)
        found = features.plain(images)
        cells = [-(-n // 8) for n in size]
        whole = [8 * n for n in cells]
        completed = torch.nn.functional.pad(
            images, (0, whole[1] - size[1], 0, whole[0] - size[0]), "replicate"
        )
        with torch.no_grad():
            torch.testing.assert_close(found.values, backbone(completed).float())
            zeros = features.plain(images, padding="zeros")
            torch.testing.assert_close(zeros.values, backbone(images).float())
        pixels = features.ensembled(images, Settings(views=VIEWS, stride=1))
        assert pixels.values.shape == (2, 6, *size)
        halves = features.ensembled(images, Settings(views=VIEWS, stride=4, dispersion=True))
        assert halves.values.shape[2:] == tuple(-(-n // 4) for n in size)
        spread = halves.at_pixels()
        assert spread.values.shape == (2, 6, *size) and spread.dispersion.shape == (2, 1, *size)
        for y, x in [(0, 0), (size[0] - 1, size[1] - 1), (size[0] // 2, size[1] // 2)]:
            assert torch.equal(spread.values[..., y, x], halves.values[..., y // 4, x // 4])
            assert torch.equal(spread.dispersion[..., y, x], halves.dispersion[..., y // 8, x // 8])


def test_outputs_are_chosen_by_index_and_by_name():
    backbone, images = PairBackbone(8, 4).eval(), torch.randn(1, 3, 16, 24)
    assert Features(backbone).plain(images).stride == (4, 4)
    for output, stride in ((0, 8), (-1, 4), ("coarse", 8), ("deep", 4)):
        assert Features(backbone, output=output).plain(images).stride == (stride, stride)
    for output in (2, "fine", -3):
        with pytest.raises(ConfigError, match=r"one of 2 token grids .*got " + repr(output)):
            Features(backbone, output=output).plain(images)


class Broken(nn.Module):
    def forward(self, images):
        raise RuntimeError("no")


def test_training_mode_is_restored_also_after_errors():
    backbone = timm_models.build(timm_models.MODELS["vit-any"])
    images = torch.randn(1, 3, 32, 32)
    expected = Features(backbone).plain(images).values
    backbone.train()
    backbone.blocks[1].eval()
    modes = [m.training for m in backbone.modules()]
    found = Features(backbone).plain(images)
    assert torch.equal(found.values, expected) and not found.values.requires_grad
    assert [m.training for m in backbone.modules()] == modes
    backbone.blocks[1].mlp = Broken()
    modes = [m.training for m in backbone.modules()]
    with pytest.raises(RuntimeError, match="no"):
        Features(backbone, layer=1).ensembled(images, Settings(views=VIEWS))
    assert [m.training for m in backbone.modules()] == modes
    assert not any(m._forward_hooks for m in backbone.modules())


def test_half_precision():
    backbone = timm_models.build(timm_models.MODELS["vit-any"])
    images = torch.randn(1, 3, 48, 64)
    features = Features(backbone)
    exact = features.plain(images)
    basis = Basis.fit([exact.values])
    settings = Settings(views=VIEWS, stride=1)
    expected = features.ensembled(images, settings, basis).values
    with torch.autocast("cpu", torch.bfloat16):
        mixed = features.ensembled(images, settings, basis)
    half = Features(backbone.bfloat16()).ensembled(images.bfloat16(), settings, basis)
    for found in (mixed, half):
        assert found.values.dtype == torch.float32
        assert (found.values - expected).abs().mean() < 0.05 * expected.abs().mean()


class Wide(nn.Module):
    """As many tokens as a ViT of patch 16 has, without the time of its blocks."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.mix = nn.Conv2d(3, 128, 1)

    def forward(self, images):
        return self.mix(nn.functional.avg_pool2d(images, 16))


def test_pixel_features_of_a_4k_image_take_the_memory_of_their_channels():
    images = torch.randn(1, 3, 2160, 3840, generator=torch.Generator().manual_seed(0))
    features = Features(Wide().eval())
    basis = fitted(features, images[..., :512, :512])
    settings = Settings(views=[(0, 0), (8, 8)], stride=1, dispersion=True)
    found = []

    def run():
        found.append(features.ensembled(images, settings, basis))

    peak = peak_bytes(run, torch.device("cpu"))
    result = 3 * 2160 * 3840 * 4
    tokens = 128 * 135 * 240 * 4
    assert found[0].values.shape == (1, 3, 2160, 3840) and found[0].dispersion is not None
    # All channels at pixels would be 4 GiB.
    assert result < peak < 2 * result + 6 * tokens < 300 << 20


@pytest.fixture
def alone():
    """A group of this process alone."""
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield dist.group.WORLD
    dist.destroy_process_group()


def test_backbones_and_images_that_cannot_be_looked_at(alone):
    backbone, images = toy(), photos(16, 24)
    with pytest.raises(ConfigError, match="torch module, got str"):
        Features("vit")
    with pytest.raises(ConfigError, match="layer or output"):
        Features(timm_models.build(timm_models.MODELS["vit-any"]), layer=1, output=0)
    features = Features(backbone)
    for bad in (images[0], images.int(), images.numpy(), images[:0]):
        with pytest.raises(ConfigError, match=r"images \(B, C, H, W\)"):
            features.plain(bad)
    for settings, name in (
        (Settings(layer=1), "layer=None"),
        (Settings(outputs=0), "outputs=None"),
        (Settings(group=alone), "group=None"),
    ):
        with pytest.raises(ConfigError, match=name):
            features.ensembled(images, settings)
    with pytest.raises(ConfigError, match="divide the patch stride 8, got 3"):
        features.ensembled(images, Settings(views=VIEWS, stride=3))
    with pytest.raises(ConfigError, match="below one patch"):
        features.ensembled(images, Settings(level=9))
    with pytest.raises(AdapterError, match="at least one feature map"):
        Features(nn.Sequential(nn.Flatten(), nn.Linear(3 * 16 * 24, 4))).plain(images.float())
    wrapped = SRTWrapper(copy.deepcopy(backbone), views=VIEWS)
    with pytest.raises(ConfigError, match=r"without SRT.*detach"):
        Features(wrapped)
    SRTWrapper(backbone, views=VIEWS)
    with pytest.raises(ConfigError, match=r"without SRT.*detach"):
        features.plain(images)
