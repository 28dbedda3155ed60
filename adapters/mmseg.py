"""Backbones of MMSegmentation.

| class | outputs | blocks | block tokens | sizes |
|---|---|---|---|---|
| VisionTransformer | tuple NCHW or [NCHW, cls] | ``layers.i`` | NLC, class token first | any |
| BEiT, MAE | tuple NCHW | ``layers.i`` | NLC, class token first | ``img_size`` only |
| SwinTransformer | list NCHW | ``stages.i.blocks.j`` | NLC | any |
| MixVisionTransformer | list NCHW | ``layers.i.1.j`` | NLC | any |
| PCPVT, SVT | tuple NCHW | ``layers.i.j`` | NLC | any |
| ResNet and kin | tuple NCHW | ``layer{n}.j`` | NCHW | any |
| TIMMBackbone | list NCHW | | | as the timm model |
"""

from __future__ import annotations

from itertools import accumulate
from operator import mul
from typing import Any, Callable

from srt_plugins.adapters.base import Adapter
from srt_plugins.adapters.structure import side
from torch import nn


def describe(backbone: nn.Module) -> Adapter | None:
    """The adapter of an MMSegmentation backbone (or a subclass of one), None for anything else."""
    for cls in type(backbone).__mro__:
        if cls.__module__.split(".")[0] == "mmseg" and cls.__name__ in _FAMILIES:
            try:
                return _FAMILIES[cls.__name__](backbone)
            except TypeError:  # patches that are no squares
                return None
    return None


def _plain_vit(backbone: Any) -> Adapter:
    patch = int(backbone.patch_size)
    count = len(backbone.layers)
    with_class = bool(getattr(backbone, "with_cls_token", True))
    # An integer patch padding leaves partial patches out; a named one completes them with zeros.
    completes = getattr(backbone.patch_embed, "adap_padding", None) is not None
    # BEiT and MAE have fixed position tables, so their image size cannot change.
    fixed = not hasattr(backbone, "with_cls_token")
    return Adapter(
        family=f"MMSegmentation {_name(backbone)}",
        parts=(),
        patch=patch,
        multiple=patch if completes and not fixed else None,
        # out_origin puts the embedded patches in front of the blocks' outputs.
        strides=(patch,) * (len(backbone.out_indices) + bool(getattr(backbone, "out_origin", 0))),
        blocks=tuple(f"layers.{i}" for i in range(count)),
        block_strides=(patch,) * count,
        taps=tuple(sorted({i % count for i in backbone.out_indices})),
        prefix_tokens=1 if with_class else 0,
    )


def _hierarchical(
    backbone: Any,
    stage_strides: tuple[int, ...],
    stages: list[list[str]],
    layout: str = "NLC",
) -> Adapter:
    blocks = [path for stage in stages for path in stage]
    last = [n - 1 for n in accumulate(len(stage) for stage in stages)]
    # Outputs come in the order in which stages run, however out_indices are written.
    out = sorted({i % len(stages) for i in backbone.out_indices})
    strides = tuple(stage_strides[i] for i in out)
    return Adapter(
        family=f"MMSegmentation {_name(backbone)}",
        parts=(),
        patch=max(strides),
        multiple=max(stage_strides),
        strides=strides,
        blocks=tuple(blocks),
        block_strides=tuple(s for s, stage in zip(stage_strides, stages) for _ in stage),
        taps=tuple(last[i] for i in out),
        block_layout=layout,
    )


def _swin(backbone: Any) -> Adapter:
    strides = [side(backbone.patch_embed.projection.stride)]
    for stage in list(backbone.stages)[:-1]:
        strides.append(strides[-1] * side(stage.downsample.sampler.stride))
    stages = [
        [f"stages.{i}.blocks.{j}" for j in range(len(stage.blocks))]
        for i, stage in enumerate(backbone.stages)
    ]
    return _hierarchical(backbone, tuple(strides), stages)


def _mit(backbone: Any) -> Adapter:
    stages = [
        [f"layers.{i}.1.{j}" for j in range(len(stage[1]))]
        for i, stage in enumerate(backbone.layers)
    ]
    return _hierarchical(backbone, tuple(accumulate(backbone.strides, mul)), stages)


def _pvt(backbone: Any) -> Adapter:
    strides = accumulate((side(p.projection.stride) for p in backbone.patch_embeds), mul)
    stages = [
        [f"layers.{i}.{j}" for j in range(len(stage))] for i, stage in enumerate(backbone.layers)
    ]
    return _hierarchical(backbone, tuple(strides), stages)


def _resnet(backbone: Any) -> Adapter:
    # conv1 and the max-pool give stride 4.
    strides = tuple(4 * s for s in accumulate(backbone.strides[: backbone.num_stages], mul))
    stages = [
        [f"{name}.{j}" for j in range(len(getattr(backbone, name)))] for name in backbone.res_layers
    ]
    return _hierarchical(backbone, strides, stages, layout="NCHW")


def _timm(backbone: Any) -> Adapter:
    info: Any = getattr(backbone.timm_model, "feature_info", None)
    reduction = info.reduction() if hasattr(info, "reduction") else None
    return Adapter(
        family=f"MMSegmentation {_name(backbone)}",
        patch=max(reduction) if reduction else None,
        strides=tuple(reduction) if reduction else None,
    )


def _name(backbone: nn.Module) -> str:
    return next(c.__name__ for c in type(backbone).__mro__ if c.__module__.startswith("mmseg"))


_FAMILIES: dict[str, Callable[[Any], Adapter]] = {
    "VisionTransformer": _plain_vit,
    "BEiT": _plain_vit,
    "MAE": _plain_vit,
    "SwinTransformer": _swin,
    "MixVisionTransformer": _mit,
    "PCPVT": _pvt,
    "SVT": _pvt,
    "ResNet": _resnet,
    "TIMMBackbone": _timm,
}
