"""Detectron2's own launcher and evaluation on two processes, and configs with a group."""

from __future__ import annotations

import json
import sys
from datetime import timedelta
from functools import partial
from pathlib import Path

import torch
from detectron2.data import DatasetMapper, build_detection_test_loader, get_detection_dataset_dicts
from detectron2.engine import launch
from detectron2.evaluation import COCOEvaluator, SemSegEvaluator, inference_on_dataset
from detectron2.utils import comm

from srt_plugins.detectron2 import register_scenes, with_srt
from tests.detectron2.tiny import (
    SIZE,
    built,
    flat,
    pictures,
    srt_cfg,
    tiny_rcnn_fpn_cfg,
    tiny_semantic_cfg,
    tiny_vitdet_cfg,
)
from tests.distributed.pair import COLLECTIVE, save

IMAGES = 3  # odd: one process has one image more
SRT = dict(views=[(0, 0), (6, -5), (-4, 7)])


def evaluated(folder, make, evaluator, srt=None):
    """Metrics of Detectron2's evaluation (none but in the first process), and its predictions."""
    name = register_scenes("val", IMAGES, SIZE)
    cfg = make()
    model = built(cfg if srt is None else srt_cfg(cfg, **srt))
    mapper = DatasetMapper(cfg, is_train=False)
    dicts = get_detection_dataset_dicts(name, filter_empty=False)
    loader = build_detection_test_loader(dicts, mapper=mapper, num_workers=0)
    seen = []
    model.register_forward_pre_hook(lambda _, args: seen.extend(d["image_id"] for d in args[0]))
    results = inference_on_dataset(model, loader, evaluator(name, output_dir=str(folder)))
    files = sorted([*Path(folder).glob("*predictions.json"), *Path(folder).glob("*results.json")])
    return dict(results or {}), seen, [json.loads(f.read_text()) for f in files]


instances = partial(COCOEvaluator, tasks=("bbox", "segm"))
RUNS = {
    "labels": (tiny_semantic_cfg, SemSegEvaluator, SRT),
    "labels, plain": (tiny_semantic_cfg, SemSegEvaluator),
    "instances": (tiny_rcnn_fpn_cfg, instances, SRT),
}


def yacs(**more):
    model = built(srt_cfg(tiny_semantic_cfg(), **SRT, **more))
    with torch.no_grad():
        return flat([out["sem_seg"] for out in model(pictures())])


def lazy(**more):
    node = tiny_vitdet_cfg()
    with_srt(node.backbone.net, **SRT, **more)
    model = built(node)
    with torch.no_grad():
        return [t for out in model(pictures()) for t in flat(out["instances"])]


def work(folder):
    rank = comm.get_rank()
    jobs = {"yacs": partial(yacs, group="world"), "lazy": partial(lazy, group="world")}
    for name, run in RUNS.items():
        own = Path(folder) / name
        own.mkdir(exist_ok=True)
        jobs[name] = partial(evaluated, own, *run)
    save(jobs, folder, rank)
    comm.synchronize()


def main(folder):
    url = f"file://{folder}/rendezvous"
    launch(work, 2, dist_url=url, args=(folder,), timeout=timedelta(seconds=COLLECTIVE))


if __name__ == "__main__":
    main(sys.argv[1])
