"""Optional packages that pictures and videos need."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from ..errors import MissingDependencyError


def pillow() -> Any:
    """The module ``PIL.Image``.

    Raises:
        MissingDependencyError: Pillow is not installed.
    """
    return _needed("PIL.Image", "Pictures need Pillow")


def pyav() -> Any:
    """The module ``av``.

    Raises:
        MissingDependencyError: PyAV is not installed.
    """
    return _needed("av", "Videos need PyAV (av)")


def matplotlib_maps() -> Any:
    """``matplotlib.colormaps``.

    Raises:
        MissingDependencyError: matplotlib is not installed.
    """
    return _needed("matplotlib", "Colour maps need matplotlib").colormaps


def _needed(module: str, what: str) -> Any:
    try:
        import_module(module.partition(".")[0])  # as `from ... import` asks for the package first
        return import_module(module)
    except ImportError as error:
        raise MissingDependencyError(
            f"{what}, which is not installed: pip install 'srt-plugins[show]'."
        ) from error
