"""Backbones whose images come in through other methods than forward."""

from __future__ import annotations

import copy
import functools
import pickle
import threading

import numpy as np
import pytest
import torch
from srt_plugins.adapters import Adapter, find_backbone
from srt_plugins.adapters.outputs import BySize
from torch import nn

from srt_plugins import ConfigError, SRTWrapper, adapters, attach, detach, dispersion, srt_enabled
from srt_plugins.errors import AdapterError, CaptureError
from tests import reference

IMAGES = torch.randn(2, 3, 24, 40, generator=torch.Generator().manual_seed(1))
VIEWS = [(0, 0), (3, -2), (-1, 2)]
PREFIX = 3


class Block(nn.Linear):
    def forward(self, x):
        return torch.tanh(super().forward(x) + x)


class Tokens(nn.Module):
    """Tokens in a sequence behind prefix tokens, by several methods that call each other."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.embed = nn.Conv2d(3, 6, 8, 8)
        self.prefix = nn.Parameter(torch.randn(1, PREFIX, 6))
        self.blocks = nn.ModuleList(Block(6, 6) for _ in range(3))
        self.head = nn.Linear(6, 2)
        self.calls = 0

    def tokens(self, images, scale=1.0):
        self.calls += 1
        x = torch.tanh(scale * self.embed(images)).flatten(2).transpose(1, 2)
        pooled = x.mean(1, keepdim=True) * self.prefix
        x = torch.cat([pooled, x], 1)
        for block in self.blocks:
            x = block(x)
        return x

    def maps(self, images, scale=1.0, channels_last=False):
        x = self.tokens(images, scale)[:, PREFIX:]
        x = x.unflatten(1, (images.shape[-2] // 8, images.shape[-1] // 8))
        return {"maps": (x if channels_last else x.permute(0, 3, 1, 2)), "scale": scale}

    def attended(self, images):
        x = self.tokens(images)
        return x, (x @ x.transpose(1, 2))[:, None]

    def forward(self, images):
        return self.head(self.tokens(images)[:, 0])


def describe(module):
    if not isinstance(module, Tokens):
        return None
    return Adapter(
        family="Tokens",
        patch=8,
        by_size=BySize((8,), PREFIX, ("NCHW", "NHWC")),
        entries=("tokens", "maps", "attended"),
        blocks=tuple(f"blocks.{i}" for i in range(3)),
        block_strides=(8,) * 3,
        taps=(0, 1, 2),
        prefix_tokens=PREFIX,
    )


@pytest.fixture(autouse=True)
def known():
    adapters.register(describe)
    with torch.no_grad():
        yield
    adapters.unregister(describe)


@pytest.fixture
def plain():
    return Tokens().eval()


@pytest.fixture
def backbone():
    return SRTWrapper(Tokens().eval(), views=VIEWS)


def by_hand(plain, image, scale=1.0):
    """Prefix tokens (K, C) and the grid (C, h, w) of one image, by the oracle."""
    seen = [
        plain.tokens(
            torch.from_numpy(
                reference.translate(image.double().numpy(), *view, "replicate")
            ).float()[None],
            scale,
        )[0]
        .double()
        .numpy()
        for view in VIEWS
    ]
    grids = [s[PREFIX:].T.reshape(6, 3, 5) for s in seen]
    return np.mean([s[:PREFIX] for s in seen], 0), reference.aggregate(grids, VIEWS, 8)["mean"]


def test_a_sequence_of_tokens_is_aligned_and_its_prefix_averaged(backbone, plain):
    found = backbone.tokens(IMAGES, scale=0.5)
    for tokens, image in zip(found, IMAGES):
        prefix, grid = by_hand(plain, image, 0.5)
        expected = np.concatenate([prefix, grid.reshape(6, -1).T])
        torch.testing.assert_close(tokens, torch.from_numpy(expected).float())


@pytest.mark.parametrize("channels_last", [False, True])
def test_maps_in_either_layout(backbone, plain, channels_last):
    found = backbone.maps(images=IMAGES, channels_last=channels_last)
    assert found["scale"] == 1.0
    maps = found["maps"].permute(0, 3, 1, 2) if channels_last else found["maps"]
    assert maps.shape == (2, 6, 3, 5)
    expected = np.stack([by_hand(plain, image)[1] for image in IMAGES])
    torch.testing.assert_close(maps, torch.from_numpy(expected).float())


def test_images_may_stand_behind_other_keywords(backbone):
    assert torch.equal(backbone.tokens(scale=0.5, images=IMAGES), backbone.tokens(IMAGES, 0.5))


def test_views_of_views_are_never_run(backbone, plain):
    backbone.maps(IMAGES)  # calls self.tokens
    assert backbone.calls == len(VIEWS)
    assert plain.calls == 0


def test_a_head_gets_the_ensembled_tokens(backbone, plain):
    expected = torch.stack([torch.from_numpy(by_hand(plain, i)[0][0]).float() for i in IMAGES])
    torch.testing.assert_close(backbone(IMAGES), plain.head(expected))


def test_attention_between_tokens_is_that_of_the_centre_view(backbone, plain):
    tokens, attention = backbone.attended(IMAGES)
    assert torch.equal(attention, plain.attended(IMAGES)[1])
    torch.testing.assert_close(tokens, backbone.tokens(IMAGES))
    with pytest.raises(ConfigError, match="can be averaged"):
        SRTWrapper(backbone, views=VIEWS, outputs=[1]).attended(IMAGES)


def test_a_layer_in_a_sequence(plain):
    backbone = SRTWrapper(Tokens().eval(), views=VIEWS, layer=-1)
    torch.testing.assert_close(
        backbone.tokens(IMAGES), SRTWrapper(plain, views=VIEWS).tokens(IMAGES)
    )


def test_a_block_that_was_taken_away_is_named(plain):
    backbone = SRTWrapper(plain, views=VIEWS, layer=-1)
    backbone.blocks = backbone.blocks[:2]
    with pytest.raises(CaptureError, match=r"'blocks\.2'.*wrap it again"):
        backbone.tokens(IMAGES)


def test_a_finer_stride_gives_more_tokens(backbone):
    SRTWrapper(backbone, views=VIEWS, stride=4, dispersion=True)
    assert backbone.tokens(IMAGES).shape == (2, PREFIX + 6 * 10, 6)
    assert [d.shape for d in dispersion(backbone)] == [(2, 1, 6, 10)]


def test_level_zero_and_training_are_plain_to_the_bit(plain):
    backbone = SRTWrapper(Tokens().eval(), level=0)
    for call in (lambda m: m(IMAGES), lambda m: m.tokens(IMAGES), lambda m: m.maps(IMAGES)["maps"]):
        assert torch.equal(call(backbone), call(plain))
    SRTWrapper(backbone, views=VIEWS).train()
    assert torch.equal(backbone.tokens(IMAGES), plain.tokens(IMAGES))


def test_another_thread_is_not_taken_for_the_same_call(backbone):
    expected = backbone.tokens(IMAGES)
    found = {}

    def inside(module, args):
        if "other" not in found:
            found["other"] = None
            thread = threading.Thread(target=elsewhere)
            thread.start()
            thread.join()

    def elsewhere():
        with torch.no_grad():
            found["other"] = backbone.tokens(IMAGES)

    backbone.embed.register_forward_pre_hook(inside)
    backbone.tokens(IMAGES)
    assert torch.equal(found["other"], expected)


def test_after_an_error_views_are_run_again(backbone):
    expected = backbone.tokens(IMAGES)
    with pytest.raises(RuntimeError):
        backbone.tokens(IMAGES[:, :2])
    assert torch.equal(backbone.tokens(IMAGES), expected)


def bound(module):
    """A forward that calls another method with arguments of its own."""
    module.forward = functools.partial(module.maps, scale=0.5)
    return module


def test_a_bound_forward_is_ensembled_copied_and_given_back(plain):
    backbone = bound(Tokens().eval())
    before = backbone(IMAGES)["maps"]
    SRTWrapper(backbone, views=VIEWS)
    expected = SRTWrapper(plain, views=VIEWS).maps(IMAGES, 0.5)["maps"]
    assert torch.equal(backbone(IMAGES)["maps"], expected)
    twin = copy.deepcopy(backbone)
    assert twin.forward.func.__self__ is twin
    pickled = pickle.loads(pickle.dumps(backbone))
    assert pickled.forward.func.__self__ is pickled
    detach(backbone)
    assert type(backbone) is Tokens
    for copied in (twin, pickled):
        assert torch.equal(copied(IMAGES)["maps"], expected)
        assert torch.equal(detach(copied)(IMAGES)["maps"], before)
    assert torch.equal(backbone(IMAGES)["maps"], before)


def test_a_forward_bound_to_something_else_is_refused():
    for forward in (lambda images: images, functools.partial(Tokens().maps, scale=0.5)):
        backbone = Tokens().eval()
        backbone.forward = forward
        with pytest.raises(ConfigError, match="patched forward"):
            SRTWrapper(backbone)
        assert type(backbone) is Tokens
    backbone = Tokens().eval()
    backbone.forward = functools.partial(backbone.to, torch.float64)
    with pytest.raises(ConfigError, match="calls to"):
        SRTWrapper(backbone)


class Whole(nn.Module):
    def __init__(self, **parts):
        super().__init__()
        for name, part in parts.items():
            self.add_module(name, part)


def test_the_only_known_backbone_is_found_wherever_it_is(plain):
    model = Whole(stem=nn.Conv2d(3, 3, 1), inside=nn.ModuleDict({"deep": Whole(vit=plain)}))
    assert find_backbone(model) is plain
    assert attach(model, views=2) is model
    assert type(plain) is not Tokens and "SRTTokens" in repr(model)


def test_candidates_are_listed_with_their_types(plain):
    model = Whole(one=plain, two=nn.Sequential(Tokens()))
    with pytest.raises(AdapterError, match=r"\.one \(Tokens\), \.two\.0 \(Tokens\)"):
        attach(model)
    attach(model, target="two.0")
    assert type(model.two[0]) is not Tokens
    assert type(plain) is Tokens
    with srt_enabled(detach(model), target="one", stride=4):
        assert type(plain) is not Tokens
    with pytest.raises(ConfigError, match="'one' "):
        attach(model, target="three")
    with pytest.raises(AdapterError, match=r"\.conv \(Conv2d\)"):
        attach(Whole(conv=nn.Conv2d(3, 3, 1)))


def test_a_model_that_resizes_inside_is_told_so(plain):
    class Resizing(Tokens):
        def tokens(self, images, scale=1.0):
            return super().tokens(nn.functional.interpolate(images, (32, 56)), scale)

    backbone = SRTWrapper(Resizing().eval())
    with pytest.raises(AdapterError, match=r"3x5 \(stride 8\).*24x40.*resizes images by itself"):
        backbone.tokens(IMAGES)
