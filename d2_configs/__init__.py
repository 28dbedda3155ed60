"""Detectron2 configs that add the SRT ensemble to official models; :func:`path` finds them."""

from __future__ import annotations

from pathlib import Path

from srt_plugins.errors import ConfigError, nearest

_FOLDER = Path(__file__).parent


def names() -> list[str]:
    """File names of the configs: ``.py`` for LazyConfig, ``.yaml`` for ``cfg.merge_from_file``."""
    files = (*_FOLDER.glob("*.py"), *_FOLDER.glob("*.yaml"))
    return sorted(file.name for file in files if not file.name.startswith("_"))


def path(name: str) -> str:
    """Path of a config in this installation.

    Args:
        name: file name, such as ``"mask_rcnn_vitdet_b.py"``.

    Raises:
        ConfigError: there is no config of that name; lists the near ones.
    """
    if name not in names():
        raise ConfigError(
            f"Expected the file name of a config, got {name!r}; near it are "
            f"{nearest(name, names(), len(names()))}."
        )
    return str(_FOLDER / name)
