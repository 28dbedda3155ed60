"""What each library's backbones look like: which outputs are token grids, at which strides, and
where the blocks are. One file per library; :func:`describe` picks the right one.

Backbones are recognised by class name and structure, never by importing a library.
"""

from __future__ import annotations

from srt_plugins.adapters import mmseg
from srt_plugins.adapters.base import Adapter
from srt_plugins.adapters.locate import find_backbone
from torch import nn

__all__ = ["Adapter", "describe", "find_backbone"]

_LIBRARIES = (mmseg,)


def describe(backbone: nn.Module) -> Adapter:
    """The adapter of a backbone; for an unknown one, a probed adapter for NCHW outputs."""
    for library in _LIBRARIES:
        adapter = library.describe(backbone)
        if adapter is not None:
            return adapter
    return Adapter(family=f"{type(backbone).__name__} (probed)")
