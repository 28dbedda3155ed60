"""``srt bench``: the benchmark on the command line."""

from __future__ import annotations

import argparse
import json
import os
import shlex
import sys
from dataclasses import dataclass
from importlib import metadata
from typing import TYPE_CHECKING, Any

from ..errors import ConfigError
from ..evaluation.files import output_folder, replacing
from ..evaluation.keywords import DTYPES, literal

# What needs torch is imported when the command runs, so that its help comes at once.
if TYPE_CHECKING:
    import torch

    from .plan import Plan
    from .results import Measurement

_EPILOG = """\
rows, for each number of views: token mean, token mean and dispersion, median, pixel mean
(stride=1), ensembling after a middle and after a late block, smoothing, and a naive loop; times are
over as many plain forwards at their best batch.

default on a CPU: vit_small at 368x480 in float32
default on a GPU: vit_small, vit_base, vit_large at 518x518 and 1024x1024 in bfloat16

examples:
  srt bench --quick
  srt bench --threads 1 --out work_dirs/bench
  srt bench --device cuda --model vit_large --size 1024 1024 --dtype bfloat16
"""


@dataclass(frozen=True)
class _Setup:
    """What follows from the arguments and the device."""

    device: torch.device
    dtype: torch.dtype
    models: list[tuple[str, tuple[int, int]]]
    plan: Plan


def add_parser(commands: Any) -> None:
    """Add ``bench`` to the commands."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "bench",
        help="time and memory of SRT against plain forwards and a naive loop",
        description="Measure what SRT costs beyond its forwards on ViTs of timm with random "
        "weights; print tables and write bench.json, bench.md and bench.png.",
        epilog=_EPILOG,
    )
    parser.add_argument("--device", default="auto", help="auto (default), cpu, cuda, cuda:1, ...")
    parser.add_argument("--dtype", choices=DTYPES, help="of weights and images")
    parser.add_argument(
        "--model", nargs="+", metavar="NAME", help="vit_small, vit_base, ..., or names of timm"
    )
    parser.add_argument(
        "--size",
        nargs=2,
        type=int,
        action="append",
        metavar=("H", "W"),
        help="image size in pixels, whole patches; may be given several times",
    )
    parser.add_argument(
        "--views",
        nargs="+",
        type=int,
        metavar="N",
        help="numbers of views (default: 4 16 49; 49 is the paper's level 3)",
    )
    parser.add_argument(
        "--view-batch", default="auto", metavar="N", help="views per forward of SRT (default: auto)"
    )
    parser.add_argument("--threads", type=int, metavar="N", help="of the CPU (default: torch's)")
    parser.add_argument(
        "--repeats",
        type=int,
        metavar="N",
        help="measurements of each row (default: 3, on a GPU 5); on a CPU fewer of many views",
    )
    parser.add_argument(
        "--process-time",
        action="store_true",
        help="time that the cores of a CPU spend on this process, instead of the time of day: for "
        "a machine that others use too",
    )
    parser.add_argument("--quick", action="store_true", help="a tiny model, no 49 views: a minute")
    parser.add_argument(
        "--out", metavar="DIR", default="work_dirs/bench", help="default: work_dirs/bench"
    )
    parser.add_argument("--json", action="store_true", help="print JSON instead of the tables")
    parser.set_defaults(run=run_command)


def run_command(args: argparse.Namespace, argv: list[str]) -> int:
    """Measure, write the files, print."""
    import torch

    from ..evaluation.environment import hardware, versions
    from .plot import save_plot
    from .report import markdown
    from .results import Benchmark

    setup = _setup(args)
    out = output_folder(args.out)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(_threads(args.threads))
        made = [_measured(name, size, setup) for name, size in setup.models]
        context = {
            "command": shlex.join(["srt", *argv]),
            "hardware": hardware(setup.device),
            "clock": "process" if setup.plan.process_time else "wall",
            "versions": {**versions(), "timm": metadata.version("timm")},
        }
    finally:
        torch.set_num_threads(before)
    benchmark = Benchmark(made, context)
    benchmark.save(out / "bench.json")
    text = markdown(benchmark)
    with replacing(out / "bench.md") as part:
        part.write_text(text, encoding="utf-8")
    picture = save_plot(benchmark, out / "bench.png")
    if args.json:
        print(json.dumps(benchmark.to_dict(), indent=2, ensure_ascii=False))
        print(picture, file=sys.stderr)
    else:
        print(text)
        print(picture)
    return 0


def _setup(args: argparse.Namespace) -> _Setup:
    """Everything that can be checked before the first forward.

    Raises:
        ConfigError: see the argument that it names.
    """
    import torch

    from ..evaluation.environment import chosen_device
    from .models import check_model
    from .plan import DEFAULT_COUNTS, Plan

    device = chosen_device(None if args.device == "auto" else args.device)
    if device.type not in ("cpu", "cuda"):
        raise ConfigError(f"Expected --device to be auto, cpu or cuda, got {args.device!r}.")
    gpu = device.type == "cuda"
    if args.quick:
        models, sizes, dtype, repeats = ["vit_tiny"], [[192, 256]], "float32", 3
    elif gpu:
        models, sizes = ["vit_small", "vit_base", "vit_large"], [[518, 518], [1024, 1024]]
        dtype, repeats = "bfloat16", 5
    else:
        models, sizes, dtype, repeats = ["vit_small"], [[368, 480]], "float32", 3
    chosen = []
    for model in args.model or models:
        for height, width in args.size or sizes:
            if min(height, width) < 1:
                raise ConfigError(
                    f"Expected --size to be two numbers of pixels above zero, got {height} "
                    f"{width}; use --size 368 480."
                )
            chosen.append((check_model(model, (height, width)), (height, width)))
    counts = args.views or (DEFAULT_COUNTS[:2] if args.quick else DEFAULT_COUNTS)
    plan = Plan(
        counts=tuple(sorted(set(counts))),
        repeats=repeats if args.repeats is None else args.repeats,
        view_batch=literal(args.view_batch),
        process_time=args.process_time,
    )
    if args.process_time and gpu:
        raise ConfigError(
            "Expected --process-time with --device cpu, got a GPU, which is timed by its own "
            "clock; leave it out."
        )
    _threads(args.threads)
    return _Setup(device, getattr(torch, args.dtype or dtype), chosen, plan)


def _threads(asked: int | None) -> int:
    import torch

    if asked is None:
        return torch.get_num_threads()
    if asked < 1:
        raise ConfigError(f"Expected --threads to be 1 or more, got {asked}; use --threads 1.")
    return asked


def _measured(name: str, size: tuple[int, int], setup: _Setup) -> Measurement:
    """One model at one size, with a progress bar over views on a terminal."""
    import torch
    from tqdm import tqdm

    from ..adapters import describe
    from .measuring import measure
    from .models import build

    backbone, patch = build(name, size, setup.device, setup.dtype)
    setup.plan.views(patch)
    images = torch.randn(1, 3, *size, device=setup.device, dtype=setup.dtype)
    total = setup.plan.total_views(len(describe(backbone).blocks), setup.device)
    # None = shown on a terminal.
    hidden = True if os.environ.get("TERM") == "dumb" else None
    with tqdm(total=total, unit="view", file=sys.stderr, disable=hidden) as bar:

        def progress(what: str, views: int) -> None:
            bar.set_description(f"{name} {size[0]}x{size[1]}, {what}")
            bar.update(views)

        return measure(name, backbone, images, setup.plan, progress)
