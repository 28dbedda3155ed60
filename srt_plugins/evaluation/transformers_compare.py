"""The comparison for transformers: models and image processors that ``save_pretrained`` wrote."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..adapters import describe, find_backbone
from ..core.patch import overridden
from ..errors import ConfigError
from ..wrapper import srt_enabled
from .depth import DepthProtocol
from .environment import chosen_device, circumstances
from .labelled_images import LabelledImages, Reading, open_images
from .methods import Method, flip, larger_input, output_ensemble
from .request import Request
from .results import Comparison
from .rows import Row, RowArg, keywords, plan
from .runs import Runs, views_of
from .transformers_load import Loaded, import_transformers, load
from .transformers_session import Inputs, Session, check_depth_truth
from .transformers_tasks import Depth, Task, semantic_task

_MIN_DEPTH, _MAX_DEPTH, _MAX_INDOORS = 1e-3, 80.0, 10.0
# Keywords that one task has.
_OF_TASK = {
    "depth": ("min_depth", "max_depth", "crop", "align", "disparity", "depth_scale"),
    "semantic": ("ignore_index", "reduce_labels"),
}
_COMBINED = {"oe": "output ensemble (OE)", "flip": "flip TTA", "larger": "larger input"}


def compare_transformers(
    model: str | Path,
    dataset: str | Path,
    rows: Sequence[RowArg] | None = None,
    *,
    min_depth: float | None = None,
    max_depth: float | None = None,
    crop: str | None = None,
    align: str | None = None,
    disparity: bool = False,
    depth_scale: float | None = None,
    ignore_index: int | None = None,
    reduce_labels: bool | None = None,
    dtype: str | None = None,
    **options: Any,
) -> Comparison:
    """Run a model with and without SRT, and with what SRT must beat, on labelled images.

    Images are prepared by the model's image processor, and predictions post-processed by it to the
    images' own sizes, as the pipelines of transformers do it.

    Args:
        model: a folder that ``save_pretrained`` wrote (model and image processor), or a name that
            transformers finds: a model for depth estimation or semantic segmentation.
        dataset: a folder with ``images/`` and ``depth/`` or ``labels/`` (see
            :mod:`.labelled_images`), or ``"scenes"``, ``"scenes:val"``, ``"scenes:test"``.
        rows: SRT rows; see :class:`.request.Request`.
        min_depth: metres; depth is judged above it. None = 0.001.
        max_depth: metres; depth is judged below it. None = 80, with ``crop="eigen"`` 10.
        crop: ``"eigen"`` = the usual crop of NYU's 480 x 640 images; see :class:`.DepthProtocol`.
        align: ``"none"``, ``"median"`` or ``"scale_shift"``; see :class:`.DepthProtocol`.
        disparity: the model predicts inverse depth.
        depth_scale: units of a depth PNG per metre; None = 1000.
        ignore_index: label of pixels that are not judged; None = 255.
        reduce_labels: label 0 is unlabelled and the others are one lower; None = as the image
            processor's ``do_reduce_labels`` says.
        dtype: ``"float32" | "bfloat16" | "float16"``; None = as the weights are saved.
        **options: ``extra_rows, skip, limit, batch_size, workers, device, seed, resamples,
            trust_checkpoint, progress``; see :class:`.request.Request`. A batch holds images of one
            size.

    Returns:
        All figures, with intervals; ``.save(path)`` writes JSON.

    Raises:
        SRTError: a bad argument, model or image; but for labels beyond the first images, nothing
            has run by then.
    """
    request = Request.of(rows, options)
    given = {
        "min_depth": min_depth,
        "max_depth": max_depth,
        "crop": crop,
        "align": align,
        "disparity": disparity or None,
        "depth_scale": depth_scale,
        "ignore_index": ignore_index,
        "reduce_labels": reduce_labels,
    }
    asked = {name: value for name, value in given.items() if value is not None}
    import_transformers()
    device = chosen_device(request.device)
    loaded = load(model, device, dtype, request.trust_checkpoint)
    _check_task(asked, loaded)
    make = _depth if loaded.task == "depth" else _semantic
    task, data, judged, notes = make(loaded, dataset, asked, request)
    with Session(loaded, task, data, request, device) as session:
        settings = request.settings()
        srt = [
            (s, views_of(session, s, srt_enabled(session.model, **keywords(s)))) for s in settings
        ]
        reason = task.without_maps()
        left_out = request.left_out | (_COMBINED.keys() if reason else set())
        notes += [
            f"{_COMBINED[row]}: left out, {reason}."
            for row in _COMBINED
            if reason and row not in request.left_out
        ]
        warning = loaded.report.warning()
        notes = [*([warning] if warning else []), *notes]
        found = TransformersRuns(session, None, srt[0][1]).compared(
            plan(srt, frozenset(left_out)), notes, request
        )
        found.context = {
            "model": str(model),
            "architecture": type(loaded.model).__name__,
            "image_processor": type(loaded.processor).__name__,
            "dataset": str(dataset),
            **judged,
            "dtype": str(loaded.model.dtype).removeprefix("torch."),
            **request.record(),
            "batch_size": request.batch_size or 1,
            **circumstances(loaded.report, device),
        }
        return found


def _check_task(asked: dict[str, Any], loaded: Loaded) -> None:
    for name in asked:
        if name not in _OF_TASK[loaded.task]:
            what = "depth" if loaded.task == "depth" else "classes"
            raise ConfigError(
                f"Expected no {name} with {type(loaded.model).__name__}, which predicts {what}, "
                f"got {asked[name]!r}; leave --{name.replace('_', '-')} out."
            )


Made = tuple[Task, LabelledImages, dict[str, Any], list[str]]


def _depth(loaded: Loaded, dataset: Any, asked: dict[str, Any], request: Request) -> Made:
    """Task, data, the record of how depth is judged, and notes."""
    asked = dict(asked)
    reading = Reading(
        **({"depth_scale": asked.pop("depth_scale")} if "depth_scale" in asked else {})
    )
    highest = _MAX_INDOORS if asked.get("crop") == "eigen" else _MAX_DEPTH
    protocol = DepthProtocol(**{"min_depth": _MIN_DEPTH, "max_depth": highest, **asked})
    data = open_images(dataset, "depth", reading, request.limit)
    task = Depth(loaded.processor, protocol)
    check_depth_truth(task, data)
    notes = [
        f"depth: judged between {protocol.min_depth:g} and {protocol.max_depth:g} m, "
        "to which predictions are clamped."
    ]
    if protocol.align != "none":
        how = "scale" if protocol.align == "median" else "scale and shift"
        what = "inverse depth" if protocol.disparity else "depth"
        notes.append(f"depth: {how} of the predicted {what} are fitted to the truth of each image.")
    hint = relative_hint(loaded.config, protocol)
    if hint:
        warnings.warn(hint, stacklevel=3)
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


def _semantic(loaded: Loaded, dataset: Any, asked: dict[str, Any], request: Request) -> Made:
    """Task, data, the record of how classes are judged, and notes."""
    names = loaded.config.id2label
    classes = [str(names[i]) for i in range(len(names))]
    own = bool(getattr(loaded.processor, "do_reduce_labels", False))
    rendered = str(dataset).partition(":")[0] == "scenes"
    reduce = bool(asked.get("reduce_labels", own and not rendered))
    reading = Reading(
        classes=len(classes), ignore_index=asked.get("ignore_index", 255), reduce_labels=reduce
    )
    data = open_images(dataset, "semantic", reading, request.limit)
    data.truth(0)
    device = next(loaded.model.parameters()).device
    inputs = loaded.processor(images=[data.image(0)], return_tensors="pt")
    with torch.no_grad():
        outputs = loaded.model(inputs["pixel_values"].to(device, loaded.model.dtype))
    task = semantic_task(outputs, loaded.processor, classes, reading.ignore_index)
    notes = []
    if reduce and "reduce_labels" not in asked:
        notes.append(
            "labels: 0 is unlabelled and the others are one lower, as the image processor's "
            "do_reduce_labels says (--no-reduce-labels otherwise)."
        )
    judged = {"ignore_index": reading.ignore_index, "reduce_labels": reduce}
    return task, data, {"labels": judged}, notes


class TransformersRuns(Runs):
    """Runs rows on a model of transformers."""

    session: Session

    def method(self, row: Row) -> AbstractContextManager[Any]:
        """While active, the session's model is run by the row's method."""
        model = self.session.model
        if row.method == "srt":
            assert row.settings is not None
            return srt_enabled(model, **keywords(row.settings))
        if row.method == "oe":
            assert row.settings is not None
            padding, view_batch = row.settings.padding, row.settings.view_batch
            return self._called_by(output_ensemble(self.views, padding, view_batch))
        if row.method == "flip":
            return self._called_by(flip)
        if row.method == "larger":
            patch = describe(find_backbone(model)).patch or 1
            return self._called_by(larger_input(self.scale, patch))
        return nullcontext()

    def _called_by(self, method: Method) -> AbstractContextManager[None]:
        """While active, the session's call combines dense maps by ``method``."""
        original, task = self.session.call, self.session.task

        def call(inputs: Inputs) -> Any:
            pixels = inputs["pixel_values"]
            last: list[Any] = []

            def inference(images: Tensor, _: list) -> Tensor:
                # A pixel_mask is of the plain input's size, and says no more than that it is whole.
                last[:] = [original({"pixel_values": images})]
                return task.maps(last[0], (images.shape[-2], images.shape[-1]))

            maps = method(inference, pixels, [{}] * len(pixels))
            return task.outputs(maps, last[0])

        return overridden(self.session, "call", call)
