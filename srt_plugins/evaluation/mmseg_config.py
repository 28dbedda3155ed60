"""Configs of MMSegmentation, reduced to what testing needs."""

from __future__ import annotations

import importlib
import importlib.util
import itertools
from pathlib import Path
from typing import Any

from ..errors import ConfigError, MissingDependencyError, SRTError
from .files import check_file
from .request import Request

_TRAINING = (
    *("train_dataloader", "train_cfg", "optim_wrapper", "param_scheduler", "auto_scale_lr"),
    *("val_dataloader", "val_cfg", "val_evaluator", "load_from", "resume"),
    *("visualizer", "custom_hooks", "log_processor", "compile", "launcher"),
)
_TESTING = ("model", "test_dataloader", "test_evaluator", "test_cfg")
_HOOKS = ("runtime_info", "timer", "sampler_seed", "logger", "param_scheduler", "checkpoint")
_count = itertools.count()


def import_mmseg() -> None:
    """Import MMSegmentation with everything it registers, on the full mmcv or on mmcv-lite.

    Raises:
        MissingDependencyError: it is not installed.
    """
    for package in ("mmengine", "mmseg"):
        try:
            found = importlib.util.find_spec(package)
        except ValueError:  # blocked by a None in sys.modules
            found = None
        if found is None:
            raise MissingDependencyError(
                f"Comparing MMSegmentation models needs {package}, which is not installed: "
                "pip install 'srt-plugins[mmseg]' and one of mmcv-lite==2.1.0, mmcv==2.1.0."
            )
    importlib.import_module("srt_plugins.mmseg")  # first: makes mmseg.models importable
    from mmseg.utils import register_all_modules

    register_all_modules(init_default_scope=False)


def read_config(cfg: Any, options: dict[str, Any] | None) -> Any:
    """The config at a path, or a copy of one, with overrides.

    Raises:
        ConfigError: no such file, or nothing that MMEngine reads.
    """
    from mmengine.config import Config

    if isinstance(cfg, (str, Path)):
        check_file("config", cfg)
        try:
            read = Config.fromfile(str(cfg))
        except SRTError:
            raise
        except Exception as error:
            raise ConfigError(
                f"{cfg} is not a config that MMEngine reads: {type(error).__name__}: "
                f"{' '.join(str(error).split())}."
            ) from error
    elif isinstance(cfg, Config):
        read = Config(cfg.to_dict(), filename=cfg.filename)
    else:
        raise ConfigError(f"Expected cfg to be a path or a Config, got {type(cfg).__name__}.")
    if options:
        read.merge_from_dict(options)
    return read


def prepared(cfg: Any, folder: str, request: Request) -> Any:
    """The config with everything that testing does not need taken out.

    Args:
        cfg: is changed.
        folder: work_dir.
        request: batches, processes that load data, and MMEngine's random state.

    Raises:
        ConfigError: the config has no test data.
    """
    missing = [key for key in _TESTING if cfg.get(key) is None]
    if missing:
        raise ConfigError(
            f"Expected a config with {', '.join(_TESTING)}, but {', '.join(missing)} "
            f"{'is' if len(missing) == 1 else 'are'} missing; a config that MMSegmentation's own "
            "tools/test.py can run is what is needed."
        )
    for key in _TRAINING:
        cfg.pop(key, None)
    cfg.work_dir = folder
    cfg.log_level = "ERROR"
    cfg.default_hooks = dict.fromkeys(_HOOKS)
    cfg.experiment_name = f"srt_compare_{next(_count)}"
    cfg.randomness = {"seed": request.seed}
    cfg.setdefault("default_scope", "mmseg")
    loader = cfg.test_dataloader
    if request.batch_size is not None:
        loader.batch_size = request.batch_size
    loader.num_workers = request.workers
    loader.persistent_workers = request.workers > 0
    if not request.workers:
        loader.pop("prefetch_factor", None)
    loader.sampler = {"type": "DefaultSampler", "shuffle": False}
    loader.pop("batch_sampler", None)
    return cfg


def limit_images(cfg: Any, limit: int) -> None:
    """Cut the test data of a config to its first images."""
    from mmengine.dataset import BaseDataset
    from mmengine.registry import DefaultScope
    from mmseg.registry import DATASETS

    dataset = cfg.test_dataloader.dataset
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        kind = DATASETS.get(dataset.type) if isinstance(dataset.type, str) else dataset.type
    if not (isinstance(kind, type) and issubclass(kind, BaseDataset)):
        raise ConfigError(
            f"Expected a dataset that can be cut with limit={limit}, got {dataset.type}; leave "
            "--limit out."
        )
    dataset.indices = limit
