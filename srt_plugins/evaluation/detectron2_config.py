"""Configs of Detectron2, yacs and LazyConfig, reduced to what testing needs."""

from __future__ import annotations

import copy
import importlib.util
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Union

from ..errors import ConfigError, MissingDependencyError, SRTError, nearest

# Overrides in the framework's own syntax, or a dict by dotted key.
Options = Union[Sequence[str], Mapping[str, Any], None]

_SCENES = re.compile(r"scenes_(train|val|test)_(\d+)_(\d+)x(\d+)")
_TESTING = ("model", "dataloader.test", "dataloader.evaluator")


def import_detectron2() -> None:
    """Import Detectron2 with everything that this plugin registers in it.

    Raises:
        MissingDependencyError: it is not installed.
    """
    try:
        found = importlib.util.find_spec("detectron2")
    except ValueError:  # blocked by a None in sys.modules
        found = None
    if found is None:
        raise MissingDependencyError(
            "Comparing Detectron2 models needs detectron2, which is not installed; it is built for "
            "your torch from its sources: "
            "https://detectron2.readthedocs.io/tutorials/install.html"
        )
    importlib.import_module("srt_plugins.detectron2")


def read_config(cfg: Any, options: Options = None) -> Any:
    """The config at a path, or a copy of one, with overrides: a ``CfgNode`` or a ``DictConfig``.

    A ``.yaml`` file is a yacs config, whose base and keys Detectron2 resolves and which may set
    ``MODEL.SRT``; a ``.py`` file is a LazyConfig.

    Raises:
        ConfigError: no such file, not a config, or overrides that do not fit.
    """
    from detectron2.config import CfgNode, LazyConfig
    from omegaconf import DictConfig

    if isinstance(cfg, (str, Path)):
        read = _read_file(Path(cfg))
    elif isinstance(cfg, (CfgNode, DictConfig)):
        read = copy.deepcopy(cfg)
    else:
        raise ConfigError(
            f"Expected cfg to be a path, a CfgNode or a DictConfig, got {type(cfg).__name__}."
        )
    given = _listed(options, read)
    try:
        if isinstance(read, CfgNode):
            read.defrost()
            read.merge_from_list(given)
        else:
            LazyConfig.apply_overrides(read, given)
    except Exception as error:
        syntax = "KEY VALUE pairs" if isinstance(read, CfgNode) else "key=value"
        raise ConfigError(
            f"Expected --opts (cfg_options) to be {syntax} that fit the config, got "
            f"{' '.join(map(str, given))}: {_told(error)}."
        ) from error
    return read


def _read_file(path: Path) -> Any:
    from detectron2.config import LazyConfig, get_cfg

    from ..detectron2 import add_srt_config

    if not path.is_file():
        raise ConfigError(f"Expected config to be a file, got {path}, which does not exist.")
    if path.suffix not in (".py", ".yaml", ".yml"):
        raise ConfigError(
            f"Expected config to be a yacs file (.yaml) or a LazyConfig (.py), got {path}."
        )
    try:
        if path.suffix == ".py":
            return LazyConfig.load(str(path))
        read = get_cfg()
        add_srt_config(read)
        read.merge_from_file(str(path))
        return read
    except SRTError:
        raise
    except Exception as error:
        raise ConfigError(
            f"{path} is not a config that Detectron2 reads: {_told(error)}."
        ) from error


def _listed(options: Options, cfg: Any) -> list[Any]:
    """Overrides as the framework takes them."""
    from detectron2.config import CfgNode

    if not options:
        return []
    if isinstance(options, Mapping):
        if isinstance(cfg, CfgNode):
            return [word for pair in options.items() for word in pair]
        return [f"{key}={value}" for key, value in options.items()]
    return list(options)


def check_lazy(cfg: Any, name: str) -> None:
    """Raise :class:`ConfigError` unless a LazyConfig has all that testing needs."""
    from omegaconf import OmegaConf

    missing = [key for key in _TESTING if OmegaConf.select(cfg, key) is None]
    if missing:
        raise ConfigError(
            f"Expected {name} to be a yacs config or a LazyConfig with {', '.join(_TESTING)}, but "
            f"{', '.join(missing)} {'is' if len(missing) == 1 else 'are'} missing."
        )


def known_dataset(name: str) -> str:
    """The name of a registered dataset.

    ``scenes_<split>_<length>_<H>x<W>`` is registered if it is not there.

    Raises:
        ConfigError: no dataset of that name; lists the near ones.
    """
    from detectron2.data import DatasetCatalog

    from ..detectron2 import register_scenes

    match = _SCENES.fullmatch(name)
    if match:
        return register_scenes(match[1], int(match[2]), (int(match[3]), int(match[4])), name)
    if name not in DatasetCatalog:
        raise ConfigError(
            f"Expected a registered dataset, got {name!r}; near ones are "
            f"{nearest(name, DatasetCatalog.list())}. Procedural scenes are named like "
            "scenes_val_200_320x480; a dataset of your own must be registered by the config (.py) "
            "or before the call."
        )
    return name


def yacs_dataset(cfg: Any, dataset: str | None) -> str:
    """The dataset to test a yacs config on; None = the first of ``DATASETS.TEST``."""
    if dataset is None and not cfg.DATASETS.TEST:
        raise ConfigError(
            "Expected a config with DATASETS.TEST, which is empty; name a dataset with --dataset "
            "(dataset=...), such as scenes_val_200_320x480."
        )
    return known_dataset(dataset or cfg.DATASETS.TEST[0])


def lazy_dataset(cfg: Any, dataset: str | None) -> str | None:
    """The dataset of a LazyConfig's test loader, after putting in the one asked for.

    None where the config makes its dataset in a way of its own.
    """
    from detectron2.config import instantiate
    from omegaconf import OmegaConf

    key = "dataloader.test.dataset.names"
    names = OmegaConf.select(cfg, key)
    if dataset is not None:
        if names is None:
            raise ConfigError(
                f"Expected a LazyConfig with {key} for --dataset {dataset}, but it has none; leave "
                "--dataset out."
            )
        OmegaConf.update(cfg, key, known_dataset(dataset))
        for node in evaluator_nodes(cfg):
            if "dataset_name" in node:
                node["dataset_name"] = dataset
        return dataset
    if names is None:
        return None
    found = instantiate(names)
    first = found if isinstance(found, str) else next(iter(found))
    return known_dataset(str(first))


def evaluator_nodes(cfg: Any) -> Iterator[Any]:
    """The nodes of a LazyConfig's evaluators: one, a list, or ``DatasetEvaluators`` of a list."""
    from omegaconf import ListConfig

    node = cfg.dataloader.evaluator
    inner = node if isinstance(node, ListConfig) else node.get("evaluators", [node])
    yield from inner


def _told(error: Exception) -> str:
    text = " ".join(str(error).split()).rstrip(".")
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
