"""Models of timm, and subclasses of them elsewhere: whole ones, and those that ``features_only``
makes. All declare the strides of their features.

| class | blocks | block tokens | sizes |
|---|---|---|---|
| VisionTransformer, Eva, Beit, NaFlexVit | ``blocks.i`` | NLC, prefix tokens first | as built |
| VisionTransformerSAM | ``blocks.i`` | NHWC | as built |
| SwinTransformer, SwinTransformerV2 | ``layers.i.blocks.j`` | NHWC | as built |
| ConvNeXt | ``stages.i.blocks.j`` | NCHW | any |
| MultiScaleVit | ``stages.i.blocks.j`` | NLC | any |
| ResNet | ``layer{n}.j`` | NCHW | any |

Of any other the outputs are known, not the blocks. Features that are made before the first block,
as a ResNet's stem does, come from the centre view where a layer is ensembled.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import accumulate
from typing import Any

from srt_plugins.adapters.base import Adapter
from srt_plugins.adapters.structure import forward_of
from srt_plugins.adapters.timm_outputs import AsAsked, AsDeclared
from torch import nn

# Methods that take images, where ``forward`` puts a head on forward_features: logits then come
# from ensembled features.
_ENTRIES = ("forward_features", "forward_intermediates", "get_intermediate_layers")
# How blocks hold their tokens, by the file of timm that they come from.
_LAYOUTS = {
    "vision_transformer": "NLC",
    "vision_transformer_relpos": "NLC",
    "eva": "NLC",
    "beit": "NLC",
    "mvitv2": "NLC",
    "vision_transformer_sam": "NHWC",
    "swin_transformer": "NHWC",
    "swin_transformer_v2": "NHWC",
    "convnext": "NCHW",
    "resnet": "NCHW",
}
# Models that hand sequences from block to block as they are; others split or reorder them.
_SEQUENTIAL = {
    "VisionTransformer",
    "VisionTransformerRelPos",
    "Eva",
    "Beit",
    "NaFlexVit",
    "MultiScaleVit",
}
# These resize images of other sizes, or features, by themselves.
_RESIZING = ("CrossVit", "MobileNetV5", "MobileNetV5Encoder")


def describe(backbone: nn.Module) -> Adapter | None:
    """The adapter of a timm model (or a subclass of one), None for anything else."""
    info = getattr(backbone, "feature_info", None)
    if not any(map(_is_timm, type(backbone).__mro__)) or not info:
        return None
    if hasattr(info, "reduction"):
        return _features(backbone, info)
    return _whole(backbone, info) if hasattr(backbone, "forward_features") else None


def _whole(backbone: Any, info: Sequence[dict[str, Any]]) -> Adapter:
    """A model with a head, or made to have none."""
    own = _is_timm(type(backbone))
    strides = _nested(entry["reduction"] for entry in info)
    prefix = _prefix_tokens(backbone)
    adapter = Adapter(
        family=f"timm {type(backbone).__name__}",
        parts=(),
        patch=max(strides),
        multiple=_multiple(backbone, strides),
        by_size=AsAsked(
            strides,
            prefix=prefix,
            kept=("patch_valid",),
            channels=_channels(backbone, info) if own else (),
            whole=any(cls.__name__ in _RESIZING for cls in _classes(backbone)),
            own=_format(backbone),
            rolled=_rolled(backbone),
        ),
        entries=_entries(backbone),
        prefix_tokens=prefix,
    )
    # Which blocks make the outputs depends on the call.
    return _with_blocks(adapter, backbone, info)


def _features(net: Any, info: Any) -> Adapter:
    """What ``features_only=True`` makes: a net that returns maps of the strides it declares."""
    model = getattr(net, "model", None)
    inner = describe(model) if isinstance(model, nn.Module) else None
    fmt = _format(net)
    adapter = Adapter(
        family=f"timm {type(net).__name__}",
        # Parts of the others are collected from by hooks, which see one view.
        parts=("model",) if inner else (),
        patch=max(info.reduction()),
        multiple=inner.multiple if inner else None,
        by_size=AsDeclared(_nested(entry["reduction"] for entry in info.info), layouts=(fmt,)),
        prefix_tokens=inner.prefix_tokens if inner else 0,
    )
    made = {i % len(info.info) for i in info.out_indices}
    return _with_blocks(adapter, net, info.info, made)


def _with_blocks(
    adapter: Adapter, root: nn.Module, info: Sequence[dict[str, Any]], made: set[int] | None = None
) -> Adapter:
    """With blocks, where it is known how they hold their tokens.

    Args:
        made: indices of the features that are returned; None = it depends on the call.
    """
    stages = {i: found for i, entry in enumerate(info) if (found := _stage(root, entry["module"]))}
    layouts = {layout for _, layout in stages.values()}
    model = getattr(root, "model", root)
    sequential = _SEQUENTIAL & {cls.__name__ for cls in _classes(model)}
    if len(layouts) != 1 or ("NLC" in layouts and not sequential):
        return adapter
    paths = {i: paths for i, (paths, _) in stages.items()}
    count = sum(map(len, paths.values()))
    ends = dict(zip(paths, accumulate(len(stage) for stage in paths.values())))
    return replace(
        adapter,
        blocks=tuple(path for stage in paths.values() for path in stage),
        block_strides=tuple(info[i]["reduction"] for i, stage in paths.items() for _ in stage),
        taps=tuple(ends[i] - 1 for i in ends if i in made) if made else tuple(range(count)),
        block_layout=layouts.pop(),
    )


def _stage(root: nn.Module, name: str) -> tuple[list[str], str] | None:
    """Paths and layout of the blocks of the module that timm names as the source of a feature."""
    for path, module in _places(root, name):
        blocks = getattr(module, "blocks", None)
        if isinstance(blocks, (nn.Sequential, nn.ModuleList)):
            children = {f"{path}.blocks.{n}": m for n, m in blocks.named_children()}
        elif isinstance(module, nn.Sequential):
            children = {f"{path}.{n}": m for n, m in module.named_children()}
        else:
            children = {path: module}
        sources = {type(m).__module__.rpartition(".")[2] for m in children.values()}
        layout = _LAYOUTS.get(next(iter(sources), "")) if len(sources) == 1 else None
        return (list(children), layout) if layout else None
    return None


def _places(root: nn.Module, name: str) -> Iterator[tuple[str, nn.Module]]:
    """Where a module of a model is: timm flattens containers of nets that it rebuilds, and names
    the stages of MultiScaleVit otherwise than it keeps them.
    """
    names = (name, name.replace("block.", "stages."))
    flat = [n.replace(".", "_", 1) for n in names]
    for path in (*names, *(f"{part}.{n}" for part in ("model", "body") for n in names), *flat):
        try:
            yield path, root.get_submodule(path)
        except AttributeError:
            continue


def _entries(backbone: nn.Module) -> tuple[str, ...]:
    """The methods that take images."""
    definer, mentioned = forward_of(backbone)
    # A subclass outside timm may do anything in its forward.
    headed = _is_timm(definer) and "forward_features" in mentioned
    own = () if headed else ("forward",)
    return (*own, *(name for name in _ENTRIES if hasattr(backbone, name)))


def _nested(reductions: Iterator[int]) -> tuple[int, ...]:
    """Strides, the finest first; those that it does not divide are rounded ones."""
    strides = sorted({int(s) for s in reductions})
    return tuple(s for s in strides if s % strides[0] == 0)


def _multiple(backbone: Any, strides: tuple[int, ...]) -> int | None:
    """Multiple of the sizes that the model completes images to, where it does."""
    embed: Any = getattr(backbone, "patch_embed", None)
    if "forward" in _entries(backbone):
        return None
    if getattr(embed, "dynamic_img_pad", False):
        return max(strides)
    # Windows and merged patches are completed; whole patches are expected.
    windowed = {"SwinTransformer", "SwinTransformerV2"} & {c.__name__ for c in _classes(backbone)}
    return max(strides) if windowed and not getattr(embed, "strict_img_size", True) else None


def _prefix_tokens(backbone: nn.Module) -> int:
    count = getattr(backbone, "num_prefix_tokens", None)
    if count is not None:
        return int(count)
    return int(any(n.startswith("cls_token") for n, _ in backbone.named_parameters(recurse=False)))


def _channels(backbone: Any, info: Sequence[dict[str, Any]]) -> tuple[int, ...]:
    """Widths that the features can have."""
    widths = [getattr(backbone, name, None) for name in ("num_features", "embed_dim")]
    declared = [entry["num_chs"] for entry in info]
    return tuple(dict.fromkeys(w for w in (*declared, *widths) if isinstance(w, int)))


def _rolled(backbone: Any) -> tuple[int, ...] | None:
    """Strides at which sequences are in raster order; None = all. Hiera's tokens are in an order
    of windows in windows, until the last pooling has used up the windows.
    """
    schedule = getattr(getattr(backbone, "reroll", None), "schedule", None)
    if schedule is None:
        return None
    last = len(backbone.blocks) - 1
    return () if schedule[last][0] else (max(e["reduction"] for e in backbone.feature_info),)


def _format(backbone: Any) -> str:
    """Layout of a model's features, which timm names where they are not NCHW maps."""
    fmt = getattr(backbone, "output_fmt", None) or "NCHW"
    return str(getattr(fmt, "value", fmt))


def _classes(backbone: nn.Module) -> Iterator[type]:
    return (cls for cls in type(backbone).__mro__ if _is_timm(cls))


def _is_timm(cls: type) -> bool:
    return cls.__module__.split(".")[0] == "timm"
