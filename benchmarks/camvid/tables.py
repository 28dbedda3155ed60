"""Feature-level settings on CamVid validation, from MMSegmentation's own test loop.

    CAMVID_ROOT=path/to/camvid python benchmarks/camvid/tables.py path/to/vit_camvid.pth \
        --complete replicate --out benchmarks/results

Every row is a full `Runner.test()` over all images. Many rows share views, so the backbone's
output is remembered by input (a view that was run for one row is not run again for the next):
figures are the same, and seconds are not reported here. `srt compare` measures cost, and the
output-level rivals.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from contextlib import contextmanager
from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.runner import Runner
from tqdm import tqdm

import srt_plugins.mmseg  # noqa: F401  (registers, and makes mmseg importable with mmcv-lite)
from srt_plugins import srt_enabled
from srt_plugins.core import resample
from srt_plugins.evaluation.bootstrap import draw, interval, resampled_miou
from srt_plugins.evaluation.scores import mean_iou, stack_areas

SQUARE = {
    m: [(dy, dx) for dy in m for dx in m]
    for m in [(-8, 0, 8), (-8, -4, 0, 4, 8), (0, 8), (-8, 0), (-4, 4)]
}
ZERO_ROWS = {
    "plain": None,
    "1x: blur [1 2 1]/4": dict(views=[(0, 0)], smooth=3),
    "1x: blur [1 4 6 4 1]/16": dict(views=[(0, 0)], smooth=5),
    "{0, 8} (default)": dict(),
    "{0, 8} + blur 3": dict(smooth=3),
    "{0, 8} + blur 5": dict(smooth=5),
    "+-4": dict(views=SQUARE[-4, 4]),
    "{-8, 0, 8}": dict(views=SQUARE[-8, 0, 8]),
    "{-8, -4, 0, 4, 8}": dict(views=SQUARE[-8, -4, 0, 4, 8]),
    "paper's grid, level 3": dict(level=3),
    "reference's averaging, level 3": "reference",
    "paper's grid, level 3, stride 8": dict(level=3, stride=8),
    "paper's grid, level 3, median": dict(level=3, statistic="median"),
    "+-4, after block 8 of 10": dict(views=SQUARE[-4, 4], layer=7),
    "+-4, after block 4 of 10": dict(views=SQUARE[-4, 4], layer=3),
    "{0, 8}, after block 9 of 10": dict(layer=8),
    "{0, 8}, after block 8 of 10": dict(layer=7),
    "{0, 8}, zero-padded views": dict(padding="zeros"),
    "{0, 8}, reflect-padded views": dict(padding="reflect"),
}
REPLICATE_VIEWS = {
    "plain": [(0, 0)],
    "(0,0), (8,8)": [(0, 0), (8, 8)],
    "{-8, 0}": SQUARE[-8, 0],
    "{0, 8} (default)": SQUARE[0, 8],
    "+-4": SQUARE[-4, 4],
    "{-8, 0, 8}": SQUARE[-8, 0, 8],
    "{-8, -4, 0, 4, 8}": SQUARE[-8, -4, 0, 4, 8],
}
REPLICATE_ROWS = {
    f"{name}{label}": dict(views=views, smooth=smooth)
    for name, views in REPLICATE_VIEWS.items()
    for label, smooth in [("", None), (" + blur 3", 3), (" + blur 5", 5), (" + blur 7", 7)]
}


def remember(backbone):
    """Make the plain forward remember its output by input, outside of SRT's own class swap."""
    memory = {}
    cls = type(backbone)

    def forward(self, images):
        if any(block._forward_hooks or "forward" in vars(block) for block in self.layers):
            return cls.forward(self, images)  # layer= looks into the forward: it must run
        key = (hashlib.blake2b(images.numpy().tobytes()).digest(), tuple(images.shape))
        if key not in memory:
            memory[key] = cls.forward(self, images)
        return memory[key]

    backbone.__class__ = type(cls.__name__, (cls,), {"forward": forward})


@contextmanager
def reference_averaging():
    """Borders that a view does not show count as zeros, and the centre view counts twice."""
    build = resample._build

    def careless(*args):
        made = build(*args)
        made.coverage.fill_(float(made.weights.sum()))
        return made

    resample._CACHE.clear()
    resample._build = careless
    try:
        yield
    finally:
        resample._build = build
        resample._CACHE.clear()


def settings_of(row):
    if row != "reference":
        return row
    side = range(-3, 4)
    return dict(views=[(y, x, 2.0 if (y, x) == (0, 0) else 1.0) for y in side for x in side])


def evaluate(runner, row):
    """MMSegmentation's per-image pixel counts and its own mIoU of one row."""
    model, metric = runner.model, runner.test_loop.evaluator.metrics[0]
    areas = []
    compute = type(metric).compute_metrics

    def keep(results):
        areas.extend(results)
        return compute(metric, results)

    metric.compute_metrics = keep
    if row is None:
        figures = runner.test()
    elif row == "reference":
        with reference_averaging(), srt_enabled(model, **settings_of(row)):
            figures = runner.test()
    else:
        with srt_enabled(model, **row):
            figures = runner.test()
    return areas, float(figures["mIoU"])


def is_free(name):
    return name.startswith(("1x: ", "plain + "))


def report(areas, complete):
    """Markdown: mIoU, gain over plain and over the best 1x control, with 95 % intervals."""
    counts = draw(len(areas["plain"]))
    scores = {n: float(mean_iou(a.sum(0))) for n, a in areas.items()}
    resampled = {n: resampled_miou(a, counts) for n, a in areas.items()}
    free = max((n for n in areas if is_free(n)), key=scores.get, default="plain")
    lines = [
        f"# CamVid validation, {len(areas['plain'])} images, partial patches completed with "
        f"{complete}",
        "",
        f"Best control at 1x cost: **{free}**. Intervals: 95 %, paired bootstrap over images.",
        "",
        "| setting | mIoU | over plain | over the best 1x control |",
        "|---|---|---|---|",
    ]
    for name in areas:
        cells = []
        for base in ("plain", free):
            low, high = interval(resampled[name], resampled[base])
            cells.append(f"{scores[name] - scores[base]:+.2f} [{low:+.2f}, {high:+.2f}]")
        lines.append(f"| {name} | {scores[name]:.2f} | {cells[0]} | {cells[1]} |")
    return "\n".join(lines) + "\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkpoint")
    parser.add_argument("--complete", choices=["zeros", "replicate"], default="zeros")
    parser.add_argument("--out", default="work_dirs/camvid")
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    here = Path(__file__).parent
    cfg = Config.fromfile(str(here / "vit_camvid.py"))
    out = Path(args.out)
    out.mkdir(parents=True, exist_ok=True)
    cfg.work_dir = str(out / "log")
    # The head reads the last block only: remember that one output.
    cfg.model.backbone.out_indices = (9,)
    cfg.model.decode_head.in_index = 0
    if args.complete == "replicate":
        cfg.model.data_preprocessor.type = "PaddedSegDataPreProcessor"
        cfg.model.data_preprocessor.padding = "replicate"
    runner = Runner.from_cfg(cfg)
    weights = torch.load(args.checkpoint, weights_only=True)["state_dict"]
    runner.model.load_state_dict(weights, strict=True)
    remember(runner.model.backbone)
    rows = ZERO_ROWS if args.complete == "zeros" else REPLICATE_ROWS
    areas, scores = {}, {}
    for name, row in tqdm(rows.items(), unit="row"):
        areas[name], scores[name] = evaluate(runner, row)
        print(f"{name:40s} {scores[name]:.2f}", flush=True)
    (out / f"camvid_features_{args.complete}.json").write_text(json.dumps(scores, indent=1))
    text = report({name: stack_areas(rows) for name, rows in areas.items()}, args.complete)
    (out / f"camvid_features_{args.complete}.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
