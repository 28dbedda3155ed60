"""Two tiny models, the page on a free port, and a browser with it."""

from __future__ import annotations

import sys
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from tests.demo.browser import browser_path, opened

DEMO = Path(__file__).parents[2] / "examples" / "demo"
SEGMENTOR = ["mmseg", str(DEMO / "vit_scenes.py"), str(DEMO / "vit_scenes.pth")]
BACKBONE = ["timm/test_vit2"]
LONGEST = 256

_watching: list[list] = []


def _heard(event, args):
    if _watching and event in ("socket.connect", "socket.getaddrinfo"):
        _watching[-1].append((event, args[1] if event == "socket.connect" else args[0]))


sys.addaudithook(_heard)


@contextmanager
def contacts():
    """Whom this process contacts while active."""
    found: list = []
    _watching.append(found)
    try:
        yield found
    finally:
        _watching.remove(found)


@pytest.fixture(scope="session")
def weights(tmp_path_factory):
    """Weights of the tiny timm model."""
    timm = pytest.importorskip("timm")
    torch.manual_seed(0)
    # Layer scales of one: at their usual start blocks hardly change the tokens.
    model = timm.create_model("test_vit2", num_classes=0, init_values=1.0)
    path = tmp_path_factory.mktemp("weights") / "test_vit2.pth"
    torch.save(model.state_dict(), path)
    return str(path)


@pytest.fixture(scope="session")
def models(weights):
    from srt_plugins.demo.models import Models

    pytest.importorskip("mmseg")
    return Models([SEGMENTOR, BACKBONE], device="cpu", checkpoint=weights)


@pytest.fixture(scope="session")
def looked(weights):
    """What is looked at without the page: the same models, loaded apart from it."""
    from srt_plugins.visualize.load import load_subject

    found: dict = {}

    def get(words):
        name = words[0]
        if name not in found:
            found[name] = load_subject(words, device="cpu", checkpoint=weights)
        return found[name]

    return get


@pytest.fixture(scope="module")
def server(models):
    """The page's address, and whom this process contacts meanwhile."""
    pytest.importorskip("gradio")
    from srt_plugins.demo.actions import Actions
    from srt_plugins.demo.page import build
    from srt_plugins.demo.serve import served

    with contacts() as found, served(lambda: build(Actions(models, LONGEST))) as url:
        yield url, found


@pytest.fixture(scope="module")
def demo(server):
    pytest.importorskip("playwright")
    if browser_path() is None:
        pytest.skip("no Chromium or Chrome on this machine")
    with opened(server[0]) as demo:
        yield demo
