"""What each library's backbones look like: which outputs are token grids, at which strides, and
where the blocks are. One file per library; :func:`describe` picks the right one.

Backbones are recognised by class name and structure, never by importing a library.
"""

from __future__ import annotations

from typing import Callable

from srt_plugins.adapters import detectron2, hub, locate, mmseg, timm, transformers
from srt_plugins.adapters.base import Adapter
from torch import nn

from srt_plugins.errors import AdapterError, ConfigError

__all__ = [
    "Adapter",
    "describe",
    "find_backbone",
    "find_target",
    "is_known",
    "register",
    "unregister",
]

_LIBRARIES: list[Callable[[nn.Module], Adapter | None]] = [
    mmseg.describe,
    detectron2.describe,
    timm.describe,
    transformers.describe,
    hub.describe,
]


def describe(backbone: nn.Module) -> Adapter:
    """The adapter of a backbone; for an unknown one, a probed adapter for NCHW outputs.

    Raises:
        AdapterError: one that is known not to have grids.
    """
    adapter = _known(backbone) or Adapter(family=f"{type(backbone).__name__} (probed)")
    if adapter.refused:
        raise AdapterError(
            f"Expected a backbone whose tokens lie on a grid, got {type(backbone).__name__}: "
            f"{adapter.refused}."
        )
    return adapter


def register(library: Callable[[nn.Module], Adapter | None]) -> None:
    """Make backbones of another library known.

    Args:
        library: gives the adapter of a backbone that it knows, None for any other module. Asked
            before the built-in ones.
    """
    if library not in _LIBRARIES:
        _LIBRARIES.insert(0, library)


def unregister(library: Callable[[nn.Module], Adapter | None]) -> None:
    """Undo :func:`register`."""
    if library in _LIBRARIES:
        _LIBRARIES.remove(library)


def find_backbone(model: nn.Module) -> nn.Module:
    """The backbone inside a model, or the model itself where it is a backbone that is known.

    Raises:
        AdapterError: none found, or several; lists the candidates with their types.
    """
    return model if is_known(model) else locate.find_backbone(model, is_known)


def find_target(backbone: nn.Module, target: str | None) -> nn.Module:
    """The part of a backbone at a module path; the backbone itself for None.

    Raises:
        ConfigError: there is no such part, or one that is known to take features, not images;
            lists those there are.
    """
    if target is None:
        return backbone
    found = backbone
    for name in str(target).split("."):
        adapter = _known(found)
        parts = None if adapter is None else adapter.parts
        children = {n: m for n, m in found.named_children() if parts is None or n in parts}
        if name not in children:
            holder = "it" if found is backbone else type(found).__name__
            listed = ", ".join(f"{n!r} ({type(m).__name__})" for n, m in children.items())
            raise ConfigError(
                f"Expected target to be a part of {type(backbone).__name__} that takes images, got "
                f"{target!r}; {holder} has {listed or 'none'}. Leave target out to "
                "ensemble the whole backbone."
            )
        found = children[name]
    return found


def is_known(module: nn.Module) -> bool:
    """Whether an adapter describes the module."""
    return _known(module) is not None


def _known(backbone: nn.Module) -> Adapter | None:
    found = (describe_its(backbone) for describe_its in _LIBRARIES)
    return next((adapter for adapter in found if adapter is not None), None)
