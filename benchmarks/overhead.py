"""Time and memory of SRT beyond its N forward passes, in one run.

    python -m benchmarks --out benchmarks/results

Time: N views through the plain backbone at a given batch, against SRT with N views at that batch,
measured in turns and compared by medians. Memory: peak resident memory of a fresh process that runs
one forward batch of the plain backbone, against one that runs SRT with ever more views.
"""

from __future__ import annotations

import argparse
import json
import platform
import re
import statistics
import subprocess
import sys
import time
from pathlib import Path

import torch
from tqdm import tqdm

import srt_plugins.mmseg  # noqa: F401  (makes mmseg importable with mmcv-lite)
from srt_plugins import SRTWrapper, detach
from srt_plugins.core.views import resolve

SIZE = (368, 480)
SETTINGS = {
    "mean": {},
    "mean + smooth 3": {"smooth": 3},
    "mean, dispersion": {"dispersion": True},
    "median": {"statistic": "median"},
    "mean, stride 8": {"stride": 8},
    "mean, stride 1": {"stride": 1},
}
VIEWS = {"4 (phases)": {}, "49 (level 3)": {"level": 3}}
# The 49 views run for minutes each, so they are timed for these only.
MANY = ("mean", "mean, dispersion", "mean, stride 1")


def vit(width=384, depth=12, heads=6):
    """A ViT-S/16 of MMSegmentation with random weights."""
    from mmseg.models.backbones import VisionTransformer

    torch.manual_seed(0)
    backbone = VisionTransformer(
        img_size=(512, 512),
        patch_size=16,
        embed_dims=width,
        num_layers=depth,
        num_heads=heads,
        out_indices=(depth - 1,),
    )
    backbone.eval()
    return backbone


def seconds(call):
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


@torch.no_grad()
def time_ratio(backbone, image, keywords, view_batch, repeats):
    """Median seconds of N plain views and of SRT with N views, measured in turns."""
    n = len(resolve(keywords.get("views"), keywords.get("level"), 16))
    chunks = [min(view_batch, n - i) for i in range(0, n, view_batch)]
    batch = image.expand(view_batch, -1, -1, -1).contiguous()

    def plain():
        for size in chunks:
            backbone(batch[:size])

    def srt():
        backbone(image)

    times = {"plain": [], "srt": []}
    for _ in range(repeats + 1):
        detach(backbone)
        times["plain"].append(seconds(plain))
        SRTWrapper(backbone, view_batch=view_batch, **keywords)
        times["srt"].append(seconds(srt))
    detach(backbone)
    plain_s, srt_s = (statistics.median(times[k][1:]) for k in ("plain", "srt"))
    return {"views": n, "plain_s": plain_s, "srt_s": srt_s, "ratio": srt_s / plain_s}


def peak_memory(label, keywords, threads):
    """Peak resident MiB of a fresh process; ``keywords=None`` runs one plain view."""
    arguments = json.dumps({"keywords": keywords, "threads": threads})
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.overhead", "--memory-of", arguments],
        check=True,
        capture_output=True,
        text=True,
    )
    return float(done.stdout.strip().splitlines()[-1])


@torch.no_grad()
def run_for_memory(arguments):
    torch.set_num_threads(arguments["threads"])
    backbone = vit()
    if arguments["keywords"] is not None:
        SRTWrapper(backbone, view_batch=1, **arguments["keywords"])
    image = torch.randn(1, 3, *SIZE)
    backbone(image)
    # Not ru_maxrss, which a child inherits from the process that started it.
    status = Path("/proc/self/status").read_text()
    print(int(re.search(r"VmHWM:\s+(\d+) kB", status).group(1)) / 1024)


def table(rows, columns):
    lines = ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    for row in rows:
        cells = [f"{row[c]:.3f}" if isinstance(row[c], float) else str(row[c]) for c in columns]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", default="work_dirs/bench")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--memory-of", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.memory_of:
        return run_for_memory(json.loads(args.memory_of))
    torch.set_num_threads(args.threads)
    backbone, image = vit(), torch.randn(1, 3, *SIZE)
    times, memory = [], []
    jobs = [
        (v, s, b)
        for v in VIEWS
        for s in SETTINGS
        for b in (1, 4)
        if (b == 1 or s == "mean") and ("level" not in VIEWS[v] or (s in MANY and b == 1))
    ]
    for v, s, b in tqdm(jobs, desc="time", unit="setting"):
        repeats = 1 if "level" in VIEWS[v] else args.repeats
        figures = time_ratio(backbone, image, {**VIEWS[v], **SETTINGS[s]}, b, repeats)
        times.append({"views": v, "statistic": s, "batch": b, **{**figures, "views": v}})
    plain = peak_memory("plain", None, args.threads)
    memory.append({"setting": "plain, 1 view", "peak MiB": plain, "beyond plain MiB": 0.0})
    for s in ("mean", "mean, dispersion", "mean, stride 1"):
        for v in VIEWS:
            peak = peak_memory(s, {**VIEWS[v], **SETTINGS[s]}, args.threads)
            memory.append(
                {"setting": f"{s}, {v}", "peak MiB": peak, "beyond plain MiB": peak - plain}
            )
    setup = (
        f"ViT-S/16 (random weights), {SIZE[0]}x{SIZE[1]}, float32, {args.threads} CPU thread(s), "
        f"{platform.machine()}, torch {torch.__version__}, Python {platform.python_version()}; "
        f"`python -m benchmarks --repeats {args.repeats} --threads {args.threads}`"
    )
    text = "\n\n".join(
        [
            "# SRT against N plain forwards",
            setup,
            table(times, ["views", "statistic", "batch", "plain_s", "srt_s", "ratio"]),
            "Peak resident memory of a fresh process, views one at a time:",
            table(memory, ["setting", "peak MiB", "beyond plain MiB"]),
        ]
    )
    out = Path(args.out)
    out.mkdir(parents=True, exist_ok=True)
    (out / "overhead.md").write_text(text + "\n")
    (out / "overhead.json").write_text(
        json.dumps({"setup": setup, "time": times, "memory": memory}, indent=1)
    )
    print(text)
    return None


if __name__ == "__main__":
    main()
