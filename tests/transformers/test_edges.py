"""How transformers' models are held, copied, saved and called, and ways to hold SRT wrongly."""

from __future__ import annotations

import copy
import json

import pytest

pytest.importorskip(
    "transformers", reason="needs transformers (pip install srt-plugins[transformers])"
)

import torch
import transformers
from torch import nn

from srt_plugins import AdapterError, ConfigError, SRTWrapper, attach, detach
from tests.contracts import same
from tests.transformers import models
from tests.transformers.backbones import BACKBONES, build, find, hiera, model
from tests.transformers.by_hand import flat
from tests.transformers.tiny import SWIN, config, dinov2, images, lively

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")
ASK = dict(output_hidden_states=True, output_attentions=True)


@torch.no_grad()
def run(module, image, **ask):
    return module(image, **ask)


@pytest.fixture
def base():
    return model("Dinov2Model", dinov2(num_hidden_layers=3))


@pytest.fixture
def depth():
    return models.depth_anything()


# --- saving, copies, precision -------------------------------------------------------------------


def test_saved_files_are_those_of_the_unwrapped_model(depth, tmp_path):
    image = images((61, 77))
    depth.save_pretrained(tmp_path / "plain")
    attach(depth, views=2)
    depth.save_pretrained(tmp_path / "wrapped")
    for name in ("config.json", "model.safetensors"):
        files = [(tmp_path / way / name).read_bytes() for way in ("plain", "wrapped")]
        assert files[0] == files[1]
    loaded = transformers.AutoModelForDepthEstimation.from_pretrained(
        tmp_path / "wrapped", attn_implementation="eager"
    )
    assert same(run(loaded, image), run(detach(depth), image))
    assert same(run(attach(loaded, views=2), image), run(attach(depth, views=2), image))


def test_a_wrapped_backbone_is_saved_under_its_own_name(base, tmp_path):
    SRTWrapper(base, views=2).save_pretrained(tmp_path)
    saved = json.loads((tmp_path / "config.json").read_text())
    assert saved["architectures"] == ["Dinov2Model"]
    loaded = transformers.AutoModel.from_pretrained(tmp_path)
    assert type(loaded).__name__ == "Dinov2Model" and not hasattr(loaded, "_srt")
    loaded.load_state_dict(base.state_dict())
    assert "SRTDinov2Model" in repr(base) and "SRT" not in repr(detach(base))


def test_copies_of_a_whole_model_keep_what_is_attached(depth):
    image = images((61, 77))
    attach(depth, views=2)
    expected = run(depth, image)
    other = copy.deepcopy(depth)
    detach(depth)
    assert same(run(other, image), expected)
    assert not same(run(depth, image), expected)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_precision_is_that_of_the_model(depth, dtype):
    image = images((61, 77)).to(dtype)
    expected = run(attach(depth, views=2), image.float()).predicted_depth
    depth.to(dtype)
    assert depth.dtype == dtype
    found = run(depth, image, output_hidden_states=True)
    assert all(tensor.dtype == dtype for tensor in flat(found).values())
    error = (found.predicted_depth.float() - expected).abs().mean() / expected.abs().mean()
    assert error < {torch.bfloat16: 0.05, torch.float16: 0.01}.get(dtype, 1e-5)


def test_inference_mode_and_autocast(depth):
    image = images((61, 77))
    expected = run(attach(depth, views=2), image).predicted_depth
    with torch.inference_mode():
        assert torch.equal(depth(image).predicted_depth, expected)
    with torch.autocast("cpu", torch.bfloat16):
        found = run(depth, image).predicted_depth
    with torch.autocast("cpu", torch.bfloat16):
        assert found.dtype == run(detach(depth), image).predicted_depth.dtype


# --- what is returned ----------------------------------------------------------------------------


def test_outputs_keep_their_type_fields_and_order(base):
    image = images((61, 77))
    plain = run(base, image, output_hidden_states=True)
    SRTWrapper(base, views=2)
    found = run(base, image, output_hidden_states=True)
    assert type(found) is type(plain) and list(found) == list(plain)
    assert found.attentions is None and "attentions" not in found
    assert found.hidden_states is found["hidden_states"]
    assert found[0] is found.last_hidden_state
    assert torch.equal(found.pooler_output, found.to_tuple()[1])
    assert isinstance(found.hidden_states, tuple) and len(found.hidden_states) == 4


@pytest.mark.parametrize("name", ["vit", "segformer", "resnet"])
@pytest.mark.parametrize("settings", [dict(), dict(layer=1), dict(outputs=["last_hidden_state"])])
def test_bare_tuples_are_the_named_outputs(name, settings):
    backbone, image = build(BACKBONES[name]), images((48, 48))
    ask = BACKBONES[name].ask
    plain = run(backbone, image, return_dict=False, **ask)
    SRTWrapper(backbone, views=3, **settings)
    named = run(backbone, image, **ask)
    found = run(backbone, image, return_dict=False, **ask)
    assert same(found, named.to_tuple())
    assert [t.shape for t in flat(found).values()] == [t.shape for t in flat(plain).values()]
    backbone.config.return_dict = False
    assert same(run(backbone, image, **ask), named.to_tuple())
    assert same(run(backbone, image, return_dict=True, **ask), named)


def test_some_hidden_states_only(base):
    image = images((61, 77))
    SRTWrapper(base, views=2)
    every = run(base, image, output_hidden_states=True).hidden_states
    some = run(base, image, output_hidden_states=[1, -1]).hidden_states
    assert [s is None for s in some] == [True, False, True, False]
    assert torch.equal(some[1], every[1]) and torch.equal(some[3], every[3])


def test_images_by_name_and_settings_of_the_model(base):
    image = images((61, 77))
    SRTWrapper(base, views=2)
    expected = run(base, image, output_hidden_states=True)
    with torch.no_grad():
        assert same(base(pixel_values=image, output_hidden_states=True), expected)
        base.config.output_hidden_states = True
        assert same(base(image), expected)
        with pytest.raises(ConfigError, match="only tensor that Dinov2Model takes"):
            base(image, bool_masked_pos=torch.zeros(1, 20, dtype=torch.bool))


def test_outputs_that_are_named_alone_are_ensembled(base):
    image = images((61, 77))
    plain = run(base, image, **ASK)
    every = run(SRTWrapper(base, views=2), image, **ASK)
    found = run(SRTWrapper(base, views=2, outputs=["pooler_output"]), image, **ASK)
    for path, tensor in flat(found).items():
        other = every if path[0] == "pooler_output" else plain
        torch.testing.assert_close(tensor, flat(other)[path])
    SRTWrapper(base, views=2, outputs=["attentions"])
    with pytest.raises(ConfigError, match="name features"):
        run(base, image, **ASK)


def test_tokens_that_are_in_no_raster_order_are_refused_or_left_alone():
    backbone = hiera("HieraModel")
    image, ask = images((64, 96)), dict(output_hidden_states=True)
    plain = run(backbone, image, **ask)
    SRTWrapper(backbone, views=2)
    with pytest.raises(AdapterError, match=r"raster order.*'hidden_states'.*outputs="):
        run(backbone, image, **ask)
    SRTWrapper(backbone, views=2, outputs=["reshaped_hidden_states"])
    found = run(backbone, image, **ask)
    for path, tensor in flat(found).items():
        assert torch.equal(tensor, flat(plain)[path]) is (path[0] != "reshaped_hidden_states")
    with pytest.raises(ConfigError, match="layer=None"):
        SRTWrapper(backbone, views=2, layer=0)


# --- sizes ---------------------------------------------------------------------------------------


def test_the_librarys_own_error_for_a_size_comes_out_and_leaves_nothing_behind():
    backbone, image = build(BACKBONES["vit"]), images((48, 48))
    for settings in (dict(), dict(layer=1)):
        SRTWrapper(backbone, views=2, **settings)
        expected = run(backbone, image)
        with pytest.raises(ValueError, match=r"image size \(64\*48\) doesn't match model"):
            run(backbone, images((64, 48)))
        assert same(run(backbone, image), expected)
        found = run(backbone, images((64, 48)), interpolate_pos_encoding=True)
        assert found.last_hidden_state.shape[1] == 1 + 8 * 6
        detach(backbone)
    assert "forward" not in vars(backbone)


class Resizing(find("Dinov2Model")):
    """A model with its processor inside: images of any size become one size."""

    size = (56, 56)

    def forward(self, pixel_values, **keywords):
        return super().forward(nn.functional.interpolate(pixel_values, self.size), **keywords)


class ResizingSwin(find("SwinBackbone")):
    def forward(self, pixel_values, **keywords):
        return super().forward(nn.functional.interpolate(pixel_values, (48, 48)), **keywords)


class ResizingMaps(nn.Module):
    """Of no known family."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 8, 8)

    def forward(self, x):
        return self.conv(nn.functional.interpolate(x, (48, 48)))


@pytest.mark.parametrize("size", [(61, 77), (112, 112)])  # 112 is twice the size inside
def test_a_model_that_resizes_by_itself_is_told_what_to_wrap(size):
    resizing = lively(Resizing(dinov2(num_hidden_layers=1)))
    SRTWrapper(resizing, views=2)
    with pytest.raises(AdapterError, match=rf"image of {size[0]}x{size[1]}.*\(1, 17, 16\)") as told:
        run(resizing, images(size))
    assert "part after the resizing" in str(told.value)


def test_a_pyramid_that_resizes_by_itself_is_found_out_by_its_strides():
    # Half the size inside: maps of strides 4 and 8 look like those of 8 and 16.
    settings = config("Swin", **SWIN, out_indices=[1, 2])
    swin = SRTWrapper(lively(ResizingSwin(settings)), views=2)
    with pytest.raises(AdapterError, match=r"24x24 \(stride 4\).*96x96.*after the resizing"):
        run(swin, images((96, 96)))


def test_an_unknown_model_that_resizes_by_itself_is_refused():
    maps = SRTWrapper(ResizingMaps().eval(), views=2)
    for size in ((96, 96), (61, 77)):
        with pytest.raises(AdapterError, match=rf"one stride for both axes.*{size[0]}x{size[1]}"):
            run(maps, images(size))
