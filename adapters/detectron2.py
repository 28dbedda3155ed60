"""Backbones of Detectron2, and copies of them elsewhere. All return a dict of NCHW maps.

| class | blocks | block tokens | sizes |
|---|---|---|---|
| ViT | ``blocks.i`` | NHWC | any, partial patches dropped |
| SwinTransformer | ``layers.i.blocks.j`` | NLC | any |
| MViT | ``blocks.i`` | NHWC | any |
| ResNet | ``res{n}.j`` | NCHW | any |
| SimpleFeaturePyramid, FPN | those of ``net``, ``bottom_up`` | as theirs | whole strides |
| any other Backbone | | | ``output_shape()`` says the strides |
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import accumulate
from typing import Any, Callable

from srt_plugins.adapters.base import Adapter
from srt_plugins.adapters.structure import side
from torch import nn


def describe(backbone: nn.Module) -> Adapter | None:
    """The adapter of a Detectron2 ``Backbone``, None for anything else or one that tells nothing.

    Families are known by name: many projects carry a changed copy of Detectron2's ViT and pyramid.
    """
    classes = type(backbone).__mro__
    own = [cls.__name__ for cls in classes if cls.__module__.startswith("detectron2.")]
    if "Backbone" not in own:
        return None
    for cls in classes:
        try:
            adapter = _FAMILIES[cls.__name__](backbone) if cls.__name__ in _FAMILIES else None
        except (AttributeError, IndexError, KeyError, TypeError):
            continue  # of that name, but built in another way
        if adapter is not None:
            return adapter
    return None


def parts(cls: type) -> tuple[str, ...] | None:
    """Children of a backbone class that take images, as targets of their own; None = not known."""
    return next((_PARTS[c.__name__] for c in cls.__mro__ if c.__name__ in _PARTS), None)


def _any(backbone: Any) -> Adapter | None:
    """One of no known family: a pyramid on another backbone, or just what it declares."""
    for part in ("bottom_up", "net"):
        child = getattr(backbone, part, None)
        if isinstance(child, nn.Module) and describe(child) is not None:
            return _pyramid(part)(backbone)
    return _declared(backbone)


def _declared(backbone: Any) -> Adapter | None:
    """What every ``Backbone`` declares: the names and strides of its maps."""
    try:
        shapes = backbone.output_shape()
        strides = tuple(int(shape.stride) for shape in shapes.values())
    except Exception:  # a user's own may fail in any way; it is probed on first use then
        return None
    if not strides:
        return None
    name = next(c.__name__ for c in type(backbone).__mro__ if not c.__name__.startswith("SRT"))
    return Adapter(
        family=f"Detectron2 {name}",
        patch=max(strides),
        strides=strides,
        names=tuple(shapes),
        declares=True,
        parts=parts(type(backbone)),
    )


def _blocked(
    backbone: Any,
    stages: Sequence[Sequence[str]],
    stage_strides: Sequence[int],
    stage_names: Sequence[str],
    layout: str,
) -> Adapter | None:
    """What it declares, and blocks in stages; a stage's last block makes the stage's output."""
    adapter = _declared(backbone)
    if adapter is None:
        return None
    last = [n - 1 for n in accumulate(len(stage) for stage in stages)]
    return replace(
        adapter,
        blocks=tuple(path for stage in stages for path in stage),
        block_strides=tuple(s for s, stage in zip(stage_strides, stages) for _ in stage),
        taps=tuple(i for i, name in zip(last, stage_names) if name in adapter.names),
        block_layout=layout,
    )


def _vit(backbone: Any) -> Adapter | None:
    blocks = [f"blocks.{i}" for i in range(len(backbone.blocks))]
    patch = side(backbone.patch_embed.proj.stride)
    adapter = _blocked(backbone, [blocks], [patch], backbone._out_features, "NHWC")
    return adapter and replace(adapter, floor=patch)


def _swin(backbone: Any) -> Adapter | None:
    stages = [
        [f"layers.{i}.blocks.{j}" for j in range(len(layer.blocks))]
        for i, layer in enumerate(backbone.layers)
    ]
    patch = side(backbone.patch_embed.patch_size)
    strides = [patch * 2**i for i in range(len(stages))]
    names = [f"p{i}" for i in range(len(stages))]
    adapter = _blocked(backbone, stages, strides, names, "NLC")
    if adapter is None:
        return None
    # The declared strides assume patches of four pixels.
    return replace(
        adapter,
        patch=max(strides[int(name[1:])] for name in adapter.names),
        strides=tuple(strides[int(name[1:])] for name in adapter.names),
    )


def _mvit(backbone: Any) -> Adapter | None:
    depth = len(backbone.blocks)
    ends = [i + 1 for i in backbone._last_block_indexes if i < depth]
    starts = [0, *ends]
    # Blocks after the last stage's end belong to a stage without an output.
    stops = [*ends, depth]
    stages = [[f"blocks.{i}" for i in range(a, b)] for a, b in zip(starts, stops) if b > a]
    patch = side(backbone.patch_embed.proj.stride)
    strides = [patch * 2**i for i in range(len(stages))]
    names = [f"scale{i + 2}" for i in range(len(stages))]
    return _blocked(backbone, stages, strides, names, "NHWC")


def _resnet(backbone: Any) -> Adapter | None:
    names = list(backbone.stage_names)
    stages = [[f"{name}.{j}" for j in range(len(getattr(backbone, name)))] for name in names]
    strides = [backbone._out_feature_strides[name] for name in names]
    return _blocked(backbone, stages, strides, names, "NCHW")


def _pyramid(part: str) -> Callable[[Any], Adapter | None]:
    """A pyramid on top of a backbone: its own maps, the inner one's blocks and views."""

    def describe_pyramid(backbone: Any) -> Adapter | None:
        adapter, inner = _declared(backbone), describe(getattr(backbone, part))
        if adapter is None or inner is None:
            return adapter
        return replace(
            adapter,
            # Beyond the inner one's period views repeat, however coarse the added levels are.
            patch=inner.patch,
            floor=inner.floor,
            blocks=tuple(f"{part}.{path}" for path in inner.blocks),
            block_strides=inner.block_strides,
            block_layout=inner.block_layout,
            prefix_tokens=inner.prefix_tokens,
            taps=inner.taps,
        )

    return describe_pyramid


_PARTS: dict[str, tuple[str, ...]] = {
    "SimpleFeaturePyramid": ("net",),
    "FPN": ("bottom_up",),
    **dict.fromkeys(("ViT", "SwinTransformer", "MViT", "ResNet", "RegNet"), ()),
}
_FAMILIES: dict[str, Callable[[Any], Adapter | None]] = {
    "ViT": _vit,
    "SwinTransformer": _swin,
    "MViT": _mvit,
    "ResNet": _resnet,
    "SimpleFeaturePyramid": _pyramid("net"),
    "FPN": _pyramid("bottom_up"),
    "Backbone": _any,  # the last in every backbone's order of classes
}
