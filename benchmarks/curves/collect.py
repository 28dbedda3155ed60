"""Image by image, all rows of it: per-image statistics in a file that a later run goes on with."""

from __future__ import annotations

import copy
import functools
import hashlib
import itertools
import json
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import torch
from srt_plugins.adapters import describe, find_backbone

import srt_plugins
from srt_plugins import adapters
from srt_plugins.errors import ConfigError
from srt_plugins.evaluation.cost import count_flops
from srt_plugins.evaluation.memory import remembering


class Results:
    """Statistics of each image and row, and operations of each row; a line of the file per image.

    ``sources`` are hashes of the code that made them: one, unless it was changed in between.

    Args:
        path: file that is gone on with, if there is one.
        made_by: what statistics depend on; those of another model or other data are refused.
    """

    def __init__(self, path, made_by):
        self.path = path
        self.statistics = {}
        self.flops = {}
        self.sources = set()
        source()  # now, before anybody changes it
        # A line without its end was cut off when a run was stopped.
        text = path.read_text().rpartition("\n")[0] if path.exists() else ""
        header, *lines = text.splitlines() or [json.dumps(made_by)]
        if json.loads(header) != made_by:
            raise ConfigError(
                f"Expected {path} to be of this model, data and options, got one of others; give "
                "--fresh to start anew, or another --name."
            )
        path.write_text("".join(f"{line}\n" for line in (header, *lines)))
        for line in lines:
            self._take(json.loads(line))

    def missing(self, image, points):
        """The rows that have not been run on an image."""
        return [p for p in points if (image, p.name) not in self.statistics]

    def add(self, image, statistics, flops):
        """Keep the rows of an image."""
        record = {"image": image, "source": source(), "rows": statistics, "flops": flops}
        with self.path.open("a") as file:
            file.write(json.dumps(record) + "\n")
        self._take(record)

    def metric(self, like, point, images):
        """The metric of a row over the first so many images.

        Args:
            like: a metric of any image, which tells what the statistics are of.
        """
        rows = [self.statistics[i, point.name] for i in range(images)]
        return replace(like, **{k: np.concatenate([np.array(r[k]) for r in rows]) for k in rows[0]})

    def _take(self, record):
        for name, statistics in record["rows"].items():
            self.statistics[record["image"], name] = statistics
        self.flops.update(record["flops"])
        self.sources.add(record["source"])


@functools.cache
def source():
    """A hash of the package's code: rows of a run that went on must not differ in it."""
    package = Path(srt_plugins.__file__).parent
    folders = (package, package / "core", package / "mmseg", Path(adapters.__file__).parent)
    files = [file for folder in folders for file in sorted(folder.glob("*.py"))]
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()[:16]


def made_by(session, checkpoint, complete):
    """What statistics depend on beside the row, without any path."""
    cfg = copy.deepcopy(session.cfg)
    cfg.test_dataloader.dataset.pop("indices", None)
    parts = {k: cfg.get(k) for k in ("model", "data_preprocessor", "test_evaluator", "test_cfg")}
    parts["data"] = cfg.test_dataloader.dataset
    return {
        "config": hashlib.sha256(repr(parts).encode()).hexdigest()[:16],
        "checkpoint": hashlib.sha256(checkpoint.read_bytes()).hexdigest()[:16],
        "complete": complete,
        "torch": torch.__version__,
        "device": session.device.type,
    }


def statistics(metric):
    """The per-image arrays of a metric as lists."""
    arrays = {f.name: getattr(metric, f.name) for f in fields(metric)}
    return {k: v.tolist() for k, v in arrays.items() if isinstance(v, np.ndarray)}


def collect(session, points, limits, results, on_row=lambda: None):
    """Run all rows that are missing.

    Args:
        session: model and data, one image per batch.
        points: all rows.
        limits: how many images a group is run on, where it is not all.
        results: gains what is run.
        on_row: called after each row of each image.
    """
    backbone = find_backbone(session.model)
    facts = describe(backbone)
    last = max(limits.get(p.group, session.images) for p in points)
    for image, batch in enumerate(itertools.islice(session.batches(), last)):
        wanted = [p for p in points if image < limits.get(p.group, session.images)]
        missing = results.missing(image, wanted)
        found, flops = {}, {}
        # Entered anew for each image, so that no more than its own views are kept.
        with remembering(backbone, adapter=facts) as memory:
            for point in missing:
                step = functools.partial(_judged, session, point, batch, image)
                if image:
                    metric = step()
                else:  # of the first image alone, because images may differ in size
                    metric, flops[point.name] = _counted(session, memory, step)
                found[point.name] = statistics(metric)
                on_row()
        if found:
            results.add(image, found, flops)


def _judged(session, point, batch, image):
    """The metric of a row on an image."""
    with point.active(session.model):
        return session.run_batch(copy.deepcopy(batch), image)[0]


def _counted(session, memory, step):
    """What a step gives, and its operations with those of the forwards that were recalled."""
    made, recalled = [], memory.recalled
    flops = count_flops(lambda: made.append(step()))
    return made[0], flops + (memory.recalled - recalled) * _forward(session)


@functools.lru_cache(maxsize=1)
def _forward(session):
    """Operations of the backbone on the first image."""
    backbone, inputs = find_backbone(session.model), session.inputs()
    with torch.enable_grad():  # nothing is recalled then
        return count_flops(lambda: backbone(inputs))
