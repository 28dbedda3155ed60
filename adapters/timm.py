"""Models of timm, and subclasses of them elsewhere.

| class | entries | blocks | block tokens | sizes |
|---|---|---|---|---|
| VisionTransformer | tokens, maps | ``blocks.i`` | NLC, class and registers first | as built |
"""

from __future__ import annotations

from typing import Any, Callable

from srt_plugins.adapters.base import Adapter
from srt_plugins.adapters.outputs import BySize
from torch import nn

# Methods that take images. ``forward`` is none of them: it puts a head on forward_features, so
# that logits come from ensembled features.
_ENTRIES = ("forward_features", "forward_intermediates", "get_intermediate_layers")


def describe(backbone: nn.Module) -> Adapter | None:
    """The adapter of a timm model (or a subclass of one), None for anything else."""
    for cls in type(backbone).__mro__:
        if _is_timm(cls) and cls.__name__ in _FAMILIES:
            return _FAMILIES[cls.__name__](backbone)
    return None


def _vision_transformer(backbone: Any) -> Adapter:
    embed = backbone.patch_embed
    patch = _patch(backbone)
    count = len(backbone.blocks)
    own_forward = not _is_timm(_definer(backbone, "forward"))
    completes = bool(getattr(embed, "dynamic_img_pad", False)) and not own_forward
    return Adapter(
        family=f"timm {_name(backbone)}",
        parts=(),
        patch=patch,
        multiple=patch if completes else None,
        by_size=BySize((patch,), prefix=int(backbone.num_prefix_tokens)),
        entries=_entries(backbone),
        blocks=tuple(f"blocks.{i}" for i in range(count)),
        block_strides=(patch,) * count,
        # Which blocks make the outputs depends on the call.
        taps=tuple(range(count)),
        prefix_tokens=int(backbone.num_prefix_tokens),
    )


def _entries(backbone: nn.Module) -> tuple[str, ...]:
    """The methods that take images; a subclass outside timm may do anything in its forward."""
    own = () if _is_timm(_definer(backbone, "forward")) else ("forward",)
    return (*own, *(name for name in _ENTRIES if hasattr(backbone, name)))


def _patch(backbone: Any) -> int:
    """Pixels per token: the reduction that timm declares, which counts convolutional stems too."""
    return int(backbone.feature_info[0]["reduction"])


def _definer(backbone: nn.Module, method: str) -> type:
    """The class that a method comes from."""
    return next(cls for cls in type(backbone).__mro__ if method in vars(cls))


def _is_timm(cls: type) -> bool:
    return cls.__module__.split(".")[0] == "timm"


def _name(backbone: nn.Module) -> str:
    return next(c.__name__ for c in type(backbone).__mro__ if not c.__name__.startswith("SRT"))


_FAMILIES: dict[str, Callable[[Any], Adapter]] = {
    "VisionTransformer": _vision_transformer,
}
