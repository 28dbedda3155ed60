"""Run by each of two processes: MMSegmentation's own distributed test, and configs with a group."""

from __future__ import annotations

import sys
from datetime import timedelta
from functools import partial
from pathlib import Path

import torch.distributed as dist

import srt_plugins.mmseg  # noqa: F401  (before mmseg: the placeholder for mmcv's ops)
from srt_plugins import ConfigError, attach
from tests.distributed.pair import COLLECTIVE, save
from tests.mmseg.runs import runner
from tests.mmseg.tiny import build, checkpoint, flat, logits, nested, segmentor

IMAGES = 3  # odd: the sampler deals one of them out twice
SRT = dict(level=2, views=[(0, 0), (2, -1), (-1, 1)])
HOOK = dict(type="SRTHook", **SRT)
CONFIGS = {"nested": nested, "flat": flat}


def tested(folder, launcher="none", model=None, hooks=(), options=None):
    """Metrics and logits of a Runner's test, of this process's images."""
    made = runner(
        folder,
        model=model,
        hooks=hooks,
        options={"test_dataloader.dataset.length": IMAGES, **(options or {})},
        launcher=launcher,
        # Without it MMEngine hands DistributedDataParallel the number of a GPU.
        model_wrapper_cfg=dict(device_ids=None, broadcast_buffers=False),
        load_from=checkpoint(folder / "weights.pth", seed=3),
    )
    return made.test(), made.seen.kept


RUNS = {
    "plain": dict(),
    "config": dict(model=segmentor(nested(**SRT))),
    "hook": dict(hooks=[HOOK]),
    "batches": dict(hooks=[HOOK], options={"test_dataloader.batch_size": 2}),
}


def dealt_out(folder):
    """Images dealt out and views shared at the same time."""
    try:
        tested(folder, "pytorch", hooks=[dict(HOOK, group="world")])
    except ConfigError as error:
        return str(error)
    return "nothing was raised"


def shared(form, **more):
    model = build(segmentor(CONFIGS[form](**SRT, **more)), seed=3)
    return logits(model)


def attached(**more):
    return logits(attach(build(segmentor(), seed=3), **SRT, **more))


def main(folder):
    # Before the Runner, which sets a GPU where it does this itself.
    dist.init_process_group("gloo", timeout=timedelta(seconds=COLLECTIVE))
    rank = dist.get_rank()
    own = Path(folder) / str(rank)
    own.mkdir()
    jobs = {name: partial(tested, own, "pytorch", **run) for name, run in RUNS.items()}
    jobs.update({form: partial(shared, form, group="world") for form in CONFIGS})
    jobs["attach"] = partial(attached, group="world")
    jobs["dealt out"] = partial(dealt_out, own)
    save(jobs, folder, rank)
    dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    main(sys.argv[1])
