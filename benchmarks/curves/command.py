"""The command: which rows, on which model, and what is written."""

from __future__ import annotations

import argparse
import json
import shlex
import sys
import warnings
from contextlib import contextmanager
from pathlib import Path

import torch
from srt_plugins.adapters import describe, find_backbone
from tqdm import tqdm

from srt_plugins.core.translate import PADDINGS
from srt_plugins.errors import ConfigError, SRTError
from srt_plugins.evaluation.checkpoint import load_weights
from srt_plugins.evaluation.cost import count_flops
from srt_plugins.evaluation.environment import circumstances
from srt_plugins.evaluation.files import check_file, output_folder, replacing
from srt_plugins.evaluation.keywords import literal
from srt_plugins.evaluation.methods import inference_by, larger_input, matching_scale
from srt_plugins.evaluation.mmseg_session import Session
from srt_plugins.evaluation.request import Request

from .collect import Results, collect, made_by
from .picture import save_picture
from .points import GROUPS, PER_AXIS, Choice, finer_stride
from .rows import points
from .tables import Table

STRENGTHS = ("guided", "guided:0.5:0.3")
MORE_STRENGTHS = ("guided:0.4:0.2", "guided:0.75:0.8", "guided:1:0.6", "guided:1.5:0.8")
COSTS = (2, 4)


def arguments(argv):
    """Parsed arguments."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.curves",
        description="Gain against the number of views, for SRT and every rival, on a model of "
        "MMSegmentation (segmentation or depth) and the test data of its config. Writes "
        "curves_NAME.json, .md and .png; goes on where a run was stopped.",
        epilog="rows:\n" + "\n".join(f"  {name:9s} {text}" for name, text in GROUPS.items()),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("config")
    parser.add_argument("checkpoint")
    parser.add_argument("--complete", choices=PADDINGS, help="how partial patches are completed")
    parser.add_argument("--out", default="work_dirs/curves", metavar="DIR")
    parser.add_argument("--name", help="of the files; default: the config's")
    parser.add_argument("--limit", type=int, metavar="N", help="first N images")
    parser.add_argument("--rows", nargs="+", choices=GROUPS, default=list(GROUPS), metavar="GROUP")
    parser.add_argument("--only", metavar="REGEX", help="of those, rows whose name holds this")
    parser.add_argument("--stride", type=int, metavar="PX", help="finer stride; default: 4 or p/2")
    parser.add_argument("--guided", nargs="+", default=STRENGTHS, help="strengths of all SRT rows")
    parser.add_argument(
        "--more-guided", nargs="*", default=MORE_STRENGTHS, help="further ones of the controls"
    )
    parser.add_argument("--grid", nargs="+", type=int, default=[1, 2, 3], metavar="LEVEL")
    parser.add_argument("--grid-limit", type=int, metavar="N", help="images of the paper's grids")
    parser.add_argument("--parts", default="work_dirs/curves", help="folder of per-image results")
    parser.add_argument("--fresh", action="store_true", help="start anew")
    parser.add_argument("--cfg-options", nargs="+", default=[], metavar="KEY=VALUE")
    parser.add_argument("--device")
    parser.add_argument("--threads", type=int, help="of the CPU")
    parser.add_argument("--seed", type=int, default=0, help="of the bootstrap")
    return parser.parse_args(argv)


def main(argv=None):
    """Run the command."""
    argv = sys.argv[1:] if argv is None else argv
    args = arguments(argv)
    if args.threads:
        torch.set_num_threads(args.threads)
    try:
        print(run(args, argv))
    except SRTError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def run(args, argv):
    """Run all rows and write the files; returns what to tell."""
    for name in ("config", "checkpoint"):
        check_file(name, getattr(args, name))
    name = args.name or Path(args.config).stem
    out, parts = output_folder(args.out), output_folder(args.parts)
    path = parts / f"curves_{name}.jsonl"
    if args.fresh:
        path.unlink(missing_ok=True)
    request = Request(limit=args.limit, batch_size=1, device=args.device)
    with _quiet(), Session(args.config, request, _options(args.cfg_options)) as session:
        loaded = load_weights(session.model, args.checkpoint)
        session.take_settings()
        session.check()
        results = Results(path, made_by(session, Path(args.checkpoint), args.complete))
        with session.completed(args.complete):
            rows = points(_choice(args, session), args.rows, args.only)
            grid = min(args.grid_limit or session.images, session.images)
            like = _collected(session, rows, {"grid": grid}, results)
        tables = _tables(rows, results, like, session.images, grid, args.seed)
        record = {
            "command": shlex.join(["python", "-m", "benchmarks.curves", *map(_shown, argv)]),
            "config": _shown(args.config),
            "checkpoint": _shown(args.checkpoint),
            "complete": args.complete or session.own_padding(),
            **session.record(),
            **circumstances(loaded, session.device),
            "sources": sorted(results.sources),
            "tables": [table.record() for table in tables],
        }
    best = {kind: tables[0].best(kind) for kind in ("blind", "guided")}
    text = f"# {name}: gain against the number of views\n\n{_how(record)}\n"
    text += "".join(f"\n{table.markdown()}" for table in tables)
    with replacing(out / f"curves_{name}.json") as part:
        part.write_text(json.dumps(record, indent=1) + "\n")
    with replacing(out / f"curves_{name}.md") as part:
        part.write_text(text)
    save_picture(tables, out / f"curves_{name}.png", name)
    return f"{out}/curves_{name}.json, .md, .png; best 1x controls: {best}"


def _collected(session, rows, limits, results):
    """Run what is missing; returns a metric of one image."""
    like = session.run_batch(next(iter(session.batches())))[0]
    images = [range(min(limits.get(p.group, session.images), session.images)) for p in rows]
    total = sum(len(one) for one in images)
    done = sum((i, p.name) in results.statistics for p, one in zip(rows, images) for i in one)
    with tqdm(total=total, initial=done, unit="row", smoothing=0.02, mininterval=2) as bar:
        collect(session, rows, limits, results, bar.update)
    return like


def _tables(rows, results, like, images, grid, seed):
    """One table, or two where the paper's grids were run on fewer images."""
    if grid == images:
        return [Table(rows, results, like, images, seed)]
    without = [p for p in rows if p.group != "grid"]
    return [Table(r, results, like, n, seed) for r, n in ((without, images), (rows, grid))]


def _choice(args, session):
    adapter = describe(find_backbone(session.model))
    if adapter.patch is None or adapter.patch < PER_AXIS:
        raise ConfigError(
            f"Expected a backbone with patches of {PER_AXIS} pixels or more, got {adapter.family} "
            f"with {adapter.patch or 'an unknown patch size'}."
        )
    scales = _scales(session, adapter.patch) if "larger" in args.rows else ()
    return Choice(
        patch=adapter.patch,
        stride=args.stride or finer_stride(adapter.patch),
        guided=tuple(args.guided),
        more_guided=tuple(args.more_guided),
        levels=tuple(args.grid),
        scales=scales,
        blocks=len(adapter.blocks),
    )


def _scales(session, patch):
    """Scales per side at which the larger input costs so many forwards, heads and all."""

    def cost(scale):
        with inference_by(session.model, larger_input(scale, patch)):
            return count_flops(session.first)

    plain = count_flops(session.first)
    return tuple((n, matching_scale(cost, plain, n * plain)) for n in COSTS)


def _how(record):
    return (
        f"`{record['command']}`\n\nPartial patches: {record['complete']}. Cost: floating-point "
        "operations of the whole model on the first image, in those of the plain model."
        + (_CHANGED if len(record["sources"]) > 1 else "")
    )


_CHANGED = "\n\n**The package was changed while this ran: start anew with --fresh.**"


def _shown(text):
    """An argument without where on this machine it lies."""
    option, equals, value = str(text).rpartition("=")
    return option + equals + (Path(value).name if Path(value).is_absolute() else value)


def _options(pairs):
    found = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals or not key:
            raise ConfigError(f"Expected --cfg-options to be KEY=VALUE, got {pair!r}.")
        found[key] = literal(value)
    return found


@contextmanager
def _quiet():
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"mm(cv|engine|seg)\b")
        yield
