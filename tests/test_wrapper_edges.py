"""Modules and calls that do unusual things."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from srt_plugins import AdapterError, ConfigError, SRTWrapper, attach, detach, srt_enabled
from srt_plugins.core.views import Views
from tests.toys import Model, PatchBackbone

IMAGES = torch.randn(2, 3, 24, 40, generator=torch.Generator().manual_seed(1))


@pytest.fixture(autouse=True)
def no_gradients():
    with torch.no_grad():
        yield


class Reduced(PatchBackbone):
    """Pickles itself its own way."""

    def __reduce__(self):
        return (_restore, (self.patch, self.state_dict()))


def _restore(patch, weights):
    made = Reduced(patch)
    made.load_state_dict(weights)
    return made.eval()


class Stateful(PatchBackbone):
    """Saves what it knows of, in a form of its own."""

    def __getstate__(self):
        return {"known": {k: v for k, v in self.__dict__.items() if k in vars(PatchBackbone())}}

    def __setstate__(self, state):
        self.__dict__.update(state["known"])


@pytest.mark.parametrize("cls", [Reduced, Stateful])
def test_classes_with_pickling_of_their_own(cls):
    backbone = SRTWrapper(cls(8).eval(), level=2)
    twin = copy.deepcopy(backbone)
    assert torch.equal(twin(IMAGES), backbone(IMAGES))
    assert type(detach(twin)) is cls


def test_a_shallow_copy_has_settings_of_its_own():
    backbone = SRTWrapper(PatchBackbone().eval(), level=2)
    expected = backbone(IMAGES)
    SRTWrapper(copy.copy(backbone), level=0)
    assert torch.equal(backbone(IMAGES), expected)


def test_parts_that_a_wrapped_container_makes_of_itself_are_plain():
    backbone = nn.Sequential(nn.Conv2d(3, 4, 8, 8), nn.Tanh()).eval()
    part = backbone[:1](IMAGES)
    SRTWrapper(backbone)
    assert torch.equal(backbone[:1].eval()(IMAGES), part)


def test_a_class_changed_after_wrapping_is_not_half_undone():
    model = attach(Model().eval())
    nn.utils.parametrize.register_parametrization(model.backbone, "position", nn.Identity())
    with pytest.raises(ConfigError, match="undo that first"):
        detach(model)
    nn.utils.parametrize.remove_parametrizations(model.backbone, "position")
    assert type(detach(model).backbone) is PatchBackbone


def test_traced_graphs_are_refused():
    with pytest.raises(ConfigError, match="traced graph"):
        SRTWrapper(torch.fx.symbolic_trace(nn.Sequential(nn.Conv2d(3, 4, 8, 8))))


class Pooled(PatchBackbone):
    def forward(self, images):
        tokens = super().forward(images)
        return [tokens, tokens.mean((2, 3), keepdim=True)]


def test_a_pooled_map_is_averaged_and_does_not_set_the_patch():
    backbone = SRTWrapper(Pooled(8).eval())
    tokens, pooled = backbone(torch.randn(1, 3, 224, 224))
    assert tokens.shape[2:] == (28, 28) and pooled.shape[2:] == (1, 1)
    assert backbone._srt.views().level == 4


class Mask(PatchBackbone):
    def forward(self, images):
        return super().forward(images) > 0


class Fixed(PatchBackbone):
    """A map that does not depend on the batch."""

    def forward(self, images):
        tokens = super().forward(images)
        return tokens, tokens[:1]


class Box:
    def __init__(self, tokens):
        self.tokens = tokens


class Boxed(PatchBackbone):
    def forward(self, images):
        return {"tokens": super().forward(images), "box": Box(super().forward(images))}


@pytest.mark.parametrize(
    ("backbone", "said"),
    [(Mask(8), "floating-point"), (Fixed(8), "as many entries"), (Boxed(8), "a Box that holds")],
)
def test_outputs_that_cannot_be_averaged_are_refused(backbone, said):
    with pytest.raises(AdapterError, match=said):
        SRTWrapper(backbone.eval(), view_batch=4)(IMAGES)


class Masked(PatchBackbone):
    def forward(self, images, mask=None):
        return super().forward(images if mask is None else images * mask)


def test_other_tensors_would_not_be_translated():
    backbone = SRTWrapper(Masked(8).eval())
    for call in (lambda: backbone(IMAGES, IMAGES[:1]), lambda: backbone(IMAGES, mask=IMAGES[:1])):
        with pytest.raises(ConfigError, match="only tensor"):
            call()


class InPlace(PatchBackbone):
    def forward(self, images):
        return super().forward(images.mul_(2))


def test_backbones_that_work_in_place_on_their_input():
    images = IMAGES[:1, :1].expand(-1, 3, -1, -1).contiguous()
    got = [SRTWrapper(InPlace(8).eval(), views=3, view_batch=n)(images.clone()) for n in (1, 3)]
    torch.testing.assert_close(got[0], got[1])


def test_median_under_autocast_is_exact():
    class Constant(nn.Module):
        def forward(self, images):
            return nn.functional.avg_pool2d(images, 7) * 0 + 3.3

    images = torch.zeros(1, 3, 21, 35)
    backbone = SRTWrapper(Constant().eval(), views=[(0, 0), (3, 2), (-2, 3)], statistic="median")
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert (backbone(images) - 3.3).abs().max() < 1e-5


@pytest.mark.parametrize(
    ("keywords", "said"),
    [
        ({"outputs": [0], "layer": 1}, "outputs=None with layer"),
        ({"outputs": [1.5]}, "indices or names"),
        ({"views": Views(((0, 0), (4, 4)), (1.0,))}, "one weight per view"),
        ({"views": Views(((0, 0), (4, 4)), (1.0, -0.5))}, "positive weight"),
    ],
)
def test_more_bad_settings(keywords, said):
    with pytest.raises(ConfigError, match=said):
        SRTWrapper(PatchBackbone().eval(), **keywords)


def test_the_median_takes_no_weights():
    views = [(0, 0, 2.0), (4, 4, 1.0)]
    with pytest.raises(ConfigError, match="equal weight"):
        SRTWrapper(PatchBackbone().eval(), views=views, statistic="median")(IMAGES)


def test_a_typo_is_found_where_nothing_is_wrapped():
    with pytest.raises(ConfigError, match="'level'"), srt_enabled(Model(), False, levle=1):
        pass


def test_detaching_inside_srt_enabled():
    model = attach(Model().eval())
    with srt_enabled(model, level=1):
        detach(model)
    assert type(model.backbone) is PatchBackbone


def test_shapes_without_numbers():
    model = attach(Model()).eval().to("meta")
    expected = detach(copy.deepcopy(model))(IMAGES.to("meta"))
    assert model(IMAGES.to("meta")).shape == expected.shape
