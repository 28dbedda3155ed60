"""Models of transformers to be looked at: with a head for depth or classes, or without one."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..errors import CheckpointError, ConfigError, SRTError
from ..evaluation import transformers_load
from ..evaluation.checkpoint import LoadReport
from .subject import Inputs, Prediction, Subject
from .timm_subject import Normalising


class TransformersSubject(Subject):
    """A model of transformers with its image processor."""

    loaded: transformers_load.Loaded

    def inputs(self, image: np.ndarray) -> Inputs:
        """What the image processor makes of the image, all of which shows it."""
        pixels = self.loaded.placed(self._prepared(image))["pixel_values"]
        return Inputs(pixels, (0, 0, *pixels.shape[-2:]))

    def predicted(self, image: np.ndarray) -> Prediction:
        """As the image processor post-processes it."""
        size = image.shape[:2]
        outputs = self.loaded.outputs(self.loaded.placed(self._prepared(image)))
        processor = self.loaded.prepare.image_processor
        if self.task == "depth":
            process = processor.post_process_depth_estimation
            # ZoeDepth's undoes the padding of its own.
            unpads = "source_sizes" in inspect.signature(process).parameters
            source = {"source_sizes": [size]} if unpads else {}
            found = process(outputs, target_sizes=[size], **source)[0]["predicted_depth"]
            return Prediction("depth", depth=found.float().cpu().numpy())
        labels = processor.post_process_semantic_segmentation(outputs, target_sizes=[size])[0]
        return Prediction("classes", labels=labels.cpu().numpy())

    def _prepared(self, image: np.ndarray) -> dict[str, Any]:
        from PIL import Image

        return self.loaded.prepare([Image.fromarray(image)])


def transformers_subject(
    folder: str | Path, device: torch.device, *, dtype: str | None = None, trust: bool = False
) -> Subject:
    """A model of transformers from a folder that ``save_pretrained`` wrote, or by name.

    Args:
        folder: with ``config.json``; a model without a head for depth or classes has features only.
        device: that of the model.
        dtype: one of :data:`.transformers_load.DTYPES`; None = as the weights are saved.
        trust: load pickled weights that hold more than plain tensors; this runs code from them.

    Raises:
        ConfigError: no such model. CheckpointError: weights that do not load.
        MissingDependencyError: transformers is not installed.
    """
    transformers_load.import_transformers()
    name = Path(folder).name
    try:
        loaded = transformers_load.load(folder, device, dtype, trust)
    except ConfigError as error:
        if "depth estimation or semantic segmentation" not in str(error):
            raise
        return _headless(folder, device, dtype, trust)
    task = "depth" if loaded.task == "depth" else "classes"
    labels = getattr(loaded.model.config, "id2label", None) or {}
    classes = [str(labels[i]) for i in sorted(labels)] if task == "classes" else []
    subject = TransformersSubject(name, loaded.model, task, classes, notes=_notes(loaded.report))
    subject.loaded = loaded
    return subject


def _headless(
    folder: str | Path, device: torch.device, dtype: str | None, trust: bool
) -> Normalising:
    """A model without a head that is known here: its backbone, for images of any size."""
    import transformers

    safety = {} if not trust else {"weights_only": False}
    try:
        model, info = transformers.AutoModel.from_pretrained(
            folder, output_loading_info=True, trust_remote_code=False, **safety
        )
        processor = transformers.AutoImageProcessor.from_pretrained(folder)
    except SRTError:
        raise
    except Exception as error:
        raise CheckpointError(
            f"Expected {folder} to hold a model of transformers with its image processor, got "
            f"{type(error).__name__}: {' '.join(str(error).split())[:200]}. If pickled weights "
            "that you trust are what is wrong, use --trust-checkpoint."
        ) from error
    model.to(device=device, dtype=getattr(torch, dtype) if dtype else None)
    keys = (tuple(sorted(map(str, info[f"{what}_keys"]))) for what in ("missing", "unexpected"))
    subject = Normalising(Path(folder).name, model, notes=_notes(LoadReport(*keys)))
    half = (0.5, 0.5, 0.5)
    mean, std = (getattr(processor, f"image_{what}", None) or half for what in ("mean", "std"))
    subject.normalise_by(mean, std)
    return subject


def _notes(report: LoadReport) -> list[str]:
    warning = report.warning()
    return [warning] if warning else []
