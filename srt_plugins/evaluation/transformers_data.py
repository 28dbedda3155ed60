"""The data that a model of transformers is judged on, and how."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..errors import ConfigError
from .depth import DepthProtocol, judged_pixels
from .labelled_images import LabelledImages, open_images
from .transformers_load import Loaded
from .transformers_tasks import Depth, Task, semantic_task
from .truth_files import Reading

_MIN_DEPTH, _MAX_DEPTH, _MAX_INDOORS = 1e-3, 80.0, 10.0
# Keywords that one task has.
OF_TASK = {
    "depth": ("min_depth", "max_depth", "crop", "align", "disparity", "depth_scale"),
    "semantic": ("ignore_index", "reduce_labels"),
}
# Images whose truth is looked at before anything runs.
_FIRST = 5

Made = tuple[Task, LabelledImages, dict[str, Any], list[str]]


def prepared(loaded: Loaded, dataset: str | Path, asked: dict[str, Any], limit: int | None) -> Made:
    """Task, images, the record of how they are judged, and notes.

    Args:
        loaded: the model.
        dataset: see :func:`.labelled_images.open_images`.
        asked: keywords of :data:`OF_TASK` that were given.
        limit: first so many images; None = all.

    Raises:
        ConfigError: a keyword of the other task, a bad one, or data that cannot be used.
    """
    for name in asked:
        if name not in OF_TASK[loaded.task]:
            what = "depth" if loaded.task == "depth" else "classes"
            raise ConfigError(
                f"Expected no {name} with {type(loaded.model).__name__}, which predicts {what}, "
                f"got {asked[name]!r}; leave --{name.replace('_', '-')} out."
            )
    return (_depth if loaded.task == "depth" else _semantic)(loaded, dataset, asked, limit)


def _depth(loaded: Loaded, dataset: Any, asked: dict[str, Any], limit: int | None) -> Made:
    """Task, data, the record of how depth is judged, and notes."""
    asked = dict(asked)
    reading = Reading(
        **({"depth_scale": asked.pop("depth_scale")} if "depth_scale" in asked else {})
    )
    highest = _MAX_INDOORS if asked.get("crop") == "eigen" else _MAX_DEPTH
    protocol = DepthProtocol(**{"min_depth": _MIN_DEPTH, "max_depth": highest, **asked})
    data = open_images(dataset, "depth", reading, limit)
    task = Depth(loaded.prepare.image_processor, protocol)
    check_truth(data, protocol)
    notes = [
        f"depth: judged between {protocol.min_depth:g} and {protocol.max_depth:g} m, "
        "to which predictions are clamped."
    ]
    if protocol.align != "none":
        how = "scale" if protocol.align == "median" else "scale and shift"
        verb = "is" if protocol.align == "median" else "are"
        what = "inverse depth" if protocol.disparity else "depth"
        notes.append(
            f"depth: {how} of the predicted {what} {verb} fitted to the truth of each image."
        )
    hint = relative_hint(loaded.model.config, protocol)
    if hint:
        warnings.warn(hint, stacklevel=4)
        notes.append(hint)
    return task, data, {"depth": {**vars(protocol), "depth_scale": reading.depth_scale}}, notes


def relative_hint(config: Any, protocol: DepthProtocol) -> str | None:
    """What to say where a model of relative depth is judged as if it predicted metres."""
    relative = getattr(config, "depth_estimation_type", None) == "relative"
    if protocol.align != "none" and (protocol.disparity or not relative):
        return None
    advice = (
        "use --align scale_shift --disparity (align='scale_shift', disparity=True) to judge it "
        "by figures in metres"
    )
    if relative:
        return (
            "depth: the model predicts inverse depth of unknown scale and shift "
            f"(depth_estimation_type='relative' in its config); {advice}."
        )
    if getattr(config, "model_type", None) == "dpt":
        return (
            "depth: most DPT models predict inverse depth of unknown scale and shift; if this one "
            f"does, {advice}."
        )
    return None


def _semantic(loaded: Loaded, dataset: Any, asked: dict[str, Any], limit: int | None) -> Made:
    """Task, data, the record of how classes are judged, and notes."""
    names = loaded.model.config.id2label
    classes = [str(names.get(i, i)) for i in range(loaded.model.config.num_labels)]
    own = bool(getattr(loaded.prepare.image_processor, "do_reduce_labels", False))
    rendered = str(dataset).partition(":")[0] == "scenes"
    reduce = bool(asked.get("reduce_labels", own and not rendered))
    reading = Reading(
        classes=len(classes), ignore_index=asked.get("ignore_index", 255), reduce_labels=reduce
    )
    data = open_images(dataset, "semantic", reading, limit)
    data.truth(0)
    with torch.no_grad():
        outputs = loaded.outputs(loaded.placed(loaded.prepare([data.image(0)])))
    processor = loaded.prepare.image_processor
    task = semantic_task(outputs, processor, classes, reading.ignore_index)
    notes = []
    if reduce and "reduce_labels" not in asked:
        notes.append(
            "labels: 0 is unlabelled and the others are one lower, as the image processor's "
            "do_reduce_labels says (--no-reduce-labels otherwise)."
        )
    judged = {"ignore_index": reading.ignore_index, "reduce_labels": reduce}
    return task, data, {"labels": judged}, notes


def check_truth(data: LabelledImages, protocol: DepthProtocol) -> None:
    """Raise :class:`ConfigError` unless the first images have depth that is judged."""
    truths = [data.truth(i) for i in range(min(_FIRST, len(data.sizes)))]
    if any(judged_pixels(truth, protocol).any() for truth in truths):
        return
    known = [float(np.nanmin(t)) for t in truths] + [float(np.nanmax(t)) for t in truths]
    raise ConfigError(
        f"Expected true depth between min_depth={protocol.min_depth} and max_depth="
        f"{protocol.max_depth} m, got none in the first {len(truths)} images, whose depths are "
        f"{min(known):.4g} to {max(known):.4g}; check --depth-scale "
        "(units per metre) and the range."
    )
