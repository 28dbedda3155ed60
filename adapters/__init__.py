"""What each library's backbones look like: which outputs are token grids, at which strides, and
where the blocks are. One file per library; :func:`describe` picks the right one.

Backbones are recognised by class name and structure, never by importing a library.
"""

from __future__ import annotations

from srt_plugins.adapters import detectron2, locate, mmseg
from srt_plugins.adapters.base import Adapter
from srt_plugins.adapters.locate import find_target
from torch import nn

__all__ = ["Adapter", "describe", "find_backbone", "find_target"]

_LIBRARIES = (mmseg, detectron2)


def describe(backbone: nn.Module) -> Adapter:
    """The adapter of a backbone; for an unknown one, a probed adapter for NCHW outputs."""
    return _known(backbone) or Adapter(family=f"{type(backbone).__name__} (probed)")


def find_backbone(model: nn.Module) -> nn.Module:
    """The backbone inside a model, or the model itself where it is a backbone that is known.

    Raises:
        AdapterError: none found; lists the model's children with their types.
    """
    return model if _known(model) else locate.find_backbone(model)


def _known(backbone: nn.Module) -> Adapter | None:
    found = (library.describe(backbone) for library in _LIBRARIES)
    return next((adapter for adapter in found if adapter is not None), None)
