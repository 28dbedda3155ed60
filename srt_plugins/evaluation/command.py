"""``srt compare mmseg``: the comparison on the command line."""

from __future__ import annotations

import argparse
import json
import shlex
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout, suppress
from pathlib import Path
from typing import Any

from ..core.translate import PADDINGS
from ..errors import ConfigError, MissingDependencyError
from .files import output_folder
from .keywords import add_srt_options, given_keywords, literal, parse_row
from .mmseg_compare import Progress, compare_mmseg
from .plot import save_plot
from .report import footnotes, table
from .results import Comparison
from .rows import SKIPPABLE

_EPILOG = """\
rows, each one run of MMSegmentation's own test loop on the same images:
  plain                the model as it is
  1x smoothing         no views, the token grid smoothed; costs nothing, so SRT must beat it
  1x replicate padding partial patches completed with real pixels instead of a constant, where the
                       data have any; free as well. --complete replicate does so in every row
  SRT                  with the settings asked for
  output ensemble      the paper's OE: the whole model on every view, logits averaged
  flip TTA             logits of the image and its mirror image averaged
  larger input         the input enlarged until it costs as many operations as the views

examples:
  srt compare mmseg config.py weights.pth
  srt compare mmseg config.py weights.pth --level 3 --skip oe larger --limit 50
  srt compare mmseg config.py weights.pth --row 'views=phases:3,smooth=3' --row level=3
  srt compare mmseg config.py weights.pth --complete replicate --out work_dirs/replicate
"""


def add_parser(frameworks: Any) -> None:
    """Add ``mmseg`` to the frameworks of ``compare``."""
    parser: argparse.ArgumentParser = frameworks.add_parser(
        "mmseg",
        help="a model of MMSegmentation",
        description="Run a model with and without SRT, and with what SRT must beat, on the test "
        "data of its config; print a table and write compare.json and compare.png.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("config", help="config file with test_dataloader and test_evaluator")
    parser.add_argument("checkpoint", help="weights")
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
    rows.add_argument(
        "--complete",
        choices=PADDINGS,
        help="how the preprocessor completes partial patches, in every row (default: as the "
        "config says)",
    )
    run = parser.add_argument_group("run")
    run.add_argument("--out", metavar="DIR", help="default: work_dirs/compare/<config name>")
    run.add_argument("--limit", type=int, metavar="N", help="first N images only")
    run.add_argument("--device", help="cpu, cuda, cuda:1, ... (default: a GPU if there is one)")
    run.add_argument("--batch-size", type=int, metavar="N", help="default: as the config says")
    run.add_argument("--workers", type=int, default=0, metavar="N", help="data loading processes")
    run.add_argument("--seed", type=int, default=0, help="of the bootstrap (default: 0)")
    run.add_argument("--json", action="store_true", help="print JSON instead of the table")
    run.add_argument(
        "--cfg-options", nargs="+", default=[], metavar="KEY=VALUE", help="overrides of the config"
    )
    run.add_argument(
        "--trust-checkpoint",
        action="store_true",
        help="load a checkpoint that holds more than plain tensors; this can run code from it",
    )
    parser.set_defaults(run=run_command)


def run_command(args: argparse.Namespace, argv: list[str]) -> int:
    """Compare, write the files, print."""
    asked = given_keywords(args)
    extra = [parse_row(text) for text in args.row]
    for name in ("config", "checkpoint"):
        path = getattr(args, name)
        if not Path(path).is_file():
            raise ConfigError(f"Expected {name} to be a file, got {path}, which does not exist.")
    out = output_folder(args.out or Path("work_dirs", "compare", Path(args.config).stem))
    # Whatever the frameworks print must not get between the lines of the JSON.
    with redirect_stdout(sys.stderr), _quiet(), _bar() as progress:
        comparison = compare_mmseg(
            args.config,
            args.checkpoint,
            [asked] if asked else None,
            extra_rows=extra,
            complete=args.complete,
            skip=args.skip,
            limit=args.limit,
            batch_size=args.batch_size,
            workers=args.workers,
            device=args.device,
            seed=args.seed,
            trust_checkpoint=args.trust_checkpoint,
            cfg_options=_cfg_options(args.cfg_options),
            progress=progress,
        )
    comparison.context = {"command": shlex.join(["srt", *argv]), **comparison.context}
    comparison.save(out / "compare.json")
    picture = save_plot(comparison, out / "compare.png", Path(args.config).stem)
    if args.json:
        print(json.dumps(comparison.to_dict(), indent=2, ensure_ascii=False))
        print(picture, file=sys.stderr)
    else:
        _print(comparison)
        print(picture)
    return 0


def _print(comparison: Comparison) -> None:
    from rich.console import Console

    console = Console(highlight=False)
    # In a narrower terminal lines break, but no figure is cut off.
    console.width = max(console.width, _WIDTH)
    console.print(table(comparison))
    console.print(footnotes(comparison), style="dim", markup=False, soft_wrap=True)
    console.print(comparison.conclusion(), style="bold", markup=False, soft_wrap=True)


_WIDTH = 160


def _cfg_options(pairs: list[str]) -> dict[str, Any]:
    found = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals or not key:
            raise ConfigError(f"Expected --cfg-options to be KEY=VALUE, got {pair!r}.")
        found[key] = {"true": True, "false": False, "none": None}.get(value.lower(), literal(value))
    return found


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the frameworks' deprecation warnings and notices; ours and torch's stay."""
    with suppress(ImportError):
        from mmengine.logging import MMLogger

        MMLogger.get_instance("srt", log_level="ERROR")  # the current one while configs are read
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"mm(cv|engine|seg)\b")
        yield


@contextmanager
def _bar() -> Iterator[Progress]:
    """One progress bar over rows times images, on stderr."""
    try:
        from rich.console import Console
        from rich.progress import BarColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as Bar
    except ImportError as error:
        raise MissingDependencyError(
            "The progress bar needs rich, which comes with mmengine: pip install "
            "'srt-plugins[mmseg]'."
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
