"""Runners on rendered scenes: a few iterations of training, two images of testing."""

from __future__ import annotations

import itertools

import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.runner import Runner

from tests.mmseg.tiny import segmentor

IMAGES = 2
SIZE = (35, 44)  # whole patches on neither axis
_count = itertools.count()


class Recorder(Hook):
    """Keeps the logits of every image of a loop."""

    def __init__(self):
        self.kept = []

    def before_val(self, runner):
        self.kept = []

    before_test = before_val

    def after_val_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        self.kept += [o.seg_logits.data.clone() for o in outputs]

    after_test_iter = after_val_iter


def loader(pipeline, length=IMAGES):
    return dict(
        batch_size=1,
        num_workers=0,
        sampler=dict(type="DefaultSampler", shuffle=False),
        dataset=dict(
            type="ScenesDataset",
            length=length,
            serialize_data=False,
            size=SIZE,
            pipeline=[dict(type="LoadScene"), *pipeline],
        ),
    )


def runner(tmp_path, model=None, hooks=(), pipeline=None, options=None, **keywords):
    """A Runner that trains, validates and tests the tiny segmentor; ``runner.seen`` records."""
    pack = [dict(type="PackSegInputs")]
    test = loader(pipeline or pack)
    config = dict(
        default_scope="mmseg",
        model=segmentor() if model is None else model,
        work_dir=str(tmp_path / "work"),
        experiment_name=f"run{next(_count)}",
        train_dataloader=loader(pack),
        train_cfg=dict(type="IterBasedTrainLoop", max_iters=2, val_interval=2),
        optim_wrapper=dict(optimizer=dict(type="SGD", lr=0.1)),
        val_dataloader=loader(pack),
        val_cfg=dict(),
        val_evaluator=dict(type="IoUMetric"),
        test_dataloader=test,
        test_cfg=dict(),
        test_evaluator=dict(type="IoUMetric"),
        default_hooks=dict(checkpoint=dict(type="CheckpointHook", by_epoch=False, interval=2)),
        log_level="ERROR",
        randomness=dict(seed=0),
        **keywords,
    )
    if isinstance(model, torch.nn.Module):
        made = Runner(**config, custom_hooks=list(hooks))
    else:
        config = Config(dict(config, custom_hooks=list(hooks)))
        config.merge_from_dict(options or {})
        made = Runner.from_cfg(config)
    made.seen = Recorder()
    made.register_hook(made.seen)
    return made


def logits(model):
    """Logits of a bare segmentor for the images of the loops."""
    model.eval()
    batches = Runner.build_dataloader(loader([dict(type="PackSegInputs")]))
    with torch.no_grad():
        return [model.test_step(batch)[0].seg_logits.data for batch in batches]


def same(first, second):
    """Whether two lists of logits are equal to the bit."""
    return len(first) == len(second) and all(map(torch.equal, first, second))
