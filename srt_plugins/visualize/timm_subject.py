"""Backbones of timm to be looked at."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..adapters import describe
from ..core.translate import Canvas
from ..errors import (
    AdapterError,
    CheckpointError,
    ConfigError,
    MissingDependencyError,
    SRTError,
    nearest,
)
from ..evaluation.checkpoint import LoadReport, load_weights
from .pictures import resize_smooth
from .subject import Inputs, Prediction, Subject
from .tokens import Tokens


class Normalising(Subject):
    """A backbone alone, which takes normalised images and predicts nothing here.

    Attributes:
        mean, std: of pixels in 0..1, ``(1, 3, 1, 1)``.
        native: height and width that the backbone was made for; images get them where it takes
            none of their own size. None = unknown.
    """

    mean: Tensor
    std: Tensor
    native: tuple[int, int] | None = None

    def inputs(self, image: np.ndarray) -> Inputs:
        """The image in its own size, normalised, completed to whole patches by its border; in the
        native size where the backbone takes no other.

        Raises:
            AdapterError: the backbone takes neither.
        """
        given = self._completed(image)
        if self.native is None or image.shape[:2] == self.native or self._takes(given.images):
            return given
        resized = self._completed(resize_smooth(image, self.native))
        if not self._takes(resized.images):
            (height, width), own = image.shape[:2], "x".join(map(str, self.native))
            raise AdapterError(
                f"Expected {self.name} to take images of {height}x{width} or of its own {own}, "
                "each completed to whole cells of all its grids, but it takes neither; its token "
                "grids do not divide its images. Use a backbone for images of any size."
            )
        return resized

    def _takes(self, images: Tensor) -> bool:
        """Whether the backbone runs on images of this size, tried out once for each size."""
        size = tuple(images.shape[-2:])
        if size not in self._tried:
            try:
                with torch.no_grad():
                    tokens = Tokens(self.backbone)
                    tokens.prepare(images)
                    tokens(tokens.completed(images))
            except (SRTError, torch.cuda.OutOfMemoryError):
                return True  # told where features are made
            # What libraries raise on sizes that they do not take.
            except (AssertionError, RuntimeError, ValueError, TypeError, IndexError):
                self._tried[size] = False
            else:
                self._tried[size] = True
        return self._tried[size]

    def __post_init__(self) -> None:
        super().__post_init__()
        self._tried: dict[tuple[int, ...], bool] = {}

    def _completed(self, image: np.ndarray) -> Inputs:
        height, width = image.shape[:2]
        pixels = torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1)[None]
        made = (pixels.float().div_(255) - self.mean) / self.std
        patch = describe(self.backbone).patch or 1
        size = (-(-height // patch) * patch, -(-width // patch) * patch)
        whole = Canvas(made, [(0, 0)], size, "replicate").views([(0, 0)])
        dtype = next((p.dtype for p in self.model.parameters()), torch.float32)
        return Inputs(whole.to(self.device, dtype), (0, 0, height, width))

    def predicted(self, image: np.ndarray) -> Prediction:
        """Nothing."""
        return Prediction()

    def normalise_by(self, mean: Any, std: Any) -> None:
        """Set mean and standard deviation of the pixels, 3 values each in 0..1."""
        self.mean, self.std = (
            torch.as_tensor(v, dtype=torch.float32).reshape(1, -1, 1, 1) for v in (mean, std)
        )


def timm_subject(
    name: str, device: torch.device, checkpoint: str | Path | None = None, trust: bool = False
) -> Normalising:
    """A backbone of timm by its name.

    Args:
        name: such as ``vit_small_patch14_dinov2.lvd142m``.
        device: that of the model.
        checkpoint: weights; None = the released ones, from timm's cache or its hub.
        trust: load a checkpoint that holds more than plain tensors; this runs code from it.

    Raises:
        ConfigError: timm knows no such model; lists the near ones. CheckpointError: no weights.
        MissingDependencyError: timm is not installed.
    """
    if importlib.util.find_spec("timm") is None:
        raise MissingDependencyError(
            "Models of timm need timm, which is not installed: pip install 'srt-plugins[timm]'."
        )
    import timm

    if not timm.is_model(name):
        raise ConfigError(
            f"Expected a model of timm, got {name!r}; near ones are "
            f"{nearest(name.partition('.')[0], timm.list_models(), 3)}. "
            "timm.list_models('*vit*') lists more."
        )
    try:
        model = _created(name, pretrained=checkpoint is None)
    except Exception as error:
        raise CheckpointError(
            f"Expected the released weights of {name}, which could not be had: "
            f"{type(error).__name__}: {' '.join(str(error).split())[:200]}. Give weights of your "
            "own with --checkpoint FILE."
        ) from error
    notes = []
    if checkpoint is not None:
        warning = _without_classifier(load_weights(model, checkpoint, trust), model).warning()
        notes = [warning] if warning else []
    data: Any = timm.data
    config = data.resolve_model_data_config(model)
    subject = Normalising(f"timm/{name}", model.to(device), notes=notes)
    subject.normalise_by(config["mean"], config["std"])
    if not getattr(model, "dynamic_img_size", False):
        height, width = config["input_size"][-2:]
        subject.native = (int(height), int(width))
    return subject


def _without_classifier(report: LoadReport, model: Any) -> LoadReport:
    """Without the classifier's keys, which a checkpoint may hold and features do not need."""
    names = model.pretrained_cfg.get("classifier") or ()
    heads = tuple(f"{n}." for n in ((names,) if isinstance(names, str) else names))
    unexpected = tuple(key for key in report.unexpected if not key.startswith(heads))
    return LoadReport(report.missing, unexpected)


def _created(name: str, **keywords: Any) -> Any:
    """The model without classifier, for images of any size where it can be."""
    import timm

    options: tuple[dict[str, Any], ...]
    options = ({"dynamic_img_size": True}, {"strict_img_size": False}, {})
    for more in options:
        try:
            return timm.create_model(name, num_classes=0, **keywords, **more)
        except TypeError:  # families without this option
            continue
    raise ConfigError(f"Expected timm to create {name}, which takes no known options.")
