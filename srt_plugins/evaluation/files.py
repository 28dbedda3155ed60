"""Files that must be there, and writing files that are either whole or not there."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..errors import ConfigError


def check_file(name: str, path: str | Path) -> None:
    """Raise :class:`ConfigError` unless there is a file for the argument ``name``."""
    if not Path(path).is_file():
        raise ConfigError(f"Expected {name} to be a file, got {path}, which does not exist.")


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """A temporary name beside ``path``, renamed to it if all went well, else removed."""
    target = Path(path)
    part = target.with_name(f".{target.stem}.{os.getpid()}.part{target.suffix}")
    try:
        yield part
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)


def output_folder(path: str | Path) -> Path:
    """The folder, made if need be.

    Raises:
        ConfigError: it is a file or cannot be written to.
    """
    folder = Path(path)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / f".{os.getpid()}.part"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise ConfigError(
            f"Expected --out to be a folder that can be written to, got {path}: "
            f"{error.strerror or error}."
        ) from error
    return folder
