"""The keys that the plugin adds to a yacs config."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from detectron2.config import CfgNode

from ..errors import ConfigError
from ..settings import Settings

_FIELDS = tuple(f.name for f in fields(Settings))

# yacs lets None become a value of any type.
_NODES: dict[str, dict[str, Any]] = {
    "SRT": {"BACKBONE": "", "TARGET": None, **{name.upper(): None for name in _FIELDS}},
    "TIMM_NET": {
        "NAME": "",
        "PRETRAINED": False,
        "OUT_INDICES": None,
        "OUT_FEATURES": None,
        "NORM": False,
        "SIZE_DIVISIBILITY": None,
        "SQUARE_PAD": 0,
        "KWARGS": CfgNode(new_allowed=True),
    },
    "TORCH_NET": {
        "CLASS": "",
        "OUT_FEATURES": None,
        "CHANNELS": None,
        "STRIDES": None,
        "SIZE_DIVISIBILITY": None,
        "SQUARE_PAD": 0,
        "KWARGS": CfgNode(new_allowed=True),
    },
}


def add_srt_config(cfg: CfgNode) -> None:
    """Add the plugin's keys to a config, before anything that sets them is merged into it.

    ``cfg.MODEL.SRT``, read by ``MODEL.BACKBONE.NAME: build_srt_backbone`` and, like every node of
    Detectron2, without effect while another builder is named there:

    - ``BACKBONE``: name of the builder of the backbone to ensemble, what ``MODEL.BACKBONE.NAME``
      was.
    - ``TARGET``: part of it to ensemble instead of the whole, as a module path
      (``"bottom_up"`` of an FPN); None or ``""`` = the whole.
    - ``LEVEL``, ``VIEWS``, ``STATISTIC``, …: every keyword of :class:`srt_plugins.Settings` in
      upper case; None = its default. yacs keeps the type of a value once it is set: to change
      ``VIEWS phases`` into ``VIEWS 9`` on a command line, put ``VIEWS None`` in between.

    ``cfg.MODEL.TIMM_NET``, read by ``build_timm_net_backbone``: ``NAME`` (timm's), ``PRETRAINED``,
    ``OUT_INDICES`` (None = timm's default), ``NORM`` (final norm on a ViT's maps), ``KWARGS``
    (more arguments of the model; yacs takes them from a file only), and the last three of these.

    ``cfg.MODEL.TORCH_NET``, read by ``build_torch_net_backbone``: ``CLASS`` (dotted path of a
    class or function), ``KWARGS`` (its arguments), ``CHANNELS`` and ``STRIDES`` (pixels) of its
    maps (None = found by one forward), ``OUT_FEATURES`` (names of its maps, None = p0, p1, …),
    ``SIZE_DIVISIBILITY`` (pixels; None = the coarsest stride, 0 = any size) and ``SQUARE_PAD``
    (pixels; 0 = none).

    Keys that are there already keep their values, so calling it twice is harmless.
    """
    for node, defaults in _NODES.items():
        if node not in cfg.MODEL:
            cfg.MODEL[node] = CfgNode()
        for key, value in defaults.items():
            if key not in cfg.MODEL[node]:
                cfg.MODEL[node][key] = value.clone() if isinstance(value, CfgNode) else value


def node(cfg: CfgNode, name: str) -> CfgNode:
    """``cfg.MODEL.<name>``, or a :class:`ConfigError` that says how it gets there."""
    found = cfg.MODEL.get(name)
    missing = [key for key in _NODES[name] if found is None or key not in found]
    if missing:
        raise ConfigError(
            f"Expected cfg.MODEL.{name}.{missing[0]}, which the config lacks; call "
            "srt_plugins.detectron2.add_srt_config(cfg) before merging files and options into it."
        )
    return found


def srt_keywords(srt: CfgNode) -> dict[str, Any]:
    """The SRT keywords that a node sets, under their own names."""
    return {name: srt[name.upper()] for name in _FIELDS if srt[name.upper()] is not None}
