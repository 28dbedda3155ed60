"""Checkpoints go both ways between wrapped and unwrapped models, and never leave random weights."""

from __future__ import annotations

import pytest
import torch
from mmengine.hooks import EMAHook
from mmengine.model import MMDistributedDataParallel
from mmengine.optim import build_optim_wrapper
from mmengine.registry import init_default_scope
from mmengine.runner import load_checkpoint, load_state_dict
from mmseg.registry import MODELS

from srt_plugins import CheckpointError, attach
from tests.mmseg import tiny
from tests.mmseg.runs import logits, runner, same
from tests.mmseg.tiny import build, checkpoint, flat, nested, segmentor, vit

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")
FORMS = {"nested": nested, "flat": flat}
SRT = dict(level=1, views=[(0, 0), (1, -1)])


@pytest.fixture(params=FORMS.values(), ids=FORMS)
def wrapped(request):
    """A segmentor as a config builds it, before any weights are loaded."""
    init_default_scope("mmseg")
    return MODELS.build(segmentor(request.param(**SRT)))


def states_equal(first, second):
    a, b = first.state_dict(), second.state_dict()
    return list(a) == list(b) and all(torch.equal(a[k], b[k]) for k in a)


@pytest.mark.parametrize("strict", [True, False])
def test_the_unwrapped_checkpoint_loads_into_the_wrapped_model(tmp_path, wrapped, strict):
    load_checkpoint(wrapped, checkpoint(tmp_path / "a.pth", seed=3), strict=strict)
    assert states_equal(wrapped, build(segmentor(), seed=3))


@pytest.mark.parametrize("strict", [True, False])
def test_the_wrapped_checkpoint_loads_into_the_unwrapped_model(tmp_path, strict):
    path = checkpoint(tmp_path / "a.pth", seed=3, backbone=flat(**SRT))
    plain = build(segmentor(), seed=0)
    load_checkpoint(plain, path, strict=strict)
    assert states_equal(plain, build(segmentor(), seed=3))


def test_torch_loads_strictly_both_ways(wrapped):
    plain = build(segmentor(), seed=3)
    wrapped.load_state_dict(plain.state_dict(), strict=True)
    build(segmentor(), seed=0).load_state_dict(wrapped.state_dict(), strict=True)
    assert states_equal(wrapped, plain)


@pytest.mark.parametrize("strict", [True, False])
@pytest.mark.parametrize("kept", [dict(only="decode_head"), dict(prefix="student.")])
def test_a_checkpoint_that_matches_nothing_raises(tmp_path, wrapped, strict, kept):
    path = checkpoint(tmp_path / "a.pth", **kept)
    with pytest.raises(CheckpointError, match=r"'backbone\.cls_token'.*random weights"):
        load_checkpoint(wrapped, path, strict=strict)


def test_an_unknown_prefix_can_be_removed(tmp_path, wrapped):
    path = checkpoint(tmp_path / "a.pth", seed=3, prefix="student.")
    load_checkpoint(wrapped, path, strict=True, revise_keys=[(r"^student\.", "")])
    assert states_equal(wrapped, build(segmentor(), seed=3))


def test_a_checkpoint_of_a_distributed_run_loads(tmp_path, wrapped):
    # DistributedDataParallel saves names that start with "module.".
    path = checkpoint(tmp_path / "a.pth", seed=3, prefix="module.")
    load_checkpoint(wrapped, path, strict=True)
    assert states_equal(wrapped, build(segmentor(), seed=3))


def test_loads_inside_a_distributed_model(tmp_path, wrapped):
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{tmp_path}/rendezvous", rank=0, world_size=1
    )
    try:
        model = MMDistributedDataParallel(module=wrapped)
        load_checkpoint(model, checkpoint(tmp_path / "a.pth", seed=3), strict=True)
        assert states_equal(model.module, build(segmentor(), seed=3))
        assert all(k.startswith("module.") for k in model.state_dict())
    finally:
        torch.distributed.destroy_process_group()


def test_a_head_may_be_loaded_once_the_backbone_has_weights(tmp_path, wrapped):
    load_checkpoint(wrapped, checkpoint(tmp_path / "a.pth", seed=3))
    load_checkpoint(wrapped, checkpoint(tmp_path / "b.pth", seed=4, only="decode_head"))
    backbone, head = build(segmentor(), seed=3).backbone, build(segmentor(), seed=4).decode_head
    assert states_equal(wrapped.backbone, backbone) and states_equal(wrapped.decode_head, head)


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
@pytest.mark.parametrize("place", ["pretrained", "init_cfg"])
def test_pretrained_weights_count_as_weights(tmp_path, form, place):
    state = build(vit(), seed=3).state_dict()
    torch.save({"state_dict": state}, tmp_path / "backbone.pth")
    path = str(tmp_path / "backbone.pth")
    init_default_scope("mmseg")
    if place == "pretrained":
        model = MODELS.build(tiny.ConfigDict(segmentor(form(**SRT), pretrained=path)))
    else:
        init = dict(type="Pretrained", checkpoint=path)
        model = MODELS.build(segmentor(dict(form(**SRT), init_cfg=init)))
    model.init_weights()
    load_checkpoint(model, checkpoint(tmp_path / "head.pth", only="decode_head"))
    assert all(torch.equal(v, state[k]) for k, v in model.backbone.state_dict().items())


def test_a_backbone_that_brings_its_own_weights_needs_no_others(tmp_path):
    # As with TIMMBackbone(pretrained=True), which loads while it is built.
    import timm

    weights = timm.create_model("resnet10t", features_only=True).state_dict()
    torch.save(weights, tmp_path / "timm.pth")
    timm_backbone = dict(
        wraps="TIMMBackbone", model_name="resnet10t", pretrained=False, srt=dict(level=1)
    )
    scratch = MODELS.build(dict(timm_backbone, type="SRTWrapper"))
    assert scratch._srt.needs_weights
    brought = MODELS.build(
        dict(timm_backbone, type="SRTWrapper", checkpoint_path=str(tmp_path / "timm.pth"))
    )
    assert not brought._srt.needs_weights
    load_state_dict(brought, {"head.weight": torch.zeros(1)})
    with pytest.raises(CheckpointError):
        load_state_dict(scratch, {"head.weight": torch.zeros(1)})


def test_runner_loads_and_refuses(tmp_path):
    good = checkpoint(tmp_path / "good.pth", seed=3)
    run = runner(tmp_path, model=segmentor(flat(**SRT)), load_from=good)
    run.test()
    assert same(run.seen.kept, logits(attach(build(segmentor(), seed=3), **SRT)))
    bad = checkpoint(tmp_path / "bad.pth", only="decode_head")
    with pytest.raises(CheckpointError):
        runner(tmp_path, model=segmentor(flat(**SRT)), load_from=bad).test()


def test_training_and_resuming_are_those_of_the_unwrapped_model(tmp_path, monkeypatch):
    # mmengine stores whole objects in its training checkpoints.
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    start = checkpoint(tmp_path / "a.pth", seed=3)
    ema = dict(type="EMAHook", momentum=0.5)
    runs = {}
    for name, backbone in (("plain", vit()), ("wrapped", flat(**SRT))):
        run = runner(tmp_path / name, model=segmentor(backbone), hooks=[ema], load_from=start)
        run.train()
        runs[name] = run
    assert states_equal(runs["plain"].model, runs["wrapped"].model)
    assert not same(runs["plain"].seen.kept, runs["wrapped"].seen.kept)

    files = {name: torch.load(tmp_path / name / "work" / "iter_2.pth") for name in runs}
    for part in ("state_dict", "ema_state_dict"):
        first, second = files["plain"][part], files["wrapped"][part]
        assert list(first) == list(second)
        assert all(torch.equal(first[k], second[k]) for k in first)

    # Resuming the wrapped run from the unwrapped one's checkpoint, averaged weights included.
    path = str(tmp_path / "plain" / "work" / "iter_2.pth")
    run = runner(
        tmp_path / "resumed",
        model=segmentor(flat(**SRT)),
        hooks=[ema],
        load_from=path,
        resume=True,
        options={"train_cfg.max_iters": 2},
    )
    run.train()
    assert states_equal(run.model, runs["plain"].model)
    (resumed,) = (h for h in run.hooks if isinstance(h, EMAHook))
    (original,) = (h for h in runs["plain"].hooks if isinstance(h, EMAHook))
    assert states_equal(resumed.ema_model, original.ema_model)


def test_layer_decay_finds_the_layers_of_a_wrapped_backbone():
    beit = vit(type="BEiT", qv_bias=True, init_values=0.1)
    config = dict(
        optimizer=dict(type="AdamW", lr=1e-3, weight_decay=0.05),
        constructor="LayerDecayOptimizerConstructor",
        paramwise_cfg=dict(num_layers=3, layer_decay_rate=0.5),
    )
    groups = []
    for backbone in (beit, dict(beit, type="SRTWrapper", wraps="BEiT", srt=dict(level=1))):
        optimizer = build_optim_wrapper(build(segmentor(backbone)), dict(config)).optimizer
        groups.append(
            [(g["lr"], g["weight_decay"], len(g["params"])) for g in optimizer.param_groups]
        )
    assert groups[0] == groups[1] and len({lr for lr, _, _ in groups[0]}) > 3
