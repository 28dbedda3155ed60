"""Files that must be there, and writing files that are either whole or not there."""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..errors import ConfigError


def check_file(name: str, path: str | Path) -> None:
    """Raise :class:`ConfigError` unless there is a file for the argument ``name``."""
    if not Path(path).is_file():
        what = "is a folder" if Path(path).is_dir() else "does not exist"
        raise ConfigError(f"Expected {name} to be a file, got {path}, which {what}{beside(path)}")


def beside(path: str | Path, folders: bool = False) -> str:
    """The end of a message: ``"; did you mean 'x'?"`` where something of nearly that name is beside
    what is not there, else a full stop.

    Args:
        path: what there is not.
        folders: look for folders, else for files.
    """
    parent = Path(path).parent
    try:
        names = [p.name for p in parent.iterdir() if (p.is_dir() if folders else p.is_file())]
    except OSError:
        return "."
    close = difflib.get_close_matches(Path(path).name, names, n=1)
    return f"; did you mean {str(parent / close[0])!r}?" if close else "."


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
