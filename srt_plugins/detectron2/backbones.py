"""Any module that returns feature maps, as a Detectron2 backbone."""

from __future__ import annotations

import pydoc
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.layers import ShapeSpec
from detectron2.modeling import BACKBONE_REGISTRY, Backbone
from torch import Tensor, nn

from ..adapters.structure import summary
from ..errors import AdapterError, ConfigError
from ..wrapper import srt_enabled
from .config import node

# Divisible by the usual strides 4, 7, 8, 14, 16 and 32.
PROBE_SIZE = 224


class TorchBackbone(Backbone):
    """A torch module that returns feature maps ``(N, C, h, w)``, as a Detectron2 backbone.

    The module is the child ``net``. It may return one map, a list or tuple of maps, a dict of
    maps, or an output of transformers with ``feature_maps``.
    """

    def __init__(
        self,
        net: nn.Module,
        out_features: Sequence[str] | None = None,
        channels: Sequence[int] | None = None,
        strides: Sequence[int] | None = None,
        size_divisibility: int | None = None,
        square_pad: int = 0,
        in_channels: int = 3,
    ) -> None:
        """What is not declared comes from ``net.feature_info`` (timm), or from one forward on
        zeros of 224 x 224 pixels, when it is first asked for.

        Args:
            net: the module.
            out_features: names of the maps in their order; of a dict, which entries. None = a
                dict's own names, else ``p0``, ``p1``, ….
            channels: of each map.
            strides: of each map, in pixels.
            size_divisibility: images are padded to a multiple of this, in pixels; None = the
                coarsest stride, so that no partial patches arise; 0 = not padded.
            square_pad: side of the square that images are padded to, in pixels; 0 = none.
            in_channels: channels of the images.

        Raises:
            ConfigError: ``net`` is no module, only one of ``channels`` and ``strides``, or lists
                of different lengths.
        """
        super().__init__()
        if not isinstance(net, nn.Module):
            raise ConfigError(f"Expected net to be a torch module, got {type(net).__name__}.")
        if (channels is None) != (strides is None):
            raise ConfigError(
                "Expected channels and strides together or neither, got "
                f"channels={channels}, strides={strides}."
            )
        self.net = net
        # Then a checkpoint of a head alone is no mistake.
        self.may_have_weights = True
        self._declared_divisibility = size_divisibility
        self._square_pad = square_pad
        self._in_channels = in_channels
        names = [out_features] if isinstance(out_features, str) else out_features
        self._out_features = [str(name) for name in names] if names else None
        self._shapes: dict[str, ShapeSpec] | None = None
        info: Any = getattr(net, "feature_info", None)
        if channels is None and hasattr(info, "reduction") and hasattr(info, "channels"):
            channels, strides = info.channels(), info.reduction()
        if channels is not None and strides is not None:
            self._declare(list(channels), list(strides))

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Feature maps by name, of images ``(N, C, H, W)``.

        Raises:
            AdapterError: the module returned something else than the maps that were declared.
        """
        maps = self._named(self.net(images))
        for name, shape in (self._shapes or {}).items():
            if maps[name].shape[1] != shape.channels:
                raise AdapterError(
                    f"Expected map {name!r} of {type(self.net).__name__} to be (N, "
                    f"{shape.channels}, h, w), got {tuple(maps[name].shape)}; channels-last maps "
                    "must be permuted first."
                )
        return maps

    def output_shape(self) -> dict[str, ShapeSpec]:
        """Channels and stride (pixels) of each map."""
        if self._shapes is None:
            self._probe()
        return dict(self._shapes or {})

    @property
    def size_divisibility(self) -> int:
        """Images are padded to a multiple of this, in pixels; 0 = not padded."""
        if self._declared_divisibility is not None:
            return self._declared_divisibility
        return max(int(shape.stride) for shape in self.output_shape().values())

    @property
    def padding_constraints(self) -> dict[str, int]:
        """The side of the square that images are padded to, where there is one."""
        return {"square_size": self._square_pad} if self._square_pad else {}

    def _declare(self, channels: list[int], strides: list[int]) -> None:
        names = self._out_features or [f"p{i}" for i in range(len(channels))]
        if not len(names) == len(channels) == len(strides):
            raise ConfigError(
                f"Expected as many names as channels and strides, got {names}, {channels} and "
                f"{strides}."
            )
        self._out_features = names
        self._shapes = {
            name: ShapeSpec(channels=int(c), stride=int(s))
            for name, c, s in zip(names, channels, strides)
        }

    def _probe(self) -> None:
        """Channels and strides from a forward on zeros, in eval mode and without SRT."""
        net = self.net
        parameter = next(net.parameters(), torch.zeros(()))
        images = parameter.new_zeros(1, self._in_channels, PROBE_SIZE, PROBE_SIZE)
        modes = [(module, module.training) for module in net.modules()]
        for module, _ in modes:
            module.training = False
        try:
            with torch.no_grad(), srt_enabled(net, enabled=False):
                output = net(images)
        except Exception as error:
            raise ConfigError(
                f"Expected {type(net).__name__} to take images {tuple(images.shape)}, from which "
                f"its channels and strides would be told, but it raised {type(error).__name__}: "
                f"{error}. Declare channels= and strides=."
            ) from error
        finally:
            for module, training in modes:
                module.training = training
        maps = self._named(output)
        for name, found in maps.items():
            if found.shape[2] != found.shape[3] or PROBE_SIZE % found.shape[2]:
                raise ConfigError(
                    f"Expected map {name!r} of {type(net).__name__} to have one whole stride, got "
                    f"{tuple(found.shape)} for {PROBE_SIZE}x{PROBE_SIZE} pixels. Declare channels= "
                    "and strides=, or permute channels-last maps."
                )
        self._out_features = list(maps)
        self._declare(
            [found.shape[1] for found in maps.values()],
            [PROBE_SIZE // found.shape[2] for found in maps.values()],
        )

    def _named(self, output: Any) -> dict[str, Tensor]:
        if isinstance(output, Mapping) and "feature_maps" in output:
            output = output["feature_maps"]
        if isinstance(output, Tensor):
            output = [output]
        names = self._out_features
        if isinstance(output, Mapping):
            maps = {str(name): value for name, value in output.items()}
            missing = [name for name in names or () if name not in maps]
            if missing:
                raise ConfigError(
                    f"Expected out_features to be among the maps {list(maps)} of "
                    f"{type(self.net).__name__}, got {missing[0]!r}."
                )
            maps = {name: maps[name] for name in names or maps}
        elif isinstance(output, (list, tuple)):
            if names is not None and len(names) != len(output):
                raise ConfigError(
                    f"Expected one name per map of {type(self.net).__name__}, got {names} for "
                    f"{summary(output)}."
                )
            maps = dict(zip(names or [f"p{i}" for i in range(len(output))], output))
        else:
            maps = {}
        if not maps or not all(isinstance(m, Tensor) and m.ndim == 4 for m in maps.values()):
            raise AdapterError(
                f"Expected {type(self.net).__name__} to return feature maps (N, C, h, w), got "
                f"{summary(output)}."
            )
        return maps


@BACKBONE_REGISTRY.register()
def build_torch_net_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> TorchBackbone:
    """The module that ``cfg.MODEL.TORCH_NET`` describes, as a backbone.

    ``CLASS`` is the dotted path of any class or function that gives a module whose output
    :class:`TorchBackbone` takes; the keys are those of
    :func:`srt_plugins.detectron2.add_srt_config`.

    Raises:
        ConfigError: keys missing, a path that cannot be imported, arguments that do not fit.
    """
    torch_net = node(cfg, "TORCH_NET")
    make = _imported(torch_net.CLASS)
    try:
        net = make(**torch_net.KWARGS)
    except TypeError as error:
        raise ConfigError(
            f"Expected cfg.MODEL.TORCH_NET.KWARGS to fit {torch_net.CLASS}, got "
            f"{dict(torch_net.KWARGS)}: {error}"
        ) from error
    return TorchBackbone(
        net,
        out_features=torch_net.OUT_FEATURES,
        channels=torch_net.CHANNELS,
        strides=torch_net.STRIDES,
        size_divisibility=torch_net.SIZE_DIVISIBILITY,
        square_pad=torch_net.SQUARE_PAD,
        in_channels=input_shape.channels,
    )


def _imported(path: Any) -> Any:
    problem: Any = "there is nothing callable of that name"
    try:
        found = pydoc.locate(path) if path and isinstance(path, str) else None
    except pydoc.ErrorDuringImport as error:
        found, problem = None, error
    if callable(found):
        return found
    raise ConfigError(
        "Expected cfg.MODEL.TORCH_NET.CLASS to be the dotted path of a class or function that can "
        f"be imported, such as 'torchvision.models.resnet18', got {path!r}: {problem}."
    )
