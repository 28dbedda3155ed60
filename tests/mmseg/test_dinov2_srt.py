"""SRT on the DINOv2 backbone, alone and under each head through MMEngine's Runner."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest
import torch

pytest.importorskip("timm", reason="the backbone is built on timm")

from mmengine.config import Config
from mmengine.runner import Runner
from srt_plugins.adapters import describe
from srt_plugins.adapters.structure import tensors

from srt_plugins import SRTWrapper, detach
from srt_plugins.evaluation.checkpoint import load_weights
from srt_plugins.mmseg import DINOv2
from tests import reference
from tests.contracts import VIEWS, close, layer_by_hand, run, same, view_inputs
from tests.mmseg.dinov2 import (
    TINY,
    TINY_SHAPE,
    backbone_shapes,
    dpt_shapes,
    linear_depth_shapes,
    linear_seg_shapes,
    random,
)
from tests.mmseg.tiny import build, images

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")

KINDS = {
    "maps": dict(out_indices=(1, 2)),
    "pairs": dict(out_indices=(0, 2), output_cls_token=True, final_norm=False),
    "registers": dict(out_indices=(1, 2), output_cls_token=True, registers=3),
    "gated": dict(swiglu=True),
}
SIZES = [(42, 56), (61, 77)]  # whole patches, and neither axis
kinds = pytest.mark.parametrize("kind", KINDS)
sizes = pytest.mark.parametrize("size", SIZES, ids=str)


def backbone(kind, **keywords):
    return build({**TINY, "pad": True, **KINDS[kind], **keywords})


@kinds
@sizes
def test_ensemble_equals_the_oracle(kind, size):
    plain, image = backbone(kind), images(size)
    every = [tensors(run(plain, view)) for view in view_inputs(image)]
    before = tensors(run(plain, image))
    found = tensors(run(SRTWrapper(plain, views=VIEWS), image))
    assert len(found) == len(before)
    for i, (path, tensor) in enumerate(found):
        parts = [outputs[i][1][0].double().numpy() for outputs in every]
        assert (path, tensor.shape) == (before[i][0], before[i][1].shape)
        if tensor.ndim == 4:
            cells = parts[0].shape[1:]
            close(tensor, reference.aggregate(parts, VIEWS, 14, cells=cells)["mean"])
        else:
            close(tensor, np.mean(parts, 0))


@kinds
@pytest.mark.parametrize("index", [0, 1])
def test_layer_equals_an_independent_computation(kind, index):
    """Ensembled after a block, the rest run once; earlier outputs are ensembled where they are."""
    plain, image = backbone(kind), images(SIZES[1])
    adapter = describe(plain)
    expected = layer_by_hand(adapter, plain, image, index)
    found = run(SRTWrapper(plain, views=VIEWS, layer=index), image)
    for (_, ours), (_, theirs) in zip(tensors(found), tensors(expected)):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


@kinds
def test_switched_off_copied_and_detached_it_is_itself(kind):
    plain, image = backbone(kind), images(SIZES[1])
    before, keys = run(plain, image), list(plain.state_dict())
    wrapped = SRTWrapper(plain, level=0)
    assert isinstance(wrapped, DINOv2) and list(wrapped.state_dict()) == keys
    assert same(run(wrapped, image), before)
    on = SRTWrapper(copy.deepcopy(detach(wrapped)), views=2)
    ensembled = run(on, image)
    assert not same(ensembled, before)
    for copied in (copy.deepcopy(on), pickle.loads(pickle.dumps(on))):
        assert same(run(copied, image), ensembled)
    assert type(detach(on)) is DINOv2


def heads():
    taps = dict(in_channels=[16] * 3, in_index=[0, 1, 2])
    small = dict(post_process_channels=[4, 4, 8, 8], channels=8, hidden_channels=4)
    far = dict(max_depth=80.0)
    return {
        "linear": dict(type="DINOv2LinearDepthHead", n_bins=8, **taps, **far),
        "dpt": dict(type="DINOv2DPTDepthHead", embed_dims=16, **small, **far),
        "segmentation": dict(type="DINOv2LinearHead", num_classes=10, **taps),
    }


def scenes(tmp_path, kind, srt):
    """A Runner on three scenes whose checkpoint holds the head alone."""
    depth = kind != "segmentation"
    shapes = {
        "linear": linear_depth_shapes(16, 3, bins=8),
        "dpt": dpt_shapes(16, channels=8, stages=[4, 4, 8, 8], hidden=4),
        "segmentation": linear_seg_shapes(16, 3, 10),
    }[kind]
    weights = random(shapes)
    if kind == "dpt":
        weights["decode_head.conv_depth.head.4.bias"].fill_(9.0)
    torch.save({"state_dict": weights}, tmp_path / "head.pth")
    count = 4 if kind == "dpt" else 3
    torch.save(random(backbone_shapes(**{**TINY_SHAPE, "depth": count})), tmp_path / "backbone.pth")
    body = dict(TINY, depth=count, out_indices=tuple(range(count)))
    body.update(checkpoint=str(tmp_path / "backbone.pth"))
    body.update(output_cls_token=depth, final_norm=not depth)
    if srt is not None:
        body.update(type="SRTWrapper", wraps="DINOv2", srt=srt)
    metric = dict(type="DepthMetric", min_depth_eval=0.001, max_depth_eval=80.0)
    cfg = dict(
        default_scope="mmseg",
        work_dir=str(tmp_path / "work"),
        experiment_name=f"{kind}-{srt}",
        model=dict(
            type="DepthEstimator" if depth else "EncoderDecoder",
            data_preprocessor=dict(
                type="SegDataPreProcessor",
                mean=[120.0] * 3,
                std=[60.0] * 3,
                bgr_to_rgb=True,
                seg_pad_val=0 if depth else 255,
                test_cfg=dict(size_divisor=14),
            ),
            backbone=body,
            decode_head=heads()[kind],
            test_cfg=dict(mode="whole"),
        ),
        test_dataloader=dict(
            batch_size=1,
            num_workers=0,
            sampler=dict(type="DefaultSampler", shuffle=False),
            dataset=dict(
                type="ScenesDataset",
                length=3,
                size=(60, 90),
                test_mode=True,
                pipeline=[dict(type="LoadScene", depth=depth), dict(type="PackSegInputs")],
            ),
        ),
        test_cfg=dict(),
        test_evaluator=metric if depth else dict(type="IoUMetric"),
        load_from=str(tmp_path / "head.pth"),
        log_level="ERROR",
    )
    return Runner.from_cfg(Config(cfg))


@pytest.mark.parametrize("kind", ["linear", "dpt", "segmentation"])
def test_every_head_runs_through_the_runner_with_and_without_srt(tmp_path, kind):
    metrics = [scenes(tmp_path, kind, srt).test() for srt in (None, dict(level=0), dict(views=4))]
    assert metrics[0] == metrics[1]
    assert metrics[2] != metrics[0]
    name = "mIoU" if kind == "segmentation" else "rmse"
    values = [m[name] for m in metrics]
    assert np.isfinite(values).all()
    if kind != "segmentation":  # a random classifier's mIoU is noise
        assert values[2] == pytest.approx(values[0], rel=0.3)


def test_the_checkpoint_of_the_head_alone_leaves_nothing_missing(tmp_path):
    runner = scenes(tmp_path, "linear", dict(views=4))
    before = copy.deepcopy(runner.model.backbone.state_dict())
    report = load_weights(runner.model, tmp_path / "head.pth")
    assert report.missing == report.unexpected == ()
    after = runner.model.backbone.state_dict()
    assert all(torch.equal(after[key], before[key]) for key in before)
    runner.model.load_state_dict(torch.load(tmp_path / "head.pth")["state_dict"], strict=True)
