"""Tuning a model of transformers on labelled images."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from .environment import chosen_device, circumstances
from .labelled_images import LabelledImages
from .request import Request
from .transformers_compare import TransformersRuns
from .transformers_data import OF_TASK, prepared
from .transformers_load import import_transformers, load
from .transformers_session import Session
from .tune import ONE_VIEW, Plan, Tuning, tuned


def tune_transformers(
    model: str | Path,
    dataset: str | Path,
    plan: Plan | None = None,
    *,
    dtype: str | None = None,
    **options: Any,
) -> Tuning:
    """Choose settings on a few labelled images.

    Args:
        model: a folder that ``save_pretrained`` wrote, or a name that transformers finds.
        dataset: a folder with ``images/`` and ``depth/`` or ``labels/``, or ``"scenes"``,
            ``"scenes:val"``, ``"scenes:test"``.
        plan: how many images, and what is tried; None = 10 images, 4 views.
        dtype: ``"float32" | "bfloat16" | "float16"``; None = as the weights are saved.
        **options: how depth and labels are judged, as :func:`.compare_transformers` takes it
            (``min_depth, max_depth, crop, align, disparity, depth_scale, ignore_index,
            reduce_labels``), and ``batch_size, workers, device, seed, resamples,
            trust_checkpoint, progress``; see :class:`.request.Request`.

    Raises:
        SRTError: a bad argument, model or image.
    """
    plan = plan or Plan()
    names = {name for task in OF_TASK.values() for name in task}
    asked = {k: v for k, v in options.items() if k in names and v not in (None, False)}
    if options.get("reduce_labels") is False:
        asked["reduce_labels"] = False
    request = Request.of(None, {k: v for k, v in options.items() if k not in names})
    import_transformers()
    device = chosen_device(request.device)
    loaded = load(model, device, dtype, request.trust_checkpoint)
    task, data, judged, notes = prepared(loaded, dataset, asked, None)
    images = plan.spread(len(data.sizes))
    with Session(loaded, task, _Chosen(data, images), request) as session:
        runs = TransformersRuns(session, None, ONE_VIEW)
        warning = loaded.report.warning()
        notes = [*([warning] if warning else []), *notes]
        found = tuned(runs, session.batches, images, plan, request, notes)
        found.notes += session.noticed
        found.context = {
            "model": str(model),
            "dataset": str(dataset),
            **judged,
            "dtype": str(loaded.model.dtype).removeprefix("torch."),
            "seed": request.seed,
            **found.context,
            **circumstances(loaded.report, device),
        }
        return found


class _Chosen:
    """Some of the images of labelled data."""

    def __init__(self, data: LabelledImages, indices: list[int]) -> None:
        self.data = data
        self.indices = indices
        self.sizes = [data.sizes[i] for i in indices]

    def image(self, index: int) -> Any:
        """The image, for Pillow."""
        return self.data.image(self.indices[index])

    def truth(self, index: int) -> np.ndarray:
        """What is true of it."""
        return self.data.truth(self.indices[index])
