"""The comparison for transformers: models and image processors that ``save_pretrained`` wrote."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..adapters import describe, find_backbone
from ..core.patch import overridden
from ..wrapper import srt_enabled
from .environment import chosen_device, circumstances
from .methods import Method, flip, larger_input, output_ensemble
from .request import Request
from .results import Comparison
from .rows import Row, RowArg, keywords, plan
from .runs import Runs, views_of
from .transformers_data import prepared
from .transformers_load import import_transformers, load
from .transformers_session import Inputs, Session

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
            trust_checkpoint, calibration, progress``; see :class:`.request.Request`. A batch holds
            images of one size.

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
    task, data, judged, notes = prepared(loaded, dataset, asked, request.limit)
    with Session(loaded, task, data, request) as session:
        settings = request.settings()
        srt = [
            (s, views_of(session, s, srt_enabled(session.model, **keywords(s)))) for s in settings
        ]
        reason = task.without_maps()
        impossible = set(_COMBINED) - request.left_out if reason else set()
        notes += [f"{_COMBINED[row]}: left out, {reason}." for row in sorted(impossible)]
        planned = plan(srt, request.left_out | impossible)
        if task.note and any(row.kind == "other" for row in planned):
            notes.append(task.note)
        warning = loaded.report.warning()
        notes = [*([warning] if warning else []), *notes]
        found = TransformersRuns(session, None, srt[0][1]).compared(planned, notes, request)
        found.notes += session.noticed
        found.context = {
            "model": str(model),
            "architecture": type(loaded.model).__name__,
            "image_processor": type(loaded.prepare.image_processor).__name__,
            "dataset": str(dataset),
            **judged,
            "dtype": str(loaded.model.dtype).removeprefix("torch."),
            **request.record(),
            "batch_size": request.batch_size or 1,
            **circumstances(loaded.report, device),
        }
        return found


class TransformersRuns(Runs):
    """Runs rows on a model of transformers."""

    session: Session

    def method(self, row: Row) -> AbstractContextManager[Any]:
        """While active, the session's model is run by the row's method."""
        model, calibration = self.session.model, self.session.calibration
        told = None if calibration is None else calibration.told
        if row.method == "srt":
            assert row.settings is not None
            return srt_enabled(model, **keywords(row.settings))
        if row.method == "oe":
            assert row.settings is not None
            padding, view_batch = row.settings.padding, row.settings.view_batch
            return self.called_by(output_ensemble(self.views, padding, view_batch, told))
        if row.method == "flip":
            return self.called_by(partial(flip, told=told))
        if row.method == "larger":
            patch = describe(find_backbone(model)).patch or 1
            return self.called_by(larger_input(self.scale, patch))
        return nullcontext()

    def called_by(self, method: Method) -> AbstractContextManager[None]:
        """While active, the session's call combines dense maps by ``method``."""
        original, task = self.session.call, self.session.task

        def call(inputs: Inputs) -> Any:
            pixels = inputs["pixel_values"]
            # A pixel_mask is of the plain input's size, and says no more than that it is whole.
            others = {k: v for k, v in inputs.items() if k not in ("pixel_values", "pixel_mask")}
            last: list[Any] = []

            def inference(images: Tensor, _: list) -> Tensor:
                repeats = len(images) // len(pixels)
                repeated = {name: torch.cat([one] * repeats) for name, one in others.items()}
                last[:] = [original({"pixel_values": images, **repeated})]
                return task.maps(last[0], (images.shape[-2], images.shape[-1]))

            maps = method(inference, pixels, [{}] * len(pixels))
            return task.outputs(maps, last[0])

        return overridden(self.session, "call", call)
