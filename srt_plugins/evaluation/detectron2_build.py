"""Building what a Detectron2 config describes: model, test loader, evaluators."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.data import Dataset, Subset

from ..errors import ConfigError, SRTError
from .detectron2_config import (
    Options,
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
from .request import Request


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
    request: Request,
    options: Options,
    dataset: str | None,
    device: torch.device,
    folder: str,
) -> Built:
    """Build all that a run needs; see :class:`.detectron2_session.Session` for the arguments.

    Args:
        device: that of the model.
        folder: for what evaluators must write.

    Raises:
        ConfigError: the config has no test data or does not build.
    """
    import_detectron2()
    from detectron2.config import CfgNode

    from .detectron2_metrics import collectors

    read = read_config(cfg, options)
    name = str(cfg) if isinstance(cfg, (str, Path)) else "the config"
    notes: list[str] = []
    yacs = isinstance(read, CfgNode)
    with _told(name):
        make = _yacs if yacs else _lazy
        test, model, loader = make(read, name, dataset, device, request.seed, notes)
        loader = _loader(loader, request)
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
    found = collectors(evaluators, request.limit)
    keep_from_writing(evaluators)
    check_evaluators(found, [sample], output)
    return Built(model, loader, test, outputs, _classes(test, outputs), found, notes)


@contextmanager
def _told(name: str) -> Iterator[None]:
    """Turn what Detectron2 raises into a :class:`ConfigError`."""
    try:
        yield
    except SRTError:
        raise
    except Exception as error:
        text = " ".join(str(error).split()).rstrip(".")
        raise ConfigError(
            f"Expected {name} to build and run with Detectron2, got {type(error).__name__}: "
            f"{text}. Check the model, the data paths (DETECTRON2_DATASETS) and --opts."
        ) from error


def _yacs(
    cfg: Any, name: str, dataset: str | None, device: torch.device, seed: int, notes: list[str]
) -> tuple[str | None, nn.Module, Any]:
    """Dataset, model and test loader of a yacs config."""
    from detectron2.data import build_detection_test_loader
    from detectron2.modeling import build_model

    test = yacs_dataset(cfg, dataset)
    if dataset is None and len(cfg.DATASETS.TEST) > 1:
        notes.append(f"data: {test}, the first of DATASETS.TEST; others with --dataset.")
    cfg.MODEL.DEVICE = str(device)
    with _seeded(seed):
        model = build_model(cfg)
    return test, model, build_detection_test_loader(cfg, test)


def _lazy(
    cfg: Any, name: str, dataset: str | None, device: torch.device, seed: int, notes: list[str]
) -> tuple[str | None, nn.Module, Any]:
    """Dataset, model and test loader of a LazyConfig."""
    from detectron2.config import instantiate

    check_lazy(cfg, name)
    test = lazy_dataset(cfg, dataset)
    with _seeded(seed):
        model = instantiate(cfg.model).to(device)
    return test, model, instantiate(cfg.dataloader.test)


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Random weights, of keys that a checkpoint lacks, by seed; the caller's state is kept."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


def _loader(loader: Any, request: Request) -> Any:
    """The loader over the first images of its data, with other batches."""
    from detectron2.data import build_detection_test_loader

    dataset = getattr(loader, "dataset", None)
    if not isinstance(dataset, Dataset) or not hasattr(dataset, "__len__"):
        raise ConfigError(
            f"Expected the test loader to load from a dataset with a length, got "
            f"{type(dataset).__name__} in {type(loader).__name__}."
        )
    if request.limit is not None:
        dataset = Subset(dataset, range(min(request.limit, len(dataset))))
    return build_detection_test_loader(
        dataset=dataset,
        mapper=None,
        batch_size=request.batch_size or loader.batch_size or 1,
        num_workers=request.workers,
        collate_fn=loader.collate_fn,
    )


def _classes(dataset: str | None, outputs: frozenset[str]) -> list[str]:
    from detectron2.data import MetadataCatalog

    if dataset is None:
        return []
    metadata = MetadataCatalog.get(dataset)
    key = "thing_classes" if "instances" in outputs else "stuff_classes"
    return list(metadata.get(key) or [])
