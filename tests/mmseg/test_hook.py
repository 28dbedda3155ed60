"""SRT around the loops of a Runner: when it is on, that it is undone, and what it refuses."""

from __future__ import annotations

import itertools

import pytest
import torch
from mmengine.config import Config
from mmengine.hooks import EMAHook, Hook
from mmengine.model import MMDistributedDataParallel
from mmengine.registry import HOOKS
from mmseg.models import SegTTAModel
from mmseg.models.backbones import VisionTransformer
from srt_plugins.adapters import find_backbone

import srt_plugins.mmseg
from srt_plugins import CheckpointError, ConfigError, SRTWrapper, attach
from tests.mmseg.runs import logits, runner, same
from tests.mmseg.tiny import build, checkpoint, flat, segmentor

SRT = dict(level=2, views=[(0, 0), (2, -1), (-1, 1)])
HOOK = dict(type="SRTHook", **SRT)

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")


@pytest.fixture
def weights(tmp_path):
    return checkpoint(tmp_path / "weights.pth", seed=3)


@pytest.fixture(scope="module")
def plain():
    return logits(build(segmentor(), seed=3))


@pytest.fixture(scope="module")
def ensembled():
    return logits(attach(build(segmentor(), seed=3), **SRT))


@pytest.fixture
def process_group(tmp_path):
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{tmp_path}/rendezvous", rank=0, world_size=1
    )
    yield
    torch.distributed.destroy_process_group()


def is_plain(run):
    backbone = find_backbone(run.model)
    return type(backbone) is VisionTransformer and "_srt" not in vars(backbone)


def test_on_in_the_test_loop_only(tmp_path, weights, plain, ensembled):
    run = runner(tmp_path, hooks=[HOOK], load_from=weights)
    run.test()
    assert same(run.seen.kept, ensembled) and not same(ensembled, plain)
    assert is_plain(run)
    run.val()
    assert same(run.seen.kept, plain)
    run.test()
    assert same(run.seen.kept, ensembled)


@pytest.mark.parametrize("on", ["val", ["val"], ("test", "val")])
def test_on_says_in_which_loops(tmp_path, weights, plain, ensembled, on):
    run = runner(tmp_path, hooks=[dict(HOOK, on=on)], load_from=weights)
    run.val()
    assert same(run.seen.kept, ensembled) and is_plain(run)
    run.test()
    assert same(run.seen.kept, ensembled if "test" in on else plain) and is_plain(run)


def test_needs_nothing_but_a_command_line(tmp_path, weights, ensembled):
    options = {
        "default_hooks.srt.type": "srt_plugins.mmseg.SRTHook",
        "default_hooks.srt.level": 2,
        "default_hooks.srt.views": SRT["views"],
    }
    run = runner(tmp_path, options=options, load_from=weights)
    run.test()
    assert same(run.seen.kept, ensembled)


def test_on_while_validating_during_training(tmp_path, weights):
    with_hook = runner(tmp_path, hooks=[dict(HOOK, on="val")], load_from=weights)
    without = runner(tmp_path, load_from=weights)
    without.train()
    with_hook.train()
    trained = without.model.state_dict()
    for key, value in with_hook.model.state_dict().items():
        assert torch.equal(value, trained[key]), "training is that of the unwrapped model"
    assert is_plain(with_hook)
    assert not same(with_hook.seen.kept, without.seen.kept)
    assert same(with_hook.seen.kept, logits(attach(without.model, **SRT)))


@pytest.mark.parametrize("container", ["ddp", "tta", "ddp + tta"])
def test_reaches_into_containers(tmp_path, plain, request, container):
    model = build(segmentor(), seed=3)
    pipeline = None
    if "tta" in container:
        model = SegTTAModel(module=model)
        pipeline = [
            dict(
                type="TestTimeAug",
                transforms=[
                    [dict(type="RandomFlip", prob=p) for p in (0.0, 1.0)],
                    [dict(type="PackSegInputs")],
                ],
            )
        ]
    if "ddp" in container:
        request.getfixturevalue("process_group")
        model = MMDistributedDataParallel(module=model)
    off = runner(tmp_path, model=model, pipeline=pipeline)
    off.test()
    run = runner(tmp_path, model=model, pipeline=pipeline, hooks=[HOOK])
    run.test()
    assert not same(run.seen.kept, off.seen.kept)
    assert is_plain(run)
    attach(model, **SRT)
    off.test()
    assert same(run.seen.kept, off.seen.kept)


@pytest.mark.parametrize("order", list(itertools.permutations(["ema", "srt"])), ids="-".join)
def test_goes_with_averaged_weights_in_either_order(tmp_path, weights, order):
    hooks = dict(
        ema=dict(type="EMAHook", momentum=0.5, priority="NORMAL"),
        srt=dict(HOOK, on="val", priority="NORMAL"),
    )
    run = runner(tmp_path, hooks=[hooks[name] for name in order], load_from=weights)
    run.train()
    (ema,) = (h for h in run.hooks if isinstance(h, EMAHook))
    averaged = ema.ema_model.module
    assert not same(logits(averaged), logits(run.model))
    assert same(run.seen.kept, logits(attach(averaged, **SRT)))
    assert is_plain(run)


@HOOKS.register_module()
class FailingHook(Hook):
    """Fails once, in the middle of a test loop."""

    failed = False

    def after_test_iter(self, runner, **_):
        if not self.failed:
            self.failed = True
            raise KeyboardInterrupt


@pytest.mark.parametrize("then", ["train", "val", "test"])
def test_off_again_after_a_loop_that_failed(tmp_path, weights, plain, ensembled, then):
    run = runner(tmp_path, hooks=[HOOK, dict(type="FailingHook")], load_from=weights)
    with pytest.raises(KeyboardInterrupt):
        run.test()
    if then == "train":
        run.train()
    elif then == "val":
        run.val()
        assert same(run.seen.kept, plain)
    else:
        run.test()
        assert same(run.seen.kept, ensembled)
    assert is_plain(run)


def test_replaces_the_settings_of_a_wrapped_config_in_the_loop(tmp_path, weights, ensembled):
    wrapped = segmentor(flat(level=1, statistic="median"))
    hook = dict(HOOK, statistic="mean")
    run = runner(tmp_path, model=wrapped, hooks=[hook], load_from=weights)
    before = run.model.backbone._srt.settings
    run.test()
    assert same(run.seen.kept, ensembled)
    assert run.model.backbone._srt.settings == before
    run.val()
    configured = SRTWrapper(build(segmentor(), 3).backbone, level=1, statistic="median")
    expected = build(segmentor(), 3)
    expected.backbone = configured
    assert same(run.seen.kept, logits(expected))


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        (dict(levle=1), "'levle'; did you mean 'level'"),
        (dict(level=-1), "level"),
        (dict(on="train"), r"on to hold some of test, val, got 'train'"),
        (dict(on=()), r"on to hold some of test, val"),
    ],
)
def test_mistakes_fail_when_the_hook_is_built(keywords, message):
    with pytest.raises(ConfigError, match=message):
        HOOKS.build(dict(type="SRTHook", **keywords))


@pytest.mark.parametrize("keywords", [dict(layer="blocks.0"), dict(level=8), dict(stride=3)])
def test_what_does_not_fit_the_model_fails_before_anything_runs(tmp_path, weights, keywords):
    hook = dict(type="SRTHook", **keywords)
    run = runner(tmp_path, hooks=[hook], load_from=weights)
    before = {k: v.clone() for k, v in run.model.state_dict().items()}
    with pytest.raises(ConfigError):
        run.train()
    assert is_plain(run)
    assert all(torch.equal(v, before[k]) for k, v in run.model.state_dict().items())


def test_a_checkpoint_without_the_backbone_stops_the_test(tmp_path):
    for name, kept in (("head", dict(only="decode_head")), ("other", dict(prefix="student."))):
        path = checkpoint(tmp_path / f"{name}.pth", **kept)
        run = runner(tmp_path, hooks=[HOOK], load_from=path)
        with pytest.raises(CheckpointError, match=r"'backbone\.cls_token'"):
            run.test()
        assert is_plain(run)


def test_key_prefixes_that_the_runner_removes_are_fine(tmp_path, plain, ensembled):
    path = checkpoint(tmp_path / "ddp.pth", prefix="module.")
    run = runner(tmp_path, hooks=[HOOK], load_from=path)
    run.test()
    assert same(run.seen.kept, ensembled)
    path = checkpoint(tmp_path / "student.pth", prefix="student.")
    run = runner(tmp_path, hooks=[HOOK])
    run.load_checkpoint(path, revise_keys=[(r"^student\.", "")])
    run.test()
    assert same(run.seen.kept, ensembled)


def test_training_brings_weights_of_its_own(tmp_path):
    path = checkpoint(tmp_path / "head.pth", only="decode_head")
    run = runner(tmp_path, hooks=[dict(HOOK, on="val")], load_from=path)
    run.train()
    assert run.seen.kept and is_plain(run)


def test_no_checkpoint_is_no_mistake(tmp_path):
    run = runner(tmp_path, hooks=[HOOK])
    run.test()
    assert run.seen.kept


def test_is_found_from_every_scope():
    hook = HOOKS.build(dict(type="SRTHook", _scope_="mmseg", level=1))
    assert isinstance(hook, srt_plugins.mmseg.SRTHook)
    Config(dict(custom_hooks=[HOOK])).pretty_text  # noqa: B018 (can be dumped)
