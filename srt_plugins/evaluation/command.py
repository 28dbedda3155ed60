"""What the ``srt compare`` commands share: options, files, printing."""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Any, Callable

from ..errors import MissingDependencyError
from .files import check_file, output_folder, replacing
from .keywords import SKIPPABLE, add_srt_options, given_keywords, parse_row

# What needs torch is imported when a command runs, so that its help comes at once.
if TYPE_CHECKING:
    from .request import Progress
    from .results import Comparison


def add_arguments(parser: argparse.ArgumentParser, **inputs: str) -> tuple[Any, Any]:
    """Add what every comparison takes; returns the groups of other rows and of the run.

    Args:
        parser: gets the arguments.
        **inputs: what is compared, and on what: names of the positional arguments with their help.
    """
    for name, text in inputs.items():
        parser.add_argument(name, help=text)
    add_srt_options(parser)
    rows = parser.add_argument_group("other rows")
    rows.add_argument(
        "--skip",
        nargs="+",
        default=[],
        choices=SKIPPABLE,
        metavar="ROW",
        help=f"rows to leave out: {', '.join(SKIPPABLE)}",
    )
    run = parser.add_argument_group("run")
    run.add_argument(
        "--out", metavar="DIR", help=f"default: work_dirs/compare/<name of {next(iter(inputs))}>"
    )
    run.add_argument("--limit", type=int, metavar="N", help="first N images only")
    run.add_argument("--device", help="cpu, cuda, cuda:1, ... (default: a GPU if there is one)")
    run.add_argument(
        "--batch-size", type=int, metavar="N", help="default: as the config says, or 1"
    )
    run.add_argument("--workers", type=int, default=0, metavar="N", help="data loading processes")
    run.add_argument("--seed", type=int, default=0, help="of the bootstrap (default: 0)")
    run.add_argument("--json", action="store_true", help="print JSON instead of the table")
    run.add_argument(
        "--calibration",
        action="store_true",
        help="also tell how well probabilities and the dispersion of views tell where predictions "
        "are wrong: ECE, AUSE, rank correlation (segmentation and depth; takes longer)",
    )
    run.add_argument(
        "--trust-checkpoint",
        action="store_true",
        help="load a checkpoint that holds more than plain tensors; this can run code from it",
    )
    return rows, run


def run_comparison(
    args: argparse.Namespace,
    argv: list[str],
    compare: Callable[..., Comparison],
    inputs: tuple[str, str],
    own: dict[str, Any],
    quiet: AbstractContextManager[None],
) -> int:
    """Compare, write the files, print.

    Args:
        args: parsed arguments.
        argv: as they were given, for the record.
        compare: function of the framework.
        inputs: what it compares, and on what.
        own: keywords of its own that ``compare`` takes.
        quiet: while active, the framework tells nothing but errors.
    """
    from .plot import save_plot
    from .report import markdown

    asked = given_keywords(args)
    extra = [parse_row(text) for text in args.row]
    given = Path(inputs[0]).resolve()
    name = given.stem if given.is_file() else given.name
    out = output_folder(args.out or Path("work_dirs", "compare", name))
    # Whatever the frameworks print must not get between the lines of the JSON.
    with redirect_stdout(sys.stderr), quiet, progress_bar() as progress:
        comparison = compare(
            *inputs,
            [asked] if asked else None,
            extra_rows=extra,
            skip=args.skip,
            limit=args.limit,
            batch_size=args.batch_size,
            workers=args.workers,
            device=args.device,
            seed=args.seed,
            trust_checkpoint=args.trust_checkpoint,
            calibration=args.calibration,
            progress=progress,
            **own,
        )
    comparison.context = {"command": shlex.join(["srt", *argv]), **comparison.context}
    comparison.save(out / "compare.json")
    with replacing(out / "compare.md") as part:
        part.write_text(markdown(comparison, name), encoding="utf-8")
    picture = save_plot(comparison, out / "compare.png", name)
    if args.json:
        print(json.dumps(comparison.to_dict(), indent=2, ensure_ascii=False))
        print(picture, file=sys.stderr)
    else:
        print_comparison(comparison)
        print(picture)
    return 0


def files_of(args: argparse.Namespace) -> tuple[str, str]:
    """The config and the checkpoint.

    Raises:
        ConfigError: one of them does not exist.
    """
    for name in ("config", "checkpoint"):
        check_file(name, getattr(args, name))
    return args.config, args.checkpoint


def print_comparison(comparison: Comparison) -> None:
    """Print its tables, footnotes and conclusion on stdout."""
    from rich.console import Console

    from .report import footnotes, rich_table, sheets

    console = Console(highlight=False)
    tables = [rich_table(sheet) for sheet in sheets(comparison)]
    # In a narrower terminal lines break, but no figure is cut off.
    endless = console.options.update_width(_ENDLESS)
    widths = [console.measure(one, options=endless).maximum for one in tables]
    console.width = max(console.width, *widths)
    for one in tables:
        console.print(one, "", sep="\n")
    console.print(footnotes(comparison), style="dim", markup=False, soft_wrap=True)
    console.print(comparison.conclusion(), style="bold", markup=False, soft_wrap=True)


_ENDLESS = 10_000


@contextmanager
def progress_bar() -> Iterator[Progress]:
    """One progress bar over rows times images, on stderr."""
    try:
        from rich.console import Console
        from rich.progress import BarColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as Bar
    except ImportError as error:
        raise MissingDependencyError(
            "The table needs rich, which is not installed: pip install rich."
        ) from error
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed:.0f}/{task.total:.0f}"),
        TimeRemainingColumn(),
    )
    console = Console(stderr=True)
    with Bar(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("preparing", total=None)

        def progress(row: str, number: int, rows: int, done: int, images: int) -> None:
            completed, total = number * images + done, rows * images
            bar.update(task, description=row, completed=completed, total=total)

        yield progress
