"""The views of one image shared by two processes (``group="world"``) against one process.

    python -m benchmarks.view_parallel --out benchmarks/results

Two processes of one thread each, on one machine, meet over gloo. Per setting and in turns: the
first one runs all views alone while the other waits; both share them; the first one runs all views
on two threads, the other way to use two cores. Compared by medians. Needs two free cores; CPU time
(of the process that takes more) says what two free cores would give where others use them too.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import tempfile
import time
from pathlib import Path

import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from benchmarks.overhead import SIZE, table, vit
from srt_plugins import SRTWrapper

SETTINGS = {
    "mean": {},
    "mean, dispersion": {"dispersion": True},
    "median": {"statistic": "median"},
}
COLUMNS = {
    "statistic": "statistic",
    "one": "1 process, s",
    "two": "2 processes, s",
    "speedup": "speed-up",
    "spread": "in each turn",
    "cpu_speedup": "by CPU time",
    "threads": "1 process on 2 threads, s",
    "threads_speedup": "speed-up by threads",
    "difference": "largest difference / largest value",
}


def seconds(call):
    """Wall-clock and CPU seconds of a call."""
    wall, cpu = time.perf_counter(), time.process_time()
    call()
    return time.perf_counter() - wall, time.process_time() - cpu


def measured(rank, backbone, image, keywords, repeats):
    """Seconds of each way in every turn, and how far the results lie apart."""
    times = {"one": [], "two": [], "threads": []}
    cpu = {way: [] for way in times}
    found = {}

    def alone():
        if rank == 0:
            found["one"] = backbone(image)[0]

    def shared():
        found["two"] = backbone(image)[0]

    for turn in range(repeats + 1):  # the first warms up
        for way, call, threads in (("one", alone, 1), ("two", shared, 1), ("threads", alone, 2)):
            if way == "threads" and not turn:
                continue
            SRTWrapper(backbone, group="world" if way == "two" else None, **keywords)
            torch.set_num_threads(threads)
            dist.barrier()
            spent = torch.tensor(seconds(call))
            dist.all_reduce(spent, dist.ReduceOp.MAX)
            torch.set_num_threads(1)
            if turn:
                times[way].append(spent[0].item())
                cpu[way].append(spent[1].item())
            if way == "two" and rank == 0:
                apart = (found["two"] - found["one"]).abs().max() / found["one"].abs().max()
    if rank:
        return None
    one, two, threads = (statistics.median(times[way]) for way in times)
    ratios = [a / b for a, b in zip(times["one"], times["two"])]
    return {
        "one": one,
        "two": two,
        "speedup": one / two,
        "spread": f"{min(ratios):.2f} to {max(ratios):.2f}",
        "cpu_speedup": statistics.median(cpu["one"]) / statistics.median(cpu["two"]),
        "threads": threads,
        "threads_speedup": one / threads,
        "difference": f"{apart.item():.0e}",
        "turns": times,
        "cpu_turns": cpu,
    }


def exchange(size, repeats=20):
    """Seconds of one all-reduce of a mean's running sum, in float32."""
    sums = torch.zeros(size)
    dist.barrier()
    return statistics.median(seconds(lambda: dist.all_reduce(sums))[0] for _ in range(repeats))


@torch.no_grad()
def work(rank, folder, args):
    """What each of the two processes runs; the first one saves the results."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    backbone = vit()
    image = torch.randn(1, 3, *SIZE, generator=torch.Generator().manual_seed(0))
    rows = []
    for name, keywords in SETTINGS.items():
        row = measured(rank, backbone, image, {"views": args.views, **keywords}, args.repeats)
        if row:
            rows.append({"statistic": name, **row})
            print(table(rows[-1:], list(COLUMNS)), flush=True)
    grid = (384, SIZE[0] // 16, SIZE[1] // 16)
    spent = exchange(grid)
    if rank == 0:
        found = {"rows": rows, "all_reduce_s": spent, "bytes": 4 * torch.Size(grid).numel()}
        (Path(folder) / "results.json").write_text(json.dumps(found))
    dist.barrier()
    dist.destroy_process_group()


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", default="work_dirs/bench")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--views", type=int, default=16)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        mp.spawn(work, (folder, args), nprocs=2)
        found = json.loads((Path(folder) / "results.json").read_text())
    setup = (
        f"ViT-S/16 (random weights), {SIZE[0]}x{SIZE[1]}, {args.views} views of one image, "
        f"float32, two processes of one CPU thread, gloo, {platform.machine()}, "
        f"torch {torch.__version__}, Python {platform.python_version()}; "
        f"medians of {args.repeats} turns; `python -m benchmarks.view_parallel "
        f"--repeats {args.repeats} --views {args.views}`"
    )
    named = [{title: row[key] for key, title in COLUMNS.items()} for row in found["rows"]]
    exchanged = (
        f"One all-reduce of a mean's running sum ({found['bytes'] / 2**20:.1f} MiB) takes "
        f"{1000 * found['all_reduce_s']:.1f} ms. A GPU was not measured."
    )
    title = "# The views of one image shared by two processes"
    text = "\n\n".join([title, setup, table(named, list(COLUMNS.values())), exchanged])
    out = Path(args.out)
    out.mkdir(parents=True, exist_ok=True)
    (out / "view_parallel.md").write_text(text + "\n")
    (out / "view_parallel.json").write_text(json.dumps({"setup": setup, **found}, indent=1))
    print(text)


if __name__ == "__main__":
    main()
