"""timm models as Detectron2 backbones."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from detectron2.config import CfgNode
from detectron2.layers import ShapeSpec
from detectron2.modeling import BACKBONE_REGISTRY
from torch import nn

from ..errors import ConfigError, MissingDependencyError, nearest
from .backbones import TorchBackbone
from .config import node

# Let a model take images of any size, each where the model knows it: ViTs, Swin.
_ANY_SIZE = {"dynamic_img_size": True, "dynamic_img_pad": True, "strict_img_size": False}
_UNEXPECTED = re.compile(r"unexpected keyword argument '(\w+)'")


def timm_net(
    name: str,
    pretrained: bool = False,
    out_indices: Sequence[int] | None = None,
    norm: bool = False,
    **kwargs: Any,
) -> nn.Module:
    """A timm model that returns a list of feature maps ``(N, C, h, w)``, of images of any size
    where the model can take them.

    Args:
        name: timm's name of the model.
        pretrained: with timm's weights (downloaded unless they are in its cache).
        out_indices: which maps; None = timm's default, the last three blocks of a ViT.
        norm: the final norm on every map, for a ViT whose head was trained after it; timm's
            features alone come from before it.
        **kwargs: more arguments of the model, such as ``img_size``.

    Raises:
        MissingDependencyError: timm is not installed.
        ConfigError: an unknown name or argument, ``norm`` for a model that has none.
    """
    timm = _timm()
    if ":" not in name and not timm.is_model(name):
        raise ConfigError(
            f"Expected the name of a timm model, got {name!r}; near it are "
            f"{nearest(name, timm.list_models())}."
        )
    options = {"pretrained": pretrained, **kwargs}
    if norm:
        return _normed(timm, name, options, 3 if out_indices is None else list(out_indices))
    options["features_only"] = True
    if out_indices is not None:
        options["out_indices"] = list(out_indices)
    net, flexible = _created(timm, name, options, _ANY_SIZE)
    # Channels-last maps: timm's other way to get features permutes them.
    if str(getattr(net, "output_fmt", "NCHW")).endswith("NHWC"):
        net, _ = _created(timm, name, {**options, "feature_cls": "getter"}, flexible)
    return net


@BACKBONE_REGISTRY.register()
def build_timm_net_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> TorchBackbone:
    """The timm model that ``cfg.MODEL.TIMM_NET`` describes, as a backbone.

    The keys are those of :func:`srt_plugins.detectron2.add_srt_config`; see :func:`timm_net`.

    Raises:
        MissingDependencyError: timm is not installed.
        ConfigError: keys missing, an unknown model or argument.
    """
    timm_node = node(cfg, "TIMM_NET")
    net = timm_net(
        timm_node.NAME,
        pretrained=timm_node.PRETRAINED,
        out_indices=timm_node.OUT_INDICES,
        norm=timm_node.NORM,
        **{"in_chans": input_shape.channels, **timm_node.KWARGS},
    )
    backbone = TorchBackbone(
        net,
        out_features=timm_node.OUT_FEATURES,
        size_divisibility=timm_node.SIZE_DIVISIBILITY,
        square_pad=timm_node.SQUARE_PAD,
        in_channels=input_shape.channels,
    )
    backbone.may_have_weights = timm_node.PRETRAINED
    return backbone


def _normed(timm: Any, name: str, options: dict[str, Any], out_indices: Any) -> nn.Module:
    """The model with its final norm on every map, which ``features_only`` has no option for."""
    from timm.models._features import FeatureGetterNet

    net, _ = _created(timm, name, {"num_classes": 0, **options}, _ANY_SIZE)
    final = getattr(net, "norm", None)
    if final is None or isinstance(final, nn.Identity) or not hasattr(net, "forward_intermediates"):
        raise ConfigError(
            f"Expected norm=False for {name}, which has no final norm for feature maps, got True."
        )
    return FeatureGetterNet(net, out_indices=out_indices, norm=True)


def _created(
    timm: Any, name: str, options: dict[str, Any], optional: dict[str, Any]
) -> tuple[nn.Module, dict[str, Any]]:
    """The model, and those of the optional arguments that it takes."""
    optional = {k: v for k, v in optional.items() if k not in options}
    while True:
        try:
            return timm.create_model(name, **optional, **options), optional
        except TypeError as error:
            # Raised by the constructor's signature, before anything is initialised.
            match = _UNEXPECTED.search(str(error))
            if match is None or match[1] not in {**optional, **options}:
                raise
            if match[1] not in optional:
                raise ConfigError(
                    f"Expected arguments that {name} takes, got {match[1]}="
                    f"{options[match[1]]!r}: {error}"
                ) from error
            optional = {k: v for k, v in optional.items() if k != match[1]}
        except (RuntimeError, AssertionError, IndexError, ValueError) as error:
            raise ConfigError(
                f"Expected timm to make {name} with {options}, but it raised "
                f"{type(error).__name__}: {error}"
            ) from error


def _timm() -> Any:
    try:
        import timm
    except ModuleNotFoundError as error:
        if error.name != "timm":
            raise
        raise MissingDependencyError(
            "build_timm_net_backbone needs timm, which is not installed:\n"
            '  pip install "srt-plugins[timm]"'
        ) from error
    return timm
