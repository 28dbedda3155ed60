"""``model``: a tiny segmentor of MMSegmentation; ``images``: a batch of two."""

from __future__ import annotations

from tests.mmseg.tiny import build, images, segmentor


def setup(names: dict) -> None:
    """Bind them."""
    names.update(model=build(segmentor()), images=images((24, 32), batch=2))
