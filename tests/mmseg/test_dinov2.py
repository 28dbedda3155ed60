"""The DINOv2 backbone: released checkpoints by key, position tables, sizes, outputs."""

from __future__ import annotations

import copy
import re
import subprocess
import sys

import numpy as np
import pytest
import torch

pytest.importorskip("timm", reason="the backbone is built on timm")

from mmengine.runner.checkpoint import load_state_dict as mmengine_load
from mmseg.registry import MODELS
from timm.models.vision_transformer import VisionTransformer, checkpoint_filter_fn

from srt_plugins.errors import CheckpointError, ConfigError, MissingDependencyError
from srt_plugins.mmseg import DINOv2, dinov2
from srt_plugins.mmseg.dinov2_weights import to_dinov2
from tests.mmseg.dinov2 import SIZES, TINY, TINY_SHAPE, backbone_shapes, hollow, random
from tests.mmseg.tiny import images

# What the "meta" device is for.
pytestmark = pytest.mark.filterwarnings("ignore:.*copying from a non-meta parameter")


def tiny(**keywords):
    return MODELS.build({**TINY, **keywords})


def saved(path, shapes, make=random, **wrap):
    state = make(shapes)
    torch.save({**wrap, "state_dict": state} if wrap else state, path)
    return str(path)


@pytest.fixture
def weights(tmp_path):
    return saved(tmp_path / "tiny.pth", backbone_shapes(**TINY_SHAPE))


@pytest.mark.parametrize("registers", [0, 4])
@pytest.mark.parametrize("arch", SIZES)
def test_released_checkpoints_fit_key_for_key(tmp_path, arch, registers):
    shapes = backbone_shapes(**SIZES[arch], registers=registers)
    path = saved(tmp_path / "official.pth", shapes, hollow)
    assert (tmp_path / "official.pth").stat().st_size < 1e6
    with torch.device("meta"):  # nothing of that size is ever in memory
        model = DINOv2(arch, registers=registers, checkpoint=path)
    assert model.is_init
    back = {key: tuple(value.shape) for key, value in to_dinov2(model.state_dict()).items()}
    assert back == shapes
    assert sum(p.numel() for p in model.parameters()) == sum(
        int(np.prod(shape)) for key, shape in shapes.items() if key != "mask_token"
    )


def test_a_checkpoint_of_another_model_is_refused_by_name(tmp_path):
    path = saved(tmp_path / "b.pth", backbone_shapes(**SIZES["vitb14"]), hollow)
    with torch.device("meta"), pytest.raises(CheckpointError, match=r"'vitb14', img_size=518"):
        DINOv2("vits14", checkpoint=path)
    path = saved(tmp_path / "s.pth", backbone_shapes(**SIZES["vits14"], registers=4), hollow)
    with torch.device("meta"), pytest.raises(CheckpointError, match=r"'vits14', registers=4"):
        DINOv2("vits14", checkpoint=path)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda s: s.pop("blocks.1.ls2.gamma"), r"missing: 'blocks\.1\.ls2\.gamma'"),
        (lambda s: s.update(head=torch.ones(1)), "unexpected: 'head'"),
        (
            lambda s: s.update({"norm.bias": torch.ones(7)}),
            r"another shape: 'norm\.bias' \(7,\) instead of \(16,\)",
        ),
    ],
)
def test_missing_unexpected_and_misshapen_keys_are_refused(tmp_path, change, named):
    state = random(backbone_shapes(**TINY_SHAPE))
    change(state)
    torch.save(state, tmp_path / "bad.pth")
    model = tiny()
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(CheckpointError, match=named):
        model.load_checkpoint(tmp_path / "bad.pth")
    assert not model.is_init
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


def test_unreadable_checkpoints_are_refused(tmp_path):
    with pytest.raises(ConfigError, match="Expected checkpoint to be a file or a URL"):
        tiny(checkpoint=str(tmp_path / "none.pth"))
    (tmp_path / "text.pth").write_text("no checkpoint")
    torch.save([1, 2], tmp_path / "list.pth")
    torch.save({"state_dict": {}, "hook": subprocess.run}, tmp_path / "code.pth")
    for name in ("text", "list", "code"):
        with pytest.raises(CheckpointError, match=f"{name}.pth to be a checkpoint of plain"):
            tiny(checkpoint=str(tmp_path / f"{name}.pth"))


def test_a_url_is_read_from_the_cache_of_torch_hub(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    (tmp_path / "hub" / "checkpoints").mkdir(parents=True)
    saved(tmp_path / "hub" / "checkpoints" / "tiny.pth", backbone_shapes(**TINY_SHAPE))
    assert tiny(checkpoint="http://localhost:9/some/where/tiny.pth").is_init
    with pytest.raises(CheckpointError, match=r"other\.pth: .*or put it at .*other\.pth"):
        tiny(checkpoint="http://localhost:9/some/where/other.pth")  # a port that nobody serves
    assert not (tmp_path / "hub" / "checkpoints" / "other.pth").exists()


def test_the_backbone_is_taken_from_the_checkpoint_of_a_whole_model(tmp_path):
    state = random(backbone_shapes(**TINY_SHAPE))
    whole = {f"backbone.{key}": value for key, value in state.items()}
    whole["decode_head.conv_seg.bias"] = torch.zeros(3)
    torch.save({"meta": {}, "state_dict": whole}, tmp_path / "whole.pth")
    model = tiny(checkpoint=str(tmp_path / "whole.pth"))
    own = model.state_dict()
    assert all(torch.equal(own[key], state[key]) for key in own)


@pytest.mark.parametrize("registers", [0, 2])
@pytest.mark.parametrize("load", ["torch", "mmengine"])
def test_whole_models_load_with_official_names_and_with_their_own(load, registers):
    shapes = backbone_shapes(**{**TINY_SHAPE, "gated": True}, registers=registers)
    official = random(shapes)
    model = torch.nn.ModuleDict({"backbone": tiny(swiglu=True, registers=registers)})
    state = {f"backbone.{key}": value for key, value in official.items()}
    for given in (state, copy.deepcopy(model.state_dict())):
        kept = dict(given)
        if load == "torch":
            model.load_state_dict(given, strict=True)
        else:
            mmengine_load(model, given, strict=True)
        assert set(given) == set(kept)  # the caller's own dict stays as it is
        model.load_state_dict(state, strict=True)
        own = to_dinov2(model.backbone.state_dict())
        assert set(own) == set(official)
        assert all(torch.equal(own[k], official[k]) for k in own if k != "mask_token")


@pytest.mark.parametrize("norm", [True, False])
@pytest.mark.parametrize("registers", [0, 2])
def test_features_are_those_of_timms_own_conversion(weights, tmp_path, registers, norm):
    path = saved(tmp_path / "r.pth", backbone_shapes(**TINY_SHAPE, registers=registers))
    ours = tiny(
        registers=registers,
        checkpoint=path,
        out_indices=(0, -1),
        output_cls_token=True,
        final_norm=norm,
    ).eval()
    theirs = VisionTransformer(
        img_size=56,
        patch_size=14,
        embed_dim=16,
        depth=3,
        num_heads=2,
        num_classes=0,
        init_values=1.0,
        reg_tokens=registers,
        no_embed_class=bool(registers),
    ).eval()
    theirs.load_state_dict(checkpoint_filter_fn(torch.load(path), theirs), strict=True)
    image = images((56, 56), batch=2)
    with torch.no_grad():
        found = ours(image)
        expected = theirs.forward_intermediates(
            image, indices=[0, 2], norm=norm, intermediates_only=True, return_prefix_tokens=True
        )
    assert isinstance(found, tuple) and all(isinstance(pair, list) for pair in found)
    for (grid, token), (their_grid, prefix) in zip(found, expected):
        torch.testing.assert_close(grid, their_grid, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(token, prefix[:, 0], rtol=1e-5, atol=1e-5)


def cubic(x, a):
    """Keys' cubic convolution kernel."""
    x = abs(x)
    if x <= 1:
        return (a + 2) * x**3 - (a + 3) * x**2 + 1
    return a * x**3 - 5 * a * x**2 + 8 * a * x - 4 * a if x < 2 else 0.0


def plain_weights(source, cells, scale):
    """(cells, source): bicubic samples at (i + 0.5) / scale - 0.5, edge samples repeated."""
    matrix = np.zeros((cells, source))
    for i in range(cells):
        at = (i + 0.5) / scale - 0.5
        first = int(np.floor(at))
        for k in range(first - 1, first + 3):
            matrix[i, min(max(k, 0), source - 1)] += cubic(at - k, -0.75)
    return matrix


def antialiased_weights(source, cells):
    """(cells, source): the kernel widened where the table shrinks, cut off at the edge."""
    step = source / cells
    wide = max(step, 1.0)
    matrix = np.zeros((cells, source))
    for i in range(cells):
        at = (i + 0.5) * step
        row = [cubic((k + 0.5 - at) / wide, -0.5) for k in range(source)]
        row = [w if abs(k + 0.5 - at) < 2 * wide else 0.0 for k, w in enumerate(row)]
        matrix[i] = np.array(row) / sum(row)
    return matrix


@pytest.mark.parametrize("shape", [(4, 4), (3, 7), (4, 5), (2, 3), (9, 4)])
@pytest.mark.parametrize("registers", [0, 2])
def test_position_tables_are_interpolated_as_dinov2_does(registers, shape):
    model = tiny(registers=registers)
    torch.nn.init.normal_(model.pos_embed)
    table = model._table(*shape)[0].detach().numpy()
    rows = model.pos_embed[0].detach().double().numpy()
    grid = rows[1:].reshape(4, 4, 16)
    if shape != (4, 4):
        if registers:
            y, x = (antialiased_weights(4, n) for n in shape)
        else:
            y, x = (plain_weights(4, n, (n + 0.1) / 4) for n in shape)
        grid = np.einsum("iy,jx,yxc->ijc", y, x, grid)
    np.testing.assert_array_equal(table[0], rows[0].astype(np.float32))
    np.testing.assert_allclose(table[1:], grid.reshape(-1, 16), atol=2e-5)


def test_registers_have_no_position_and_stand_behind_the_class_token():
    model = tiny(registers=2)
    torch.nn.init.normal_(model.reg_token)
    patches = torch.randn(2, 3, 4, 16)
    tokens = model._pos_embed(patches)
    table = model._table(3, 4)
    assert tokens.shape == (2, 1 + 2 + 12, 16)
    assert torch.equal(tokens[:, 0], (model.cls_token[:, 0] + table[:, 0]).expand(2, -1))
    assert torch.equal(tokens[:, 1:3], model.reg_token.expand(2, -1, -1))
    assert torch.equal(tokens[:, 3:], patches.flatten(1, 2) + table[:, 1:])


@pytest.mark.parametrize("size", [(61, 77), (28, 29), (43, 56)])
def test_partial_patches_are_completed_on_both_sides(weights, size):
    model = tiny(checkpoint=weights, pad=True).eval()
    image = images(size)
    full = [-(-n // 14) * 14 for n in size]
    padded = torch.zeros(1, 3, *full)
    top, left = ((n - m) // 2 for n, m in zip(full, size))
    padded[:, :, top : top + size[0], left : left + size[1]] = image
    with torch.no_grad():
        (found,), (expected,) = model(image), model(padded)
    assert found.shape[-2:] == (full[0] // 14, full[1] // 14)
    assert torch.equal(found, expected)
    with pytest.raises(ConfigError, match=r"whole patches.*size_divisor=14"):
        tiny(checkpoint=weights)(image)


def test_outputs_are_named_in_any_way_and_come_in_the_order_of_the_blocks(weights):
    image = images((28, 42))
    with torch.no_grad():
        every = tiny(checkpoint=weights, out_indices=(0, 1, 2), final_norm=False).eval()(image)
        some = tiny(checkpoint=weights, out_indices=(-1, 1), final_norm=False).eval()(image)
    assert [g.shape for g in every] == [(1, 16, 2, 3)] * 3
    assert torch.equal(some[0], every[1]) and torch.equal(some[1], every[2])


@pytest.mark.parametrize(
    ("keywords", "named"),
    [
        (dict(arch="vits16"), r"arch.*'vits14'.*got 'vits16'"),
        (dict(out_indices=()), r"out_indices.*3 blocks"),
        (dict(out_indices=(1, 3)), r"out_indices.*3 blocks.*\(1, 3\)"),
        (dict(frozen_stages=4), r"frozen_stages in -1 \.\. 3, got 4"),
    ],
)
def test_wrong_arguments_are_named(keywords, named):
    with pytest.raises(ConfigError, match=named):
        tiny(**keywords)


def test_frozen_stages_neither_train_nor_drop(weights):
    model = tiny(checkpoint=weights, frozen_stages=2, drop_path_rate=0.5)
    assert model.train() is model and model.eval() is model
    model.train()
    assert model.training and model.blocks[2].training
    assert not any(m.training for block in model.blocks[:2] for m in block.modules())
    free = {name for name, p in model.named_parameters() if p.requires_grad}
    assert all(name.startswith(("blocks.2.", "norm.")) for name in free) and free
    whole = tiny(frozen_stages=3, registers=1)
    assert not any(p.requires_grad for p in whole.parameters())
    assert all(p.requires_grad for p in tiny().parameters())


def test_mmengine_initialises_only_what_no_checkpoint_brought(weights):
    model = tiny(checkpoint=weights)
    before = copy.deepcopy(model.state_dict())
    model.init_weights()
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    fresh = tiny()
    before = copy.deepcopy(fresh.state_dict())
    fresh.init_weights()
    assert not torch.equal(fresh.blocks[0].attn.qkv.weight, before["blocks.0.attn.qkv.weight"])


def test_every_parameter_has_a_gradient():
    model = tiny(registers=2, output_cls_token=True).train()
    ((grid, token),) = model(images((42, 28)))
    (grid.sum() + token.square().sum()).backward()
    assert all(p.grad is not None for p in model.parameters())


def test_without_timm_building_says_what_to_install(monkeypatch):
    monkeypatch.setattr(dinov2, "VisionTransformer", None)
    with pytest.raises(MissingDependencyError, match=re.escape('pip install "srt-plugins[timm]"')):
        DINOv2("vitg14")


def test_the_plugin_imports_without_timm():
    code = (
        "import sys; sys.modules['timm'] = None\n"
        "import srt_plugins.mmseg as plugin\n"
        "try: plugin.DINOv2('vits14')\n"
        "except ImportError as error: print(type(error).__name__)\n"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert ran.stdout.split() == ["MissingDependencyError"], ran.stderr[-2000:]
