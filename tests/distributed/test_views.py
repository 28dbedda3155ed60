"""Views shared by two processes: the result of one process, the same to the bit in both."""

from __future__ import annotations

import pytest
import torch

from srt_plugins import SRTWrapper
from tests import reference
from tests.distributed.cases import CASES, EVEN, LATE, compute, images
from tests.distributed.pair import of
from tests.toys import Model, PairBackbone, PatchBackbone

pytestmark = pytest.mark.skipif(
    not torch.distributed.is_available(), reason="torch without torch.distributed"
)


@pytest.fixture(scope="module")
def ranks(two_processes):
    return two_processes("tests.distributed.views_worker")


def equal(first, second):
    return torch.equal(first, second) and first.dtype == second.dtype


def close(got, expected, **tolerance):
    torch.testing.assert_close(got, expected, **{"rtol": 1e-6, "atol": 1e-6, **tolerance})


@pytest.fixture(scope="module")
def alone():
    """Three views of the toy in one process."""
    with torch.no_grad():
        return SRTWrapper(PatchBackbone().eval(), views=3)(images())


@pytest.mark.parametrize("name", CASES)
def test_result_is_that_of_one_process(ranks, name):
    one, other = of(ranks, name)
    expected = compute(name)
    assert len(one) == len(expected) and all(map(equal, one, other))
    for got, wanted in zip(one, expected):
        assert got.stride() == wanted.stride() and got.dtype == wanted.dtype
        if wanted.dtype == torch.bfloat16:  # rounded after the sum: at most to the neighbour
            close(got, wanted, rtol=2**-7)
            assert (got != wanted).float().mean() < 0.01
        else:
            close(got, wanted)


def test_work_is_shared(ranks):
    """Each process runs its views of the two images, in chunks as asked, and no more."""
    one, other = ({k: sum(v) for k, v in found.items()} for found in of(ranks, "forwards"))
    assert (one["weights"], other["weights"]) == (6, 4)
    # The other outputs are those of the centre view, which the second process has run.
    assert (one["some outputs"], other["some outputs"]) == (6, 4)
    # Two views each, and the centre view for the other outputs.
    assert one["some outputs, no centre"] == other["some outputs, no centre"] == 6
    chunks = [found["several at once"] for found in of(ranks, "forwards")]
    assert chunks == [[6, 2], [6]]


def test_dispersion_far_from_zero(ranks):
    """Squares about zero would cancel: 1000 squared has no digits left for a spread below 1."""
    one, other = of(ranks, "far_from_zero")
    expected = compute("dispersion")[-2]
    assert equal(one, other) and expected.min() > 0.05
    close(one, expected, atol=1e-3, rtol=0)


def test_result_is_that_of_the_oracle(ranks):
    """Mean and dispersion of weighted views by float64 loops."""
    model, batch = PairBackbone(), images(EVEN).double()
    weight, bias = (p.double() for p in (model.embed.weight, model.embed.bias))

    def tokens(image):
        found = torch.nn.functional.conv2d(torch.as_tensor(image), weight, bias, model.patch)
        return (found.tanh() + model.position[:, :3, :5].double()).detach().numpy()

    views, weights = [v[:2] for v in LATE], [v[2] for v in LATE]
    mean, *_, spread, _ = of(ranks, "whole patches")[1]
    for i, image in enumerate(batch.numpy()):
        expected = reference.srt(tokens, image, views, 8, "replicate", weights=weights)
        close(mean[i].double(), torch.as_tensor(expected["mean"]), atol=1e-5)
        std = torch.as_tensor(expected["std"]).square().mean(0, keepdim=True).sqrt()
        close(spread[i].double(), std, atol=1e-5)


@pytest.mark.parametrize(
    "name, words",
    [
        ("other_size", ["same images", "(2, 3, 32, 40)", "(2, 3, 32, 48)", "rank 1", "sampler"]),
        ("other_pixels", ["same images", "other pixels on rank 1"]),
        ("other_settings", ["same settings", "smooth", "rank 1"]),
        ("gradients", ["group=", "no_grad"]),
    ],
)
def test_mistakes_are_refused_in_both(ranks, alone, name, words):
    for message, after in of(ranks, name):
        assert message.startswith("ConfigError")
        assert all(word in message for word in words), message
        close(after, alone)  # and the processes are still in step


def test_the_other_process_hears_of_a_failure(ranks, alone):
    (here, after), (there, _) = of(ranks, "fails_on_one")
    assert there == "ValueError: broken here"
    assert here.startswith("SRTError") and "rank 1 failed" in here
    close(after, alone)


def test_groups_as_objects(ranks, alone):
    first, second = of(ranks, "groups")
    for found in (first, second):
        close(found["both"], alone)
        assert equal(found["copied"], found["both"])
        assert "another process" in found["pickled"] and "srt_enabled" in found["pickled"]
        assert equal(found["given again"], found["both"])
        assert "still exists" in found["destroyed"]
    assert equal(first["alone"], alone)  # a group of one process is the plain path
    assert "hold this process" in second["outside"]


@pytest.mark.parametrize("name", ["pickled", "inference_mode"])
def test_same_result_however_it_is_called(ranks, alone, name):
    one, other = of(ranks, name)
    assert equal(one, other)
    close(one, alone)


def test_in_a_container(ranks):
    model = Model().eval()
    SRTWrapper(model.backbone, views=3)
    one, other = of(ranks, "in_a_container")
    assert equal(one, other)
    with torch.no_grad():
        close(one, model(images()))


def test_autocast(ranks):
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        expected = SRTWrapper(PatchBackbone().eval(), views=3)(images())
    one, other = of(ranks, "autocast")
    assert equal(one, other)
    close(one, expected)


def test_a_head_trains_on_a_frozen_backbone(ranks):
    model = Model()
    SRTWrapper(model.backbone.requires_grad_(False).eval(), views=3)
    model(images()).square().sum().backward()
    for got in of(ranks, "gradients_of_a_head"):
        close(got, model.head.weight.grad, rtol=1e-5)
