"""What can be wrong with a command line of ``srt show``, told before anything is loaded."""

from __future__ import annotations

import argparse
from pathlib import Path

from ..errors import ConfigError
from ..evaluation.files import check_file
from .basis import Basis
from .load import FRAMEWORKS
from .needs import matplotlib_maps, pillow, pyav
from .show import Look
from .sources import Source


def check(args: argparse.Namespace) -> None:
    """Numbers, and that every option is one that the model has.

    Raises:
        ConfigError: one that is too low, or that would be passed over.
    """
    least = {"fit": 1, "columns": 1, "width": 16, "size": 16, "every": 1, "limit": 1}
    for name, low in least.items():
        value = getattr(args, name)
        if value is not None and value < low:
            raise ConfigError(f"Expected --{name} to be at least {low}, got {value}.")
    kind = "timm" if args.model[0].startswith("timm/") else args.model[0]
    kind = kind if kind in ("timm", *FRAMEWORKS) else "transformers"
    given = {
        "checkpoint": (args.checkpoint, ("timm",)),
        "options": (args.options or None, FRAMEWORKS),
        "target": (args.target, ("detectron2",)),
        "dtype": (args.dtype, ("transformers",)),
    }
    for name, (value, kinds) in given.items():
        if value is not None and kind not in kinds:
            raise ConfigError(
                f"Expected --{name} with a model of {' or '.join(kinds)}, got {value!r} with one "
                f"of {kind}; leave it out."
            )


def given_basis(args: argparse.Namespace) -> Basis | None:
    """The colours that are given, None where they are to be fitted.

    Raises:
        ConfigError: no file of colours, one without what is asked for, or no place to save them.
    """
    path = args.save_basis
    if path is not None and (Path(path).is_dir() or not Path(path).parent.is_dir()):
        what = "a folder" if Path(path).is_dir() else f"a file in {Path(path).parent}, not there"
        raise ConfigError(f"Expected --save-basis to be a file in a folder, got {path}, {what}.")
    if args.basis is None:
        return None
    check_file("basis", args.basis)
    basis = Basis.load(args.basis)
    if args.no_background and basis.front is None:
        raise ConfigError(
            f"Expected --basis with colours of the foreground for --no-background, got "
            f"{args.basis}, which was fitted with the background; fit it with --no-background "
            "--save-basis."
        )
    return basis


def check_packages(found: list[Source], look: Look) -> None:
    """Look for the packages that pictures need, before models are loaded.

    Raises:
        MissingDependencyError: one is not installed.
    """
    pillow()
    if any(source.moves for source in found):
        pyav()
    names = look.panels or ("dispersion" if look.settings.statistic == "mean" else "",)
    if look.point is not None or {"dispersion", "similarity"} & set(names):
        matplotlib_maps()
