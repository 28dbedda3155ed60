"""Tuning a model of transformers on images, with or without labels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from ..errors import ConfigError
from .environment import chosen_device, circumstances
from .labelled_images import SCENES, LabelledImages
from .request import Request
from .transformers_compare import TransformersRuns
from .transformers_data import OF_TASK, prepared
from .transformers_load import Loaded, import_transformers, load
from .transformers_session import Session
from .transformers_tasks import Task
from .transformers_unlabelled import FolderOfImages, Unlabelled, unlabelled_task
from .tune import ONE_VIEW, Plan, Tuning, tuned


def tune_transformers(
    model: str | Path,
    dataset: str | Path,
    plan: Plan | None = None,
    *,
    dtype: str | None = None,
    **options: Any,
) -> Tuning:
    """Choose settings on a few images.

    Args:
        model: a folder that ``save_pretrained`` wrote, or a name that transformers finds.
        dataset: a folder with ``images/`` and ``depth/`` or ``labels/``, or ``"scenes"``,
            ``"scenes:val"``, ``"scenes:test"``.
        plan: how many images, what is tried, and whether by labels; None = 10 labelled images, a
            budget of 5 forwards. Without labels ``dataset`` may be a folder of images.
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
    task, data, images, judged, notes = _opened(loaded, dataset, asked, plan)
    with Session(loaded, task, data, request) as session:
        runs = TransformersRuns(session, None, ONE_VIEW)
        if isinstance(data, Unlabelled):
            data.refer(session, runs)
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


def _opened(
    loaded: Loaded, dataset: str | Path, asked: dict[str, Any], plan: Plan
) -> tuple[Task, LabelledImages, list[int], dict[str, Any], list[str]]:
    """Task, the images that choose with their indices, how they are judged, and notes."""
    data: Any
    scenes = str(dataset).partition(":")[0] == SCENES
    if plan.labels or scenes:
        task, data, judged, notes = prepared(loaded, dataset, asked, None)
    else:
        if asked:
            name = next(iter(asked))
            raise ConfigError(
                f"Expected no {name} without labels, got {asked[name]!r}; leave "
                f"--{name.replace('_', '-')} out."
            )
        data = FolderOfImages(dataset)
    images = plan.spread(len(data.sizes))
    chosen: Any = _Chosen(data, images)
    if plan.labels:
        return task, chosen, images, judged, notes
    unlabelled = Unlabelled(chosen)
    return unlabelled_task(loaded, unlabelled), unlabelled, images, {}, []


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
