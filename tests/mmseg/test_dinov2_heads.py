"""DINOv2's heads: released checkpoints by key, arithmetic against loops, loss and range."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from mmengine.runner.checkpoint import load_state_dict as mmengine_load
from mmengine.structures import PixelData
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample

from srt_plugins.errors import CheckpointError, ConfigError
from srt_plugins.mmseg.depth_head import bin_centres, expected_depth
from tests.mmseg.dinov2 import (
    SIZES,
    dpt_shapes,
    hollow,
    linear_depth_shapes,
    linear_seg_shapes,
    random,
)

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*copying from a non-meta parameter"),
    pytest.mark.filterwarnings("ignore:.*build_loss"),
]

HEADS = {
    "linear": lambda c: (depth_head([c]), linear_depth_shapes(c, 1)),
    "linear4": lambda c: (depth_head([c] * 4), linear_depth_shapes(c, 4)),
    "dpt": lambda c: (dict(type="DINOv2DPTDepthHead", embed_dims=c), dpt_shapes(c)),
    "ade20k_linear": lambda c: (seg_head([c], 150), linear_seg_shapes(c, 1, 150)),
    "ade20k_ms": lambda c: (seg_head([c] * 4, 150), linear_seg_shapes(c, 4, 150)),
    "voc2012_linear": lambda c: (seg_head([c], 21), linear_seg_shapes(c, 1, 21)),
    "voc2012_ms": lambda c: (seg_head([c] * 4, 21), linear_seg_shapes(c, 4, 21)),
}


def depth_head(channels, **keywords):
    return dict(type="DINOv2LinearDepthHead", in_channels=channels, **keywords)


def seg_head(channels, classes):
    return dict(type="DINOv2LinearHead", in_channels=channels, num_classes=classes)


def build(config):
    return MODELS.build(config).eval()


def model_of(config):
    """A module whose head has the prefix of the released files."""
    return torch.nn.ModuleDict({"decode_head": MODELS.build(config)})


def pairs(channels, size=(3, 5), count=4, seed=0):
    """Maps with class tokens, as the backbone gives them."""
    generator = torch.Generator().manual_seed(seed)
    return [
        [
            torch.randn(2, channels, *size, generator=generator),
            torch.randn(2, channels, generator=generator),
        ]
        for _ in range(count)
    ]


@pytest.mark.parametrize("arch", SIZES)
@pytest.mark.parametrize("kind", HEADS)
@pytest.mark.parametrize("load", ["torch", "mmengine"])
def test_released_heads_fit_key_for_key(kind, arch, load):
    config, shapes = HEADS[kind](SIZES[arch]["width"])
    with torch.device("meta"):
        model = model_of(config)
    state = hollow(shapes)
    if load == "torch":
        model.load_state_dict(state, strict=True)
    else:
        mmengine_load(model, state, strict=True)
    assert {k: tuple(v.shape) for k, v in model.state_dict().items()} == shapes


@pytest.mark.parametrize("kind", HEADS)
@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda s, k: s.pop(k), "missing: '{}'"),
        (lambda s, k: s.update({k: torch.ones(7)}), "another shape: '{}' \\(7,\\)"),
        (lambda s, k: s.update({"decode_head.other": torch.ones(7)}), "unexpected: 'other'"),
    ],
    ids=["missing", "misshapen", "unexpected"],
)
def test_heads_load_whole_or_not_at_all(kind, change, named):
    config, shapes = HEADS[kind](16)
    model, state = model_of(config), random(shapes)
    last = next(k for k in reversed(shapes) if "tracked" not in k)
    change(state, last)
    before = [p.clone() for p in model.parameters()]
    named = named.format(last[len("decode_head.") :].replace(".", r"\."))
    for load in (lambda: model.load_state_dict(state), lambda: mmengine_load(model, state)):
        with pytest.raises(CheckpointError, match=rf"'decode_head\.' keys.*{named}"):
            load()
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters()))
    mmengine_load(model, {})  # a backbone's checkpoint says nothing of the head


def depth_by_loop(logits, centres, normalisation):
    """Mean depth of one pixel, in double precision."""
    if normalisation == "linear":
        weights = [max(x, 0.0) + 0.1 for x in logits]
    elif normalisation == "softmax":
        weights = [math.exp(x) for x in logits]
    else:
        weights = [1 / (1 + math.exp(-x)) for x in logits]
    return sum(w * c for w, c in zip(weights, centres)) / sum(weights)


@pytest.mark.parametrize("normalisation", ["linear", "softmax", "sigmoid"])
@pytest.mark.parametrize("strategy", ["UD", "SID"])
def test_bins_are_read_as_a_mean_depth(strategy, normalisation):
    count, low, high = 7, 0.5, 32.0
    if strategy == "UD":
        centres = [low + (high - low) * i / (count - 1) for i in range(count)]
    else:
        centres = [low * (high / low) ** (i / (count - 1)) for i in range(count)]
    found = bin_centres(count, low, high, strategy)
    assert found.dtype == torch.float32
    np.testing.assert_allclose(found.numpy(), centres, rtol=1e-6)
    logits = torch.randn(2, count, 3, 4) * 3
    depth = expected_depth(logits, found, normalisation)
    assert depth.shape == (2, 1, 3, 4)
    for b in range(2):
        for y in range(3):
            for x in range(4):
                expected = depth_by_loop(logits[b, :, y, x].tolist(), centres, normalisation)
                assert depth[b, 0, y, x].item() == pytest.approx(expected, rel=1e-5)


def enlarged(grid, factor):
    """Bilinear enlargement of (C, h, w) by loops, samples at pixel centres, edges repeated."""
    c, h, w = grid.shape
    out = np.zeros((c, h * factor, w * factor))
    for y in range(h * factor):
        for x in range(w * factor):
            sy, sx = (max((n + 0.5) / factor - 0.5, 0) for n in (y, x))
            y0, x0 = min(int(sy), h - 1), min(int(sx), w - 1)
            y1, x1 = min(y0 + 1, h - 1), min(x0 + 1, w - 1)
            fy, fx = min(sy - y0, 1.0), min(sx - x0, 1.0)
            top = grid[:, y0, x0] * (1 - fx) + grid[:, y0, x1] * fx
            bottom = grid[:, y1, x0] * (1 - fx) + grid[:, y1, x1] * fx
            out[:, y, x] = top * (1 - fy) + bottom * fy
    return out


@pytest.mark.parametrize("layers", [1, 4])
@pytest.mark.parametrize("classify", [True, False])
def test_linear_depth_is_bins_of_enlarged_tokens_with_class_tokens(layers, classify):
    """In DINOv2's order: enlarge, then convolve."""
    head = build(depth_head([6] * layers, n_bins=9, classify=classify, min_depth=1, max_depth=5))
    state = random(linear_depth_shapes(6, layers, 9 if classify else 1))
    model = torch.nn.ModuleDict({"decode_head": head})
    model.load_state_dict(state, strict=True)
    inputs = pairs(6, count=layers)
    found = head(inputs)
    assert found.shape == (2, 1, 12, 20) and found.dtype == torch.float32
    weight = head.conv_depth.weight[..., 0, 0].detach().double().numpy()
    bias = head.conv_depth.bias.detach().double().numpy()
    for b in range(2):
        columns = []
        for grid, token in inputs:
            wide = np.broadcast_to(token[b].numpy()[:, None, None], (6, 3, 5))
            columns.append(enlarged(np.concatenate([grid[b].double().numpy(), wide]), 4))
        scores = np.einsum("oc,cyx->oyx", weight, np.concatenate(columns)) + bias[:, None, None]
        centres = np.linspace(1, 5, 9)
        for y in range(0, 12, 5):
            for x in range(0, 20, 3):
                if classify:
                    expected = depth_by_loop(scores[:, y, x], centres, "linear")
                else:
                    expected = max(scores[0, y, x], 0) + 1
                assert found[b, 0, y, x].item() == pytest.approx(expected, rel=1e-5)


def test_dpt_depth_is_sixteen_times_the_token_grid_and_uses_class_tokens():
    head = build(
        dict(
            type="DINOv2DPTDepthHead",
            embed_dims=16,
            post_process_channels=[4, 6, 8, 10],
            channels=8,
            hidden_channels=4,
        )
    )
    shapes = dpt_shapes(16, channels=8, stages=[4, 6, 8, 10], hidden=4)
    torch.nn.ModuleDict({"decode_head": head}).load_state_dict(random(shapes), strict=True)
    torch.nn.init.constant_(head.conv_depth.head[-1].bias, 2.0)
    inputs = pairs(16, size=(4, 6))
    with torch.no_grad():
        depth = head(inputs)
        assert depth.shape == (2, 1, 64, 96)
        assert (depth >= head.min_depth).all() and depth.std() > 0
        for i in range(4):
            changed = [[grid, token.clone()] for grid, token in inputs]
            changed[i][1] += 1
            assert not torch.equal(head(changed), depth)
        head.scale_up = True
        assert ((head(inputs) > 0) & (head(inputs) < head.max_depth)).all()


@pytest.mark.parametrize("kind", ["linear", "dpt"])
def test_maps_without_class_tokens_are_refused(kind):
    head = MODELS.build(HEADS[kind](16)[0])
    with pytest.raises(ConfigError, match="got Tensor. Set output_cls_token=True"):
        head([grid for grid, _ in pairs(16)])


@pytest.mark.parametrize("layers", [1, 4])
def test_linear_segmentation_is_batch_norm_and_one_matrix(layers):
    head = build(seg_head([6] * layers, 5))
    state = random(linear_seg_shapes(6, layers, 5))
    torch.nn.ModuleDict({"decode_head": head}).load_state_dict(state, strict=True)
    inputs = [grid for grid, _ in pairs(6, count=layers)]
    found = head(inputs).detach().numpy()
    own = {k[len("decode_head.") :]: v.double().numpy() for k, v in state.items()}
    tokens = torch.cat(inputs, 1).double().numpy()
    for b, y, x in [(0, 0, 0), (1, 2, 4), (1, 1, 3)]:
        normed = tokens[b, :, y, x] - own["bn.running_mean"]
        normed = normed / np.sqrt(own["bn.running_var"] + 1e-5) * own["bn.weight"]
        logits = own["conv_seg.weight"][..., 0, 0] @ (normed + own["bn.bias"])
        np.testing.assert_allclose(found[b, :, y, x], logits + own["conv_seg.bias"], atol=1e-5)


def sample(depth):
    return SegDataSample(gt_depth_map=PixelData(data=torch.as_tensor(depth)[None]))


def silog_by_loop(found, truth, low, high):
    """MMSegmentation's loss of one image, over valid pixels only."""
    logs = [
        math.log(t) - math.log(f)
        for f, t in zip(found.flatten().tolist(), truth.flatten().tolist())
        if low <= t <= high
    ]
    square = sum(d * d for d in logs) / len(logs)
    return math.sqrt(square - 0.5 * (sum(logs) / len(logs)) ** 2)


def test_loss_is_over_pixels_of_a_depth_within_the_range():
    head = MODELS.build(depth_head([6], n_bins=9, min_depth=0.5, max_depth=20.0))
    truth = torch.rand(3, 12, 20) * 30 + 0.5
    truth[0, :4] = 0
    truth[1] = 0  # sky only
    truth[2, 5, 5] = math.inf
    assert (truth > 20).any()
    depth = (torch.rand(3, 1, 12, 20) * 25 + 0.1).requires_grad_()
    losses = head.loss_by_feat(depth, [sample(t) for t in truth])
    assert list(losses) == ["loss_silog"]
    expected = [silog_by_loop(depth[i, 0], truth[i], 0.5, 20.0) for i in (0, 2)]
    assert losses["loss_silog"].item() == pytest.approx(np.mean(expected), rel=1e-5)
    losses["loss_silog"].backward()
    assert depth.grad.isfinite().all()
    valid = (truth >= 0.5) & (truth <= 20)
    assert torch.equal(depth.grad[:, 0] != 0, valid)

    nothing = head.loss_by_feat(depth, [sample(torch.zeros(12, 20))] * 3)["loss_silog"]
    assert nothing == 0 and nothing.requires_grad


def test_losses_of_one_name_add_up_and_depth_is_resized_to_the_truth():
    both = [dict(type="SiLogLoss"), dict(type="SiLogLoss", loss_weight=2.0)]
    one, two = (
        MODELS.build(depth_head([6], n_bins=9, loss_decode=loss)) for loss in (both[0], both)
    )
    depth, truth = torch.rand(1, 1, 6, 10) + 1, torch.rand(12, 20) + 1
    single = one.loss_by_feat(depth, [sample(truth)])["loss_silog"]
    double = two.loss_by_feat(depth, [sample(truth)])["loss_silog"]
    assert double.item() == pytest.approx(3 * single.item(), rel=1e-5)


def test_predictions_stay_within_the_range_and_have_the_size_of_the_image():
    head = build(depth_head([6], n_bins=9, min_depth=1.0, max_depth=4.0))
    depth = torch.linspace(-2, 8, 35).reshape(1, 1, 5, 7)
    found = head.predict_by_feat(depth, [dict(img_shape=(21, 33), pad_shape=(28, 42))])
    assert found.shape == (1, 1, 28, 42)
    assert found.min() == 1.0 and found.max() == 4.0


def test_depth_is_exact_under_autocast():
    """Bins in bfloat16 would be off by up to 0.3 m at 80 m."""
    centres = bin_centres(256, 0.001, 80.0)
    logits = torch.full((1, 256, 1, 1), -1.0)
    logits[0, 200] = 1e4
    with torch.autocast("cpu", torch.bfloat16):
        depth = expected_depth(logits, centres)
    assert depth.item() == pytest.approx(centres[200].item(), rel=1e-3)


@pytest.mark.parametrize(
    ("keywords", "named"),
    [
        (dict(min_depth=0.0), "0 < min_depth < max_depth.*min_depth=0.0"),
        (dict(min_depth=3.0, max_depth=2.0), "max_depth=2.0"),
        (dict(bins_strategy="LOG"), "bins_strategy.*'LOG'"),
        (dict(norm_strategy="max"), "norm_strategy.*'max'"),
    ],
)
def test_wrong_arguments_are_named(keywords, named):
    with pytest.raises(ConfigError, match=named):
        MODELS.build(depth_head([6], **keywords))
