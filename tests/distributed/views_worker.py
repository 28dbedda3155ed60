"""Run by each of two processes: every case, then the mistakes; see ``pair.py``."""

from __future__ import annotations

import copy
import pickle
import sys
from datetime import timedelta
from functools import partial

import torch
import torch.distributed as dist

from srt_plugins import ConfigError, Settings, SRTWrapper, dispersion, srt_enabled
from tests.distributed.cases import CASES, LATE, compute, images
from tests.distributed.pair import COLLECTIVE, save
from tests.toys import Model, PairBackbone, PatchBackbone

VIEWS = dict(views=3)


def wrapped(**keywords):
    return SRTWrapper(PatchBackbone().eval(), **{**VIEWS, "group": "world", **keywords})


def raised(call):
    """What a call raised, and a right forward afterwards: the processes must still be in step."""
    try:
        with torch.no_grad():
            call()
        message = "nothing"
    except Exception as error:
        message = f"{type(error).__name__}: {error}"
    with torch.no_grad():
        return message, wrapped()(images())


def refused(call):
    """The message of the :class:`ConfigError` that a call must raise."""
    try:
        call()
    except ConfigError as error:
        return str(error)
    raise AssertionError("nothing was raised")


def other_size(rank):
    return wrapped()(images((32, 40 + 8 * rank)))


def other_pixels(rank):
    return wrapped()(images().roll(rank, 0))  # the same images in another order


def other_settings(rank):
    return wrapped(smooth=3 if rank else None)(images())


def fails_on_one(rank):
    model = wrapped()
    model(images())

    def fail(*_):
        raise ValueError("broken here")

    if rank:
        model.embed.register_forward_hook(fail)
    return model(images())


@torch.enable_grad()
def gradients(_):
    return wrapped()(images())


@torch.enable_grad()
def gradients_of_a_head(_):
    """A frozen backbone under a head that trains."""
    model = Model()
    model.backbone.requires_grad_(False).eval()
    SRTWrapper(model.backbone, group="world", **VIEWS)
    model(images()).square().sum().backward()
    return model.head.weight.grad


@torch.no_grad()
def groups(rank):
    """Groups as objects: of both processes, and of one."""
    found = {}
    both = dist.new_group([0, 1])
    model = wrapped(group=both)
    found["both"] = model(images())
    copied = copy.deepcopy(model)
    assert copied._srt is not model._srt and copied._srt.settings.group is both
    found["copied"] = copied(images())
    loaded = pickle.loads(pickle.dumps(model))
    found["pickled"] = refused(lambda: loaded(images()))
    with srt_enabled(loaded, group=both):
        found["given again"] = loaded(images())
    alone = dist.new_group([0])
    if rank == 0:
        found["alone"] = wrapped(group=alone)(images())
    else:
        found["outside"] = refused(lambda: Settings(group=alone))
    dist.destroy_process_group(both)
    found["destroyed"] = refused(lambda: model(images()))
    return found


@torch.no_grad()
def pickled(_):
    return pickle.loads(pickle.dumps(copy.deepcopy(wrapped())))(images())


@torch.no_grad()
def in_a_container(_):
    model = torch.nn.parallel.DistributedDataParallel(Model().eval())
    SRTWrapper(model.module.backbone, group="world", **VIEWS)
    return model(images())


@torch.inference_mode()
def inference_mode(_):
    return wrapped(dispersion=True)(images()).clone()


def autocast(_):
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        return wrapped()(images())


@torch.no_grad()
def forwards(_):
    """Images that go through the backbone in one call, for some cases."""
    counted = []
    found = {}
    for name in ("weights", "some outputs", "some outputs, no centre", "several at once"):
        model, _, batch, keywords = CASES[name]()
        SRTWrapper(model, group="world", **keywords)
        model(batch)  # the first call looks at the backbone, too
        hook = model.embed.register_forward_hook(lambda _, args, __: counted.append(len(args[0])))
        model(batch)
        hook.remove()
        found[name] = list(counted)
        counted.clear()
    return found


class Far(PairBackbone):
    def forward(self, x):
        return {"far": PatchBackbone.forward(self, x) + 1000}


@torch.no_grad()
def far_from_zero(_):
    model = SRTWrapper(Far().eval(), group="world", views=LATE, dispersion=True)
    model(images())
    return dispersion(model)[0]


MISTAKES = (other_size, other_pixels, other_settings, fails_on_one, gradients)
OTHERS = (
    groups,
    pickled,
    in_a_container,
    gradients_of_a_head,
    inference_mode,
    autocast,
    far_from_zero,
    forwards,
)


def main(folder, rank):
    rank = int(rank)
    dist.init_process_group(
        "gloo",
        init_method=f"file://{folder}/rendezvous",
        rank=rank,
        world_size=2,
        timeout=timedelta(seconds=COLLECTIVE),
    )
    jobs = {name: partial(compute, name, "world") for name in CASES}
    jobs.update({m.__name__: partial(raised, partial(m, rank)) for m in MISTAKES})
    jobs.update({o.__name__: partial(o, rank) for o in OTHERS})
    save(jobs, folder, rank)
    dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    main(*sys.argv[1:])
