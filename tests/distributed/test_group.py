"""The ``group`` keyword in one process: what it takes, and what it refuses before anything runs."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
import torch.distributed as dist

from srt_plugins import ConfigError, Settings, SRTWrapper
from srt_plugins.core.distributed import Peers
from tests.distributed.cases import images
from tests.toys import PatchBackbone

pytestmark = pytest.mark.skipif(not dist.is_available(), reason="torch without torch.distributed")


@pytest.fixture
def world(tmp_path):
    """torch.distributed with this process alone."""
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/meet", rank=0, world_size=1)
    yield dist.group.WORLD
    if dist.is_initialized():
        dist.destroy_process_group()


@pytest.mark.parametrize("group", ["wrold", "", 2, [0, 1], True, object()])
def test_what_is_no_group_is_refused(group):
    with pytest.raises(ConfigError, match=r"group to be None, 'world' or a process group"):
        Settings(group=group)


def test_before_torch_distributed_is_initialised_nothing_is_wrapped():
    backbone = PatchBackbone()
    with pytest.raises(ConfigError, match=r"(?s)group='world'.*torchrun.*init_process_group"):
        SRTWrapper(backbone, group="world")
    assert type(backbone) is PatchBackbone and "_srt" not in vars(backbone)


@pytest.mark.parametrize("named", [True, False])
@torch.no_grad()
def test_a_group_of_one_process_is_the_plain_path(world, named):
    expected = SRTWrapper(PatchBackbone().eval(), views=5)(images())
    group = "world" if named else world
    assert torch.equal(SRTWrapper(PatchBackbone().eval(), views=5, group=group)(images()), expected)


@torch.no_grad()
def test_after_the_group_is_gone_the_forward_says_so(world):
    model = SRTWrapper(PatchBackbone().eval(), views=3, group="world")
    saved = pickle.dumps(model)
    dist.destroy_process_group()
    for one in (model, copy.deepcopy(model), pickle.loads(saved)):
        assert one._srt.settings.group == "world"
        with pytest.raises(ConfigError, match="torchrun"):
            one(images())


def test_copies_share_a_group_and_pickles_lose_it(world):
    settings = Settings(views=3, group=world)
    for copied in (copy.copy(settings), copy.deepcopy(settings), copy.deepcopy([settings])[0]):
        assert copied == settings and copied.group is world
    loaded = pickle.loads(pickle.dumps(settings))
    assert loaded.but(group=None) == settings.but(group=None)
    with pytest.raises(ConfigError, match=r"another process.*group="):
        loaded.but(views=4)


def test_settings_without_a_group_are_pickled_as_they_are():
    settings = Settings(level=3, smooth=3, outputs=[0])
    assert pickle.loads(pickle.dumps(settings)) == settings


@pytest.mark.parametrize("size", [2, 3, 8])
@pytest.mark.parametrize("count", [1, 2, 7, 8, 49])
def test_shares_are_consecutive_and_even(size, count):
    shares = [Peers(None, rank, size).share(count) for rank in range(size)]
    views = [list(range(count))[share] for share in shares]
    assert [view for share in views for view in share] == list(range(count))
    lengths = [len(v) for v in views]
    assert max(lengths) - min(lengths) <= 1 and lengths == sorted(lengths, reverse=True)
