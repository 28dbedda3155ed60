"""``srt tune``: choosing settings on the command line."""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import detectron2_command, mmseg_command
from .command import files_of, progress_bar
from .files import output_folder, replacing
from .keywords import ALIGNMENTS, DTYPES, PADDINGS, parse_overrides, parse_row

# What needs torch is imported when a command runs, so that its help comes at once.
if TYPE_CHECKING:
    from .tune import Tuning

_EPILOG = """\
candidates, none of which costs more than --budget forwards of the plain model (by floating-point
operations): one view, and as many phases of the patch as the budget pays for, each without
smoothing, with [1 2 1]/4 and [1 4 6 4 1]/16, and smoothed along the image in 16 strengths, at the
backbone's stride and at a quarter of the patch where the model takes finer maps; then, with the
best smoothing and stride, fewer views, mirrored ones, another padding, the paper's levels, and
averages after a third and two thirds of the blocks. The backbone runs once on each view of each
image, but for those after a layer. What will be run, and about how long that takes, is said first.
"""
_UNLABELLED = """
without labels (--without-labels), a candidate scores by how well it foretells what the plain model
says in held-out views: the image enlarged 1.5 times, translated and mirrored. Unless one is clearly
better by that, SRT's default is kept. Labels of a few images choose better; docs/tuning.md has
measurements.
"""
_EXAMPLES = {
    "mmseg": """
examples:
  srt tune mmseg config.py weights.pth
  srt tune mmseg config.py weights.pth --images 10 --budget 10 --complete replicate
  srt tune mmseg config.py weights.pth --own-stride --row 'views=phases:3,smooth=3'
  srt tune mmseg config.py weights.pth --without-labels
  srt tune mmseg config.py weights.pth --images-from my_images
""",
    "detectron2": """
examples:
  srt tune detectron2 config.yaml weights.pth --target net
  srt tune detectron2 config.py weights.pth --budget 2 --no-layers
""",
    "transformers": """
examples:
  srt tune transformers my_segformer my_data
  srt tune transformers my_zoedepth nyu --crop eigen --budget 10
  srt tune transformers my_segformer my_images --without-labels
""",
}
_OVERVIEW = """\
examples:
  srt tune mmseg config.py weights.pth
  srt tune detectron2 config.yaml weights.pth
  srt tune transformers my_segformer my_data

srt tune FRAMEWORK --help tells more.
"""
_WAYS = (
    ("levels", "the paper's full grids, as far as the budget goes"),
    ("layers", "averages after a third and after two thirds of the blocks, of more views"),
    ("flip", "views of which every second is mirrored"),
    ("padding", "pixels outside the image reflected"),
)
_JUDGING: tuple[tuple[str, dict[str, Any]], ...] = (
    ("min-depth", {"type": float, "metavar": "M", "help": "judge above this depth"}),
    ("max-depth", {"type": float, "metavar": "M", "help": "judge below this depth"}),
    ("crop", {"choices": ("eigen",), "help": "judge the usual crop of NYU's images"}),
    ("align", {"choices": ALIGNMENTS, "help": "fit predictions to the truth of each image"}),
    ("disparity", {"action": "store_true", "help": "the model predicts inverse depth"}),
    ("depth-scale", {"type": float, "metavar": "N", "help": "units of depth PNGs per metre"}),
    ("ignore-index", {"type": int, "metavar": "I", "help": "label that is not judged"}),
    (
        "reduce-labels",
        {"action": argparse.BooleanOptionalAction, "help": "label 0 is unlabelled"},
    ),
    ("dtype", {"choices": DTYPES, "help": "of the model (default: as the weights are saved)"}),
)


def add_parser(commands: Any) -> None:
    """Add ``tune`` to the commands."""
    tune: argparse.ArgumentParser = commands.add_parser(
        "tune",
        help="the best settings within a budget of forwards, by a few images",
        description="Try many settings of SRT on a few images, labelled or not, and print the best "
        "within a budget of forwards, to paste.",
        epilog=_OVERVIEW,
    )
    frameworks = tune.add_subparsers(dest="framework", metavar="FRAMEWORK", required=True)
    _add_mmseg(frameworks)
    _add_detectron2(frameworks)
    _add_transformers(frameworks)


def _add_mmseg(frameworks: Any) -> None:
    parser = _parser(frameworks, "mmseg", "a model of MMSegmentation", _run_mmseg)
    parser.add_argument("config", help="config file, whose code runs; its validation data are used")
    parser.add_argument("checkpoint", help="weights")
    _add_options(parser)
    _add_complete(parser)
    _add_without_labels(parser)
    parser.add_argument(
        "--images-from",
        metavar="DIR",
        help="images of a folder in place of the config's; implies --without-labels",
    )
    parser.add_argument(
        "--cfg-options", nargs="+", default=[], metavar="KEY=VALUE", help="overrides of the config"
    )


def _add_detectron2(frameworks: Any) -> None:
    parser = _parser(frameworks, "detectron2", "a model of Detectron2", _run_detectron2)
    parser.add_argument("config", help="yacs config (.yaml), or LazyConfig (.py), whose code runs")
    parser.add_argument("checkpoint", help="weights")
    _add_options(parser)
    _add_complete(parser)
    parser.add_argument("--target", metavar="PART", help="part of the backbone to ensemble")
    parser.add_argument("--dataset", metavar="NAME", help="default: as the config says")
    parser.add_argument(
        "--opts", nargs="+", default=[], metavar="OPT", help="overrides in the config's own syntax"
    )


def _add_transformers(frameworks: Any) -> None:
    parser = _parser(frameworks, "transformers", "a model of transformers", _run_transformers)
    parser.add_argument("model", help="folder that save_pretrained wrote, or a name")
    parser.add_argument(
        "dataset",
        help="folder with images/ and depth/ or labels/, or scenes; without labels, of images",
    )
    _add_options(parser)
    _add_without_labels(parser)
    judging = parser.add_argument_group("judging", "as in srt compare transformers")
    for name, how in _JUDGING:
        judging.add_argument(f"--{name}", **how)


def _parser(frameworks: Any, name: str, text: str, run: Any) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = frameworks.add_parser(
        name,
        help=text,
        description="Try many settings of SRT on a few images, by the framework's own evaluation; "
        "print all of them and the best one to paste.",
        epilog=_EPILOG + (_UNLABELLED if name != "detectron2" else "") + _EXAMPLES[name],
    )
    parser.set_defaults(run=run)
    return parser


def _add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--images", type=int, default=10, metavar="N", help="images that choose (default: 10)"
    )
    parser.add_argument(
        "--budget",
        type=float,
        metavar="X",
        help="forwards of the plain model that a candidate may cost (default: 5, or 1.25 times "
        "--views)",
    )
    parser.add_argument(
        "--views",
        type=int,
        metavar="N",
        help="phases of the patch (default: the most of 2, 4, 9, 16, ... within the budget)",
    )
    parser.add_argument(
        "--own-stride", action="store_true", help="no finer maps than the backbone's own"
    )
    for way, what in _WAYS:
        parser.add_argument(
            f"--{way}", action=argparse.BooleanOptionalAction, default=True, help=f"try {what}"
        )
    parser.add_argument(
        "--row",
        action="append",
        default=[],
        metavar="'K=V,K=V'",
        help="one more candidate with these keywords; repeatable",
    )
    parser.add_argument("--out", metavar="DIR", help="write tune.json and tune.md")
    parser.add_argument("--json", action="store_true", help="print JSON instead of the table")
    parser.add_argument("--seed", type=int, default=0, help="of the bootstrap (default: 0)")
    parser.add_argument("--device", help="cpu, cuda, ... (default: a GPU if there is one)")
    parser.add_argument("--batch-size", type=int, metavar="N", help="default: as the config says")
    parser.add_argument("--workers", type=int, default=0, metavar="N", help="that load data")
    parser.add_argument(
        "--trust-checkpoint",
        action="store_true",
        help="load a checkpoint that holds more than plain tensors; this can run code from it",
    )


def _add_complete(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--complete", choices=PADDINGS, help="how partial patches are completed, in every candidate"
    )


def _add_without_labels(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--without-labels", action="store_true", help="judge by held-out views; see below"
    )


def _run_mmseg(args: argparse.Namespace, argv: list[str]) -> int:
    from .mmseg_tune import tune_mmseg

    own = {
        "complete": args.complete,
        "images_from": args.images_from,
        "cfg_options": parse_overrides(args.cfg_options),
    }
    asked = [*_given("--complete", args.complete), *_given("--cfg-options", *args.cfg_options)]
    return _run(args, argv, tune_mmseg, files_of(args), own, asked, mmseg_command.quiet())


def _run_detectron2(args: argparse.Namespace, argv: list[str]) -> int:
    from .detectron2_tune import tune_detectron2

    names = ("target", "complete", "dataset")
    own = {**{name: getattr(args, name) for name in names}, "cfg_options": args.opts}
    asked = [word for name in names for word in _given(f"--{name}", own[name])]
    asked += _given("--opts", *args.opts)
    return _run(args, argv, tune_detectron2, files_of(args), own, asked, detectron2_command.quiet())


def _run_transformers(args: argparse.Namespace, argv: list[str]) -> int:
    from .transformers_data import OF_TASK
    from .transformers_load import quiet
    from .transformers_tune import tune_transformers

    own = {name: getattr(args, name) for name in (*OF_TASK["depth"], *OF_TASK["semantic"], "dtype")}
    asked = []
    for name, value in own.items():
        flag = f"--{name.replace('_', '-')}"
        if value is False and name == "reduce_labels":
            asked.append("--no-reduce-labels")
        elif value is True:
            asked.append(flag)
        elif value is not False:
            asked += _given(flag, value)
    inputs = (args.model, args.dataset)
    return _run(args, argv, tune_transformers, inputs, own, asked, quiet())


def _given(flag: str, *values: Any) -> list[str]:
    there = [str(value) for value in values if value is not None]
    return [flag, *there] if there else []


def _run(
    args: argparse.Namespace,
    argv: list[str],
    tune: Callable[..., Tuning],
    inputs: tuple[str, str],
    own: dict[str, Any],
    asked: list[str],
    quiet: AbstractContextManager[None],
) -> int:
    """Tune, write the files, print.

    Args:
        args: parsed arguments.
        argv: as they were given, for the record.
        tune: function of the framework.
        inputs: what it tunes, and on what.
        own: keywords of its own that ``tune`` takes.
        asked: the options that ``srt compare`` needs to run the same model on the same data.
        quiet: while active, the framework tells nothing but errors.
    """
    from .candidates import Ways
    from .tune import Plan
    from .tune_report import markdown

    rows = [parse_row(text) for text in args.row]
    plan = Plan(
        images=args.images,
        budget=1.25 * (args.views or 4) if args.budget is None else args.budget,
        views=args.views,
        finer=not args.own_stride,
        ways=Ways(fewer=args.views is None, **{way: getattr(args, way) for way, _ in _WAYS}),
        rows=rows,
        labels=not getattr(args, "without_labels", False),
        told=lambda text: print(f"srt: {text}", file=sys.stderr),
    )
    out = None if args.out is None else output_folder(args.out)
    with redirect_stdout(sys.stderr), quiet, progress_bar() as progress:
        tuning = tune(
            *inputs,
            plan,
            batch_size=args.batch_size,
            workers=args.workers,
            device=args.device,
            seed=args.seed,
            trust_checkpoint=args.trust_checkpoint,
            progress=progress,
            **own,
        )
    tuning.context = {"command": shlex.join(["srt", *argv]), **tuning.context, "asked": asked}
    if out is not None:
        tuning.save(out / "tune.json")
        with replacing(out / "tune.md") as part:
            part.write_text(
                markdown(tuning, args.framework, Path(inputs[0]).stem), encoding="utf-8"
            )
    if args.json:
        print(json.dumps(tuning.to_dict(), indent=2, ensure_ascii=False))
    else:
        _print(tuning, args.framework)
    return 0


def _print(tuning: Tuning, framework: str) -> None:
    from rich.console import Console

    from .report import rich_table
    from .tune_report import conclusion, footnotes, pastes, sheet

    console = Console(highlight=False)
    table = rich_table(sheet(tuning))
    width = console.measure(table, options=console.options.update_width(10_000)).maximum
    console.width = max(console.width, width)
    console.print(table, "", sep="\n")
    console.print(footnotes(tuning), style="dim", markup=False, soft_wrap=True)
    console.print(conclusion(tuning), style="bold", markup=False, soft_wrap=True)
    for where, text in pastes(tuning, framework).items():
        console.print(f"{where:16s}{text}", markup=False, soft_wrap=True)
