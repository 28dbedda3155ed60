"""Models of Detectron2 to be looked at: instances, or classes of pixels."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..adapters import find_backbone
from ..errors import AdapterError, ConfigError, SRTError
from ..evaluation.detectron2_config import Options, import_detectron2, read_config
from ..evaluation.files import check_file
from .subject import SCORE, Inputs, Prediction, Subject, given_to


class Detectron2Subject(Subject):
    """A model of Detectron2 with the augmentations of its test data."""

    augmentations: Any
    image_format: str

    def inputs(self, image: np.ndarray) -> Inputs:
        """What the backbone gets: resized as for testing, padded as batches are."""
        given = self._data(image)
        backbone = find_backbone(self.model)
        # Not every model has a method for this: SemanticSegmentor pads in its forward.
        images = given_to(backbone, lambda: self.model([given]))
        if images is None:
            raise AdapterError(
                f"Expected {type(self.model).__name__} to call its backbone, "
                f"{type(backbone).__name__}, with images; use a model that does."
            )
        # Batches are padded below and on the right.
        height, width = given["image"].shape[-2:]
        return Inputs(images, (0, 0, int(height), int(width)))

    def predicted(self, image: np.ndarray) -> Prediction:
        """The framework's own prediction, at the size of the image."""
        if self.task is None:
            return Prediction()
        output = self.model([self._data(image)])[0]
        if "instances" not in output:
            return Prediction("classes", labels=output["sem_seg"].argmax(0).cpu().numpy())
        found = output["instances"].to("cpu")
        found = found[found.scores >= SCORE]
        return Prediction(
            "instances",
            labels=found.pred_classes.numpy(),
            boxes=found.pred_boxes.tensor.numpy(),
            masks=found.pred_masks.numpy() if found.has("pred_masks") else None,
            scores=found.scores.numpy(),
        )

    def _data(self, image: np.ndarray) -> dict[str, Any]:
        import detectron2.data.transforms as T

        height, width = image.shape[:2]
        given = T.AugInput(image[..., ::-1] if self.image_format == "BGR" else image)
        self.augmentations(given)
        pixels = torch.as_tensor(np.ascontiguousarray(given.image.transpose(2, 0, 1)))
        return {"image": pixels, "height": height, "width": width}


def detectron2_subject(
    config: str | Path,
    checkpoint: str | Path,
    device: torch.device,
    *,
    trust: bool = False,
    options: Options = None,
    target: str | None = None,
) -> Detectron2Subject:
    """A model of Detectron2 from its config and checkpoint.

    Args:
        config: yacs (.yaml) or LazyConfig (.py).
        checkpoint: weights.
        device: that of the model.
        trust: load a checkpoint that holds more than plain tensors; this runs code from it.
        options: overrides in the config's own syntax.
        target: part of the backbone that SRT is for, None = the whole.

    Raises:
        ConfigError: no such file, or a config that does not build. CheckpointError: weights that
            do not load. MissingDependencyError: Detectron2 is not installed.
    """
    import_detectron2()
    from detectron2.config import CfgNode

    from ..evaluation.detectron2_checkpoint import load_detectron2_weights

    check_file("checkpoint", checkpoint)
    cfg = read_config(config, options)
    try:
        make = _yacs if isinstance(cfg, CfgNode) else _lazy
        model, augmentations, image_format, dataset = make(cfg, device)
    except SRTError:
        raise
    except Exception as error:
        raise ConfigError(
            f"Expected {config} to build with Detectron2, got {type(error).__name__}: "
            f"{' '.join(str(error).split())}. Check the model and --options."
        ) from error
    loaded = load_detectron2_weights(model, checkpoint, trust)
    task = _task(model)
    classes, palette = _classes(dataset, task)
    notes = [text for text in (loaded.warning(),) if text]
    if task is None:
        notes.append(
            f"{type(model).__name__} makes neither instances nor classes of an image alone: "
            "features are shown, and no predictions"
        )
    subject = Detectron2Subject(
        Path(config).stem,
        model,
        task,
        classes,
        palette,
        target=target,
        notes=notes,
    )
    subject.augmentations, subject.image_format = augmentations, image_format
    return subject


def _yacs(cfg: Any, device: torch.device) -> tuple[Any, Any, str, str | None]:
    """Model, augmentations, order of the channels, dataset of a yacs config."""
    import detectron2.data.transforms as T
    from detectron2.modeling import build_model

    cfg.MODEL.DEVICE = str(device)
    short, longest = cfg.INPUT.MIN_SIZE_TEST, cfg.INPUT.MAX_SIZE_TEST
    steps = [T.ResizeShortestEdge([short, short], longest)]
    dataset = cfg.DATASETS.TEST[0] if len(cfg.DATASETS.TEST) else None
    return build_model(cfg), T.AugmentationList(steps), cfg.INPUT.FORMAT, dataset


def _lazy(cfg: Any, device: torch.device) -> tuple[Any, Any, str, str | None]:
    """Model, augmentations, order of the channels, dataset of a LazyConfig."""
    import detectron2.data.transforms as T
    from detectron2.config import instantiate
    from omegaconf import OmegaConf

    if OmegaConf.select(cfg, "model") is None:
        raise ConfigError("Expected a yacs config or a LazyConfig with a model, got neither.")
    model = instantiate(cfg.model).to(device)
    mapper = OmegaConf.select(cfg, "dataloader.test.mapper") or {}
    steps = [instantiate(step) for step in mapper.get("augmentations") or ()]
    image_format = mapper.get("image_format") or getattr(model, "input_format", None) or "BGR"
    names = OmegaConf.select(cfg, "dataloader.test.dataset.names")
    found = instantiate(names) if names is not None else None
    if found is not None and not isinstance(found, str):
        found = next(iter(found), None)
    return model, T.AugmentationList(steps), str(image_format), found


def _task(model: Any) -> str | None:
    """What a model predicts of an image alone."""
    # Without a proposal generator, boxes have to be given.
    finds = hasattr(model, "roi_heads") and getattr(model, "proposal_generator", None) is not None
    if finds or hasattr(model, "head"):
        return "instances"
    return "classes" if hasattr(model, "sem_seg_head") else None


def _classes(dataset: str | None, task: str | None) -> tuple[Sequence[str], np.ndarray | None]:
    """Names and colours of a dataset's classes, as far as they are registered."""
    from detectron2.data import MetadataCatalog

    if dataset is None:
        return (), None
    known = MetadataCatalog.get(dataset)
    kind = "thing" if task == "instances" else "stuff"
    names = list(known.get(f"{kind}_classes") or ())
    colours = known.get(f"{kind}_colors")
    return names, None if not colours else np.array(colours, dtype=np.uint8)
