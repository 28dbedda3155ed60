"""Building what a Detectron2 config describes: model, test loader, evaluators."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.data import Dataset, Subset

from ..errors import ConfigError, SRTError
from .detectron2_config import (
    check_lazy,
    import_detectron2,
    lazy_dataset,
    read_config,
    yacs_dataset,
)
from .detectron2_evaluators import (
    check_evaluators,
    keep_from_writing,
    lazy_evaluators,
    yacs_evaluators,
)


@dataclass
class Built:
    """A model with its test data; ``outputs`` are the keys that it returns for an image."""

    model: nn.Module
    loader: Any
    dataset: str | None
    outputs: frozenset[str]
    classes: list[str]
    collectors: list
    notes: list[str]


def build(
    cfg: Any,
    *,
    options: Any,
    dataset: str | None,
    limit: int | None,
    batch_size: int | None,
    workers: int,
    device: torch.device,
    seed: int,
    folder: str,
) -> Built:
    """Build all that a run needs; see :class:`.detectron2_session.Session` for the arguments.

    Args:
        folder: for what evaluators must write.

    Raises:
        ConfigError: the config has no test data or does not build.
    """
    import_detectron2()
    from detectron2.config import CfgNode

    for name, value in (("limit", limit), ("batch_size", batch_size)):
        if value is not None and value < 1:
            raise ConfigError(f"Expected {name} to be at least 1, got {value}.")
    read = read_config(cfg, options)
    name = str(cfg) if isinstance(cfg, (str, Path)) else "the config"
    yacs = isinstance(read, CfgNode)
    notes: list[str] = []
    test: str | None = None
    if yacs:
        test = yacs_dataset(read, dataset)
        if dataset is None and len(read.DATASETS.TEST) > 1:
            notes.append(f"data: {test}, the first of DATASETS.TEST; others with --dataset.")
    else:
        check_lazy(read, name)
    try:
        if not yacs:
            test = lazy_dataset(read, dataset)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model = _yacs_model(read, device) if yacs else _lazy_model(read, device)
        loader = _loader(_yacs_loader(read, test) if yacs else _lazy_loader(read), limit)
        loader = _with_batches(loader, batch_size, workers)
        if not len(loader.dataset):
            raise ConfigError(f"Expected test data in {name}, got an empty dataset.")
        sample = loader.dataset[0]
        model.eval()
        with torch.no_grad():
            output = model(loader.collate_fn([sample]))
        outputs = frozenset(output[0])
        evaluators = (
            yacs_evaluators(test, outputs, sample, folder, notes)
            if yacs
            else lazy_evaluators(read, folder)
        )
    except SRTError:
        raise
    except Exception as error:
        text = " ".join(str(error).split()).rstrip(".")
        raise ConfigError(
            f"Expected {name} to build and run with Detectron2, got {type(error).__name__}: "
            f"{text}. Check the model, the data paths (DETECTRON2_DATASETS) and --opts."
        ) from error
    from .detectron2_metrics import collectors

    found = collectors(evaluators, limit)
    keep_from_writing(evaluators)
    check_evaluators(found, [sample], output)
    return Built(model, loader, test, outputs, _classes(test, outputs), found, notes)


def _yacs_model(cfg: Any, device: torch.device) -> nn.Module:
    from detectron2.modeling import build_model

    cfg.MODEL.DEVICE = str(device)
    model: nn.Module = build_model(cfg)
    return model


def _lazy_model(cfg: Any, device: torch.device) -> nn.Module:
    from detectron2.config import instantiate

    model: nn.Module = instantiate(cfg.model)
    return model.to(device)


def _yacs_loader(cfg: Any, dataset: str | None) -> Any:
    from detectron2.data import build_detection_test_loader

    return build_detection_test_loader(cfg, dataset)


def _lazy_loader(cfg: Any) -> Any:
    from detectron2.config import instantiate

    return instantiate(cfg.dataloader.test)


def _loader(loader: Any, limit: int | None) -> Any:
    """The loader over the first images of its data."""
    dataset = getattr(loader, "dataset", None)
    if not isinstance(dataset, Dataset) or not hasattr(dataset, "__len__"):
        raise ConfigError(
            f"Expected the test loader to load from a dataset with a length, got "
            f"{type(dataset).__name__} in {type(loader).__name__}."
        )
    if limit is None:
        return loader
    return _rebuilt(loader, Subset(dataset, range(min(limit, len(dataset)))), loader.batch_size, 0)


def _with_batches(loader: Any, batch_size: int | None, workers: int) -> Any:
    return _rebuilt(loader, loader.dataset, batch_size or loader.batch_size, workers)


def _rebuilt(loader: Any, dataset: Any, batch_size: int | None, workers: int) -> Any:
    from detectron2.data import build_detection_test_loader

    return build_detection_test_loader(
        dataset=dataset,
        mapper=None,
        batch_size=batch_size or 1,
        num_workers=workers,
        collate_fn=loader.collate_fn,
    )


def _classes(dataset: str | None, outputs: frozenset[str]) -> list[str]:
    from detectron2.data import MetadataCatalog

    if dataset is None:
        return []
    metadata = MetadataCatalog.get(dataset)
    key = "thing_classes" if "instances" in outputs else "stuff_classes"
    return list(metadata.get(key) or [])
