"""Backbones that come through torch.hub from their authors, and copies of them elsewhere. All
put a class token, and registers after it, in front of their tokens.

| class | methods | output | sizes |
|---|---|---|---|
| VisionTransformer (DINO) | forward, get_intermediate_layers | class token, tokens | any, floored |
| DinoVisionTransformer (DINOv2, DINOv3) | forward_features, get_intermediate_layers | dict of \
tokens, tokens or maps | whole patches |

Blocks are ``blocks.i``, or ``blocks.i.j`` where they come in chunks.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from srt_plugins.adapters.base import Adapter
from srt_plugins.adapters.outputs import BySize, Call
from srt_plugins.adapters.structure import Path, forward_of, side
from torch import nn

# What the features hold, by name: as many registers could pass for the tokens of a small image.
_NAMED = {
    "x_norm_clstoken": "vector",
    "x_norm_regtokens": "vector",
    "x_storage_tokens": "vector",
    "x_norm_patchtokens": "NLC",
    "x_prenorm": "NLC",
}


def describe(backbone: nn.Module) -> Adapter | None:
    """The adapter of DINO's, DINOv2's or DINOv3's vision transformers, None for anything else.

    Known by name and structure: many projects carry a copy of them.
    """
    names = {cls.__name__ for cls in type(backbone).__mro__}
    try:
        if "DinoVisionTransformer" in names and hasattr(backbone, "prepare_tokens_with_masks"):
            return _adapter(backbone, ("forward_features", "get_intermediate_layers"))
        if "VisionTransformer" in names and hasattr(backbone, "prepare_tokens"):
            return _adapter(backbone, ("forward", "get_intermediate_layers"))
    except TypeError:  # patches that are no squares
        return None
    return None


@dataclass(frozen=True)
class _Tokens(BySize):
    """Sequences of tokens, or maps where they were asked for."""

    def layouts_of(self, path: Path, call: Call) -> tuple[str, ...]:
        """Layouts that one output can have."""
        if path and path[-1] in _NAMED:
            return (_NAMED[str(path[-1])],)
        if call.asked.entry == "get_intermediate_layers":
            if len(path) > 1 and path[1] != 0:  # class token, registers
                return ("vector",)
            return ("NCHW" if call.asked.arguments.get("reshape") else "NLC",)
        return super().layouts_of(path, call)


def _adapter(backbone: Any, entries: tuple[str, ...]) -> Adapter:
    blocks = _blocks(backbone)
    patch = side(getattr(backbone, "patch_size", None) or backbone.patch_embed.patch_size)
    registers = (getattr(backbone, n, 0) for n in ("num_register_tokens", "n_storage_tokens"))
    prefix = 1 + sum(registers)
    # A forward of one's own may do without the method that it is made of elsewhere.
    headed = entries[0] in forward_of(backbone)[1]
    return Adapter(
        family=f"{type(backbone).__name__} of torch.hub",
        parts=(),
        patch=patch,
        by_size=_Tokens((patch,), prefix=prefix),
        entries=entries if headed or "forward" in entries else ("forward", *entries),
        blocks=blocks,
        block_strides=(patch,) * len(blocks),
        # Which blocks make the outputs depends on the call.
        taps=tuple(range(len(blocks))),
        prefix_tokens=prefix,
    )


def _blocks(backbone: Any) -> tuple[str, ...]:
    """Paths of the blocks; chunks hold them behind identities, which keep their indices."""
    if not getattr(backbone, "chunked_blocks", False):
        return tuple(f"blocks.{i}" for i in range(len(backbone.blocks)))
    return tuple(
        f"blocks.{i}.{j}"
        for i, chunk in enumerate(backbone.blocks)
        for j, block in enumerate(chunk)
        if not isinstance(block, nn.Identity)
    )
