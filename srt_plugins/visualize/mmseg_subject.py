"""Models of MMSegmentation to be looked at: segmentors and depth estimators."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..errors import ConfigError, SRTError
from ..evaluation.checkpoint import load_weights
from ..evaluation.files import check_file
from ..evaluation.mmseg_config import import_mmseg, read_config
from .subject import Inputs, Prediction, Subject


class MMSegSubject(Subject):
    """A model of MMSegmentation with the test pipeline of its config."""

    pipeline: Any

    def inputs(self, image: np.ndarray) -> Inputs:
        """What the backbone gets: resized by the pipeline, padded by the preprocessor."""
        data = self._data(image)
        preprocessor: Any = self.model.data_preprocessor
        made = preprocessor(data, False)
        known = made["data_samples"][0].metainfo
        left, _, top, _ = known.get("img_padding_size", (0, 0, 0, 0))
        height, width = known["img_shape"][:2]
        if any(type(step).__name__ == "Pad" for step in self.pipeline.transforms):
            # Padding of the pipeline's own, below and on the right, is part of img_shape.
            across, down = known.get("scale_factor", (1.0, 1.0))
            height = min(height, max(1, round(image.shape[0] * down)))
            width = min(width, max(1, round(image.shape[1] * across)))
        return Inputs(made["inputs"], (top, left, height, width))

    def predicted(self, image: np.ndarray) -> Prediction:
        """The framework's own prediction, at the size of the image."""
        model: Any = self.model
        sample = model.test_step(self._data(image))[0]
        if "pred_depth_map" in sample:
            return Prediction("depth", depth=sample.pred_depth_map.data[0].float().cpu().numpy())
        return Prediction("classes", labels=sample.pred_sem_seg.data[0].cpu().numpy())

    def _data(self, image: np.ndarray) -> dict[str, Any]:
        from mmengine.dataset import pseudo_collate

        # As mmcv reads images: blue first.
        made = self.pipeline({"img": np.ascontiguousarray(image[..., ::-1])})
        if not isinstance(made.get("inputs"), torch.Tensor):
            count = len(made.get("inputs") or ())
            raise ConfigError(
                f"Expected the test pipeline of {self.name} to make one input of each image, got "
                f"{count}, as for test-time augmentation; give a plain one, such as --options "
                "\"test_pipeline=[{'type': 'PackSegInputs'}]\"."
            )
        return dict(pseudo_collate([made]))


def mmseg_subject(
    config: str | Path,
    checkpoint: str | Path,
    device: torch.device,
    *,
    trust: bool = False,
    options: dict[str, Any] | None = None,
) -> MMSegSubject:
    """A model of MMSegmentation from its config and checkpoint.

    Args:
        config: file with ``model``; its test pipeline says how images are resized, without one
            they go in as they are.
        checkpoint: weights.
        device: that of the model.
        trust: load a checkpoint that holds more than plain tensors; this runs code from it.
        options: overrides of the config, by dotted key.

    Raises:
        ConfigError: no such file, or a config that does not build. CheckpointError: weights that
            do not load. MissingDependencyError: MMSegmentation is not installed.
    """
    import_mmseg()
    check_file("config", config)
    check_file("checkpoint", checkpoint)
    cfg = read_config(config, options)
    if cfg.get("model") is None:
        raise ConfigError(f"Expected {config} to be a config with model=dict(...), got none.")
    try:
        model = _built(cfg)
        pipeline = _pipeline(cfg)
    except SRTError:
        raise
    except Exception as error:
        raise ConfigError(
            f"Expected {config} to build with MMSegmentation, got {type(error).__name__}: "
            f"{' '.join(str(error).split())}. Check the model and custom_imports of the config."
        ) from error
    loaded = load_weights(model, checkpoint, trust)
    model.to(device)
    classes, palette = _classes(cfg)
    task = "depth" if type(model).__name__ == "DepthEstimator" else "classes"
    subject = MMSegSubject(
        Path(config).stem,
        model,
        task,
        classes,
        palette,
        notes=[text for text in (loaded.warning(),) if text],
    )
    subject.pipeline = pipeline
    return subject


def _built(cfg: Any) -> Any:
    from mmengine.registry import DefaultScope
    from mmseg.registry import MODELS

    cfg.model.setdefault("train_cfg", None)
    if "pretrained" in cfg.model:
        cfg.model.pretrained = None  # as init_model has it: the checkpoint brings the weights
    scope = cfg.get("default_scope") or "mmseg"
    with DefaultScope.overwrite_default_scope(scope):
        return MODELS.build(cfg.model)


def _pipeline(cfg: Any) -> Any:
    """The config's test pipeline for images in memory."""
    from mmcv.transforms import Compose
    from mmengine.registry import DefaultScope

    steps = cfg.get("test_pipeline")
    if steps is None:
        steps = (cfg.get("test_dataloader") or {}).get("dataset", {}).get("pipeline")
    if steps is None:
        steps = [{"type": "PackSegInputs"}]
    # What loads images and labels from files; pictures come from us, and labels are not needed.
    kept = [step for step in steps if not str(step["type"]).rpartition(".")[2].startswith("Load")]
    with DefaultScope.overwrite_default_scope(cfg.get("default_scope") or "mmseg"):
        return Compose([{"type": "LoadImageFromNDArray"}, *kept])


def _classes(cfg: Any) -> tuple[list[str], np.ndarray | None]:
    """Names and colours of the classes: the data set's, where the config names one."""
    from mmengine.registry import DefaultScope
    from mmseg.registry import DATASETS

    node = (cfg.get("test_dataloader") or {}).get("dataset") or {}
    own = dict(node.get("metainfo") or {})
    kind = node.get("type")
    if isinstance(kind, str):
        with DefaultScope.overwrite_default_scope(cfg.get("default_scope") or "mmseg"):
            kind = DATASETS.get(kind)
    info = {**dict(getattr(kind, "METAINFO", {}) or {}), **own}
    names = list(info.get("classes") or ())
    palette = info.get("palette")
    return names, None if palette is None else np.array(palette, dtype=np.uint8)
