"""SRT in LazyConfigs: one line for the node of any backbone."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import fields
from typing import Any, Callable, TypeVar

from detectron2.modeling import Backbone
from detectron2.utils.registry import _convert_target_to_string, locate
from omegaconf import DictConfig, ListConfig, OmegaConf, flag_override
from torch import nn

from ..core.views import Views
from ..errors import ConfigError, nearest
from ..settings import Settings
from .build import check_keywords, check_target, ensemble

Node = TypeVar("Node", bound=Any)

# "target" and "wraps" are the node's own beside the keywords.
_KEYWORDS = (*(f.name for f in fields(Settings)), "target")


def with_srt(node: Node, *, target: str | None = None, **keywords: Any) -> Node:
    """Ensemble the backbone that a LazyConfig node describes, in eval mode::

        cfg = LazyConfig.load("my_vitdet.py")
        with_srt(cfg.model.backbone.net, level=3)

    The node's keys stay where they are, so that interpolations such as ViTDet's
    ``"${.net.out_feature}"`` and overrides hold; the SRT keywords lie flat beside them and can be
    overridden as well: ``model.backbone.net.level=2``. ``wraps`` remembers the original target.

    Args:
        node: a LazyCall of a backbone (``cfg.model.backbone``, its ``net`` or ``bottom_up``);
            changed in place. A node with SRT gets the new keywords instead of the old ones.
        target: part of that backbone to ensemble instead of the whole, as a module path.
        **keywords: see :class:`srt_plugins.Settings`.

    Returns:
        The same node.

    Raises:
        ConfigError: not such a node, a bad keyword, a keyword that the backbone has itself, or a
            part that it lacks; the node is then untouched.
    """
    _check_node(node, target)
    check_keywords({k: _plain(v) for k, v in keywords.items() if not _interpolated(v)})
    again = _is_ours(node["_target_"])
    wraps = node["wraps" if again else "_target_"]
    cls = _located(wraps)
    check_target(target, cls)
    if not again:
        taken = [k for k in (*_KEYWORDS, "wraps") if k in node]
        taken += [k for k in keywords if k in _parameters(cls)]
        if taken:
            raise _collision(taken[0], cls)
    with _writable(node):
        for key in _KEYWORDS if again else ():
            node.pop(key, None)
        node["_target_"] = srt_backbone
        node["wraps"] = _importable(wraps)
        for key, value in {**keywords, "target": target}.items():
            if value is not None:
                node[key] = value.entries() if isinstance(value, Views) else value
    return node


def srt_backbone(*, wraps: Any, target: str | None = None, **keywords: Any) -> nn.Module:
    """Build a backbone and ensemble it; what the nodes of :func:`with_srt` call.

    Args:
        wraps: class or function that builds the backbone, or its dotted path.
        target: part of it to ensemble instead of the whole, as a module path.
        **keywords: SRT keywords (see :class:`srt_plugins.Settings`) and the backbone's own.

    Returns:
        The backbone itself, of a subclass of its class.

    Raises:
        ConfigError: an unknown, bad or ambiguous keyword; before the backbone is built.
        CheckpointError: later, from a checkpoint that holds no weights of the backbone.
    """
    cls = _located(wraps)
    own = _parameters(cls)
    ambiguous = [k for k in keywords if k in _KEYWORDS and k in own]
    if ambiguous:
        raise _collision(ambiguous[0], cls)
    srt = {k: _plain(v) for k, v in keywords.items() if k in _KEYWORDS and v is not None}
    inner = {k: v for k, v in keywords.items() if k not in _KEYWORDS}
    unknown = [k for k in inner if own and k not in own]
    if unknown and not any(p.kind is p.VAR_KEYWORD for p in own.values()):
        raise ConfigError(
            f"Unknown keyword {unknown[0]!r} of {_name(cls)} with SRT; did you mean "
            f"{nearest(unknown[0], [*own, *_KEYWORDS], 3)}?"
        )
    check_keywords(srt)
    check_target(target, cls)
    return ensemble(cls(**inner), target, srt)


def _check_node(node: Any, target: str | None) -> None:
    if not isinstance(node, (DictConfig, dict)) or "_target_" not in node:
        raise ConfigError(
            "Expected node to be the LazyCall of a backbone, such as cfg.model.backbone, got "
            f"{type(node).__name__}; use srt_plugins.attach for a model that is built."
        )
    built = _located(node["_target_"])
    if isinstance(built, type) and built.__module__.startswith("detectron2."):
        kind = "backbone" in node or issubclass(built, Backbone)
        if not kind:
            raise ConfigError(
                f"Expected the node of a backbone, got that of {_name(built)}: use "
                "with_srt(cfg.model.backbone, ...)."
            )
    inside = node.get("backbone") if target is None else None
    if isinstance(inside, Mapping) and "_target_" in inside:
        raise ConfigError(
            f"Expected the node of a backbone, got that of {_name(_located(node['_target_']))}, "
            "which has one: use with_srt(node.backbone, ...)."
        )


def _writable(node: Any) -> AbstractContextManager[Any]:
    """New keys and values of any type are taken, also where the config would refuse them."""
    if isinstance(node, DictConfig):
        return flag_override(node, ["struct", "allow_objects"], [False, True])
    return nullcontext()


def _parameters(cls: Any) -> Mapping[str, inspect.Parameter]:
    try:
        return inspect.signature(cls).parameters
    except (TypeError, ValueError):  # builtins without a signature
        return {}


def _located(target: Any) -> Callable[..., Any]:
    """The class or function of a target, which may be a dotted path."""
    found = target
    if isinstance(target, str):
        try:
            found = locate(target)
        except Exception as error:  # hydra's, pydoc's or the module's own
            raise ConfigError(
                f"Expected a class or function that can be imported, got {target!r}: {error}"
            ) from error
    return found


def _importable(target: Any) -> Any:
    """A target as a dotted path where that finds it again, which saves to readable YAML."""
    try:
        path = _convert_target_to_string(target)
        return path if locate(path) is target else target
    except Exception:  # local classes, partials, nested nodes: kept as they are
        return target


def _is_ours(target: Any) -> bool:
    return target is srt_backbone or (isinstance(target, str) and _located(target) is srt_backbone)


def _interpolated(value: Any) -> bool:
    return isinstance(value, str) and "${" in value


def _plain(value: Any) -> Any:
    return OmegaConf.to_container(value) if isinstance(value, (DictConfig, ListConfig)) else value


def _name(cls: Any) -> str:
    return getattr(cls, "__name__", type(cls).__name__)


def _collision(key: str, cls: Any) -> ConfigError:
    return ConfigError(
        f"Expected {key!r} to be an SRT keyword only, but {_name(cls)} has a keyword of that name "
        "too, so the config would be ambiguous; use srt_plugins.attach(model, ...) on the built "
        "model instead."
    )
