"""Models of transformers to be looked at: with a head for depth or classes, or without one."""

from __future__ import annotations

import inspect
import math
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
        """What the image processor makes of the image."""
        made = self.loaded.placed(self._prepared(image))
        pixels = made["pixel_values"]
        whole = (int(pixels.shape[-2]), int(pixels.shape[-1]))
        if "pixel_mask" in made:
            top, left, height, width = _extent(made["pixel_mask"][0])
        else:
            (top, height), (left, width) = (
                self._within(before, after) for before, after in zip(image.shape[:2], whole)
            )
        return Inputs(pixels, (top, left, height, width))

    def predicted(self, image: np.ndarray) -> Prediction:
        """As the image processor post-processes it."""
        size = image.shape[:2]
        outputs = self.loaded.outputs(self.loaded.placed(self._prepared(image)))
        processor = self.loaded.prepare.image_processor
        if self.task == "depth":
            process = processor.post_process_depth_estimation
            source = {"source_sizes": [size]} if self._unpads else {}
            found = process(outputs, target_sizes=[size], **source)[0]["predicted_depth"]
            return Prediction("depth", depth=found.float().cpu().numpy())
        labels = processor.post_process_semantic_segmentation(outputs, target_sizes=[size])[0]
        return Prediction("classes", labels=labels.cpu().numpy())

    def _within(self, before: int, after: int) -> tuple[int, int]:
        """Where a side of the image begins in that of the input, and how long it is there."""
        if not (self._unpads and self.loaded.prepare.image_processor.do_pad):
            return 0, after
        # As ZoeDepth's processor does it: a border of sqrt(side / 2) * 3, then resized.
        border = int(math.sqrt(before / 2) * 3)
        scale = after / (before + 2 * border)
        start = round(border * scale)
        return start, max(1, round((border + before) * scale) - start)

    @property
    def _unpads(self) -> bool:
        """Whether post-processing undoes padding of the processor's own (ZoeDepth)."""
        processor = self.loaded.prepare.image_processor
        process = getattr(processor, "post_process_depth_estimation", None)
        return process is not None and "source_sizes" in inspect.signature(process).parameters

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
    kind = getattr(loaded.model.config, "depth_estimation_type", "metric")
    subject.inverse = task == "depth" and kind == "relative"
    if getattr(loaded.prepare.image_processor, "do_center_crop", False):
        subject.notes.append(
            "the image processor cuts images to their middle (do_center_crop), which features and "
            "predictions are drawn over the whole image for"
        )
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
    subject = Normalising(Path(folder).name, model, notes=_notes(_report(info)))
    half = (0.5, 0.5, 0.5)
    mean, std = (getattr(processor, f"image_{what}", None) or half for what in ("mean", "std"))
    subject.normalise_by(mean, std)
    subject.native = _native(model.config)
    return subject


def _native(config: Any) -> tuple[int, int] | None:
    """Height and width of the images that a model was made for."""
    config = getattr(config, "vision_config", None) or config
    size = getattr(config, "image_size", None)
    if isinstance(size, int):
        return size, size
    if isinstance(size, (list, tuple)) and len(size) == 2:
        return int(size[0]), int(size[1])
    return None


def _extent(mask: Any) -> tuple[int, int, int, int]:
    """Top, left, height and width of what a mask ``(H, W)`` holds."""
    rows, columns = (mask.bool().any(dim).nonzero()[:, 0].tolist() for dim in (1, 0))
    return rows[0], columns[0], rows[-1] + 1 - rows[0], columns[-1] + 1 - columns[0]


def _report(info: Any) -> LoadReport:
    """What transformers tells of the weights that it loaded."""
    keys = (tuple(sorted(map(str, info[f"{what}_keys"]))) for what in ("missing", "unexpected"))
    return LoadReport(*keys)


def _notes(report: LoadReport) -> list[str]:
    warning = report.warning()
    return [warning] if warning else []
