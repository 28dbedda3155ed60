"""Optional packages that pictures and videos need."""

from __future__ import annotations

from typing import Any

from ..errors import MissingDependencyError

_INSTALL = "which is not installed: pip install 'srt-plugins[show]'."


def pillow() -> Any:
    """The module ``PIL.Image``.

    Raises:
        MissingDependencyError: Pillow is not installed.
    """
    try:
        from PIL import Image
    except ImportError as error:
        raise MissingDependencyError(f"Pictures need Pillow, {_INSTALL}") from error
    return Image


def pyav() -> Any:
    """The module ``av``.

    Raises:
        MissingDependencyError: PyAV is not installed.
    """
    try:
        import av
    except ImportError as error:
        raise MissingDependencyError(f"Videos need PyAV (av), {_INSTALL}") from error
    return av


def matplotlib_maps() -> Any:
    """``matplotlib.colormaps``.

    Raises:
        MissingDependencyError: matplotlib is not installed.
    """
    try:
        from matplotlib import colormaps
    except ImportError as error:
        raise MissingDependencyError(f"Colour maps need matplotlib, {_INSTALL}") from error
    return colormaps
