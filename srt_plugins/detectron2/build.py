"""The backbone builder for yacs configs, and what it shares with the LazyConfig form."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Callable

from detectron2.config import CfgNode
from detectron2.layers import ShapeSpec
from detectron2.modeling import BACKBONE_REGISTRY, FPN, Backbone, ResNet
from torch import nn

from srt_plugins.adapters import find_target
from srt_plugins.adapters.detectron2 import parts as image_parts

from ..errors import ConfigError, nearest
from ..settings import Settings
from ..state import chosen_views
from ..wrapper import SRTWrapper
from .config import node, srt_keywords
from .uncertainty import follow_into_model

_SELF = "build_srt_backbone"

# What the builders that Detectron2 brings build.
_BUILDERS: dict[str, type] = {
    "build_resnet_backbone": ResNet,
    "build_resnet_fpn_backbone": FPN,
    "build_retinanet_resnet_fpn_backbone": FPN,
}


@BACKBONE_REGISTRY.register()
def build_srt_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> Backbone:
    """Build the backbone that ``cfg.MODEL.SRT.BACKBONE`` names, and ensemble it in eval mode.

    The keys are those of :func:`srt_plugins.detectron2.add_srt_config`::

        MODEL:
          BACKBONE: {NAME: build_srt_backbone}
          SRT: {BACKBONE: build_resnet_fpn_backbone, TARGET: bottom_up, LEVEL: 3}

    Returns:
        The backbone itself, of a subclass of its class: state-dict keys, ``output_shape()``,
        ``size_divisibility`` and ``padding_constraints`` are its own.

    Raises:
        ConfigError: keys missing, an unknown builder, a bad SRT value, a part that the backbone
            lacks; before the rest of the model is built, and before the backbone where it can be
            known then.
        CheckpointError: later, from a checkpoint that holds no weights of the backbone.
    """
    srt = node(cfg, "SRT")
    builder = _builder(srt.BACKBONE)
    keywords = srt_keywords(srt)
    check_keywords(keywords)
    check_target(srt.TARGET, _BUILDERS.get(srt.BACKBONE))
    if srt.BACKBONE in _BUILDERS:
        _check_level(cfg, keywords)
    return ensemble(builder(cfg, input_shape), srt.TARGET, keywords)


def check_keywords(keywords: Mapping[str, Any]) -> None:
    """Raise :class:`ConfigError` for an SRT keyword that is unknown, bad, or not for Detectron2."""
    if Settings.of(**keywords).stride is not None:
        raise ConfigError(
            f"Expected stride=None, got {keywords['stride']}: Detectron2's heads take the strides "
            "of the feature maps from output_shape(), so finer maps would be read at the wrong "
            "places. Use smooth=3 for smoother maps, or srt_plugins.SRTWrapper on a backbone whose "
            "maps you read yourself."
        )


def _check_level(cfg: CfgNode, keywords: Mapping[str, Any]) -> None:
    """Raise :class:`ConfigError` for views too far apart for the ResNet that a config describes."""
    resnet = cfg.MODEL.RESNETS
    strides = {"stem": 4, "res2": 4, "res3": 8, "res4": 16, "res5": 32 // resnet.RES5_DILATION}
    coarsest = max((strides.get(name, 0) for name in resnet.OUT_FEATURES), default=0)
    if coarsest:
        chosen_views(Settings.of(**keywords), coarsest, quiet=True)


def check_target(target: Any, cls: Any) -> None:
    """Raise :class:`ConfigError` for a part that a backbone class of Detectron2 does not have."""
    if target is not None and not isinstance(target, str):
        raise ConfigError(
            f"Expected target to be a module path below the backbone, got {target!r}; leave it out "
            "to ensemble the whole backbone."
        )
    parts = image_parts(cls) if isinstance(cls, type) else None
    if target and parts is not None and target.split(".")[0] not in parts:
        raise ConfigError(
            f"Expected target to be a part of {cls.__name__} that takes images, got {target!r}; "
            f"it has {', '.join(map(repr, parts)) or 'none'}. Leave it out to ensemble the whole "
            "backbone."
        )


def ensemble(backbone: nn.Module, target: str | None, keywords: Mapping[str, Any]) -> Any:
    """Ensemble a part of a backbone that a config built; returns the backbone.

    Raises:
        ConfigError: the backbone lacks the part, or a setting does not suit it (a level of a whole
            patch, an unknown layer).
    """
    part: Any = SRTWrapper(find_target(backbone, target or None), **keywords)
    # A checkpoint that matches nothing must not leave random weights behind: Detectron2 only logs
    # a warning. Modules from elsewhere may have brought weights of their own.
    brought = getattr(backbone, "may_have_weights", not isinstance(backbone, Backbone))
    part._srt.needs_weights = not brought
    if part._srt.settings.dispersion:
        follow_into_model(backbone)
    return backbone


def _builder(name: Any) -> Callable[[CfgNode, ShapeSpec], Backbone]:
    if name and name != _SELF and name in BACKBONE_REGISTRY:
        return BACKBONE_REGISTRY.get(name)
    if name == _SELF:
        wrong = "another builder"
    elif not name:
        wrong = "the builder of the backbone to ensemble (what cfg.MODEL.BACKBONE.NAME was)"
    else:
        wrong = "a registered builder"
    names = [registered for registered, _ in BACKBONE_REGISTRY if registered != _SELF]
    raise ConfigError(
        f"Expected cfg.MODEL.SRT.BACKBONE to name {wrong}, got {name!r}; registered are "
        f"{nearest(str(name), names)}. If it is your own, import its module first."
    )
