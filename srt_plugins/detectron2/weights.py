"""Weights of plain ViTs between the frameworks' names."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from ..errors import CheckpointError

# MMSegmentation's names within a backbone, and those of timm's ViT.
_NAMES = {
    ".patch_embed.projection.": ".patch_embed.proj.",
    ".layers.": ".blocks.",
    ".attn.attn.in_proj_": ".attn.qkv.",
    ".attn.attn.out_proj.": ".attn.proj.",
    ".ffn.blocks.0.0.": ".mlp.fc1.",
    ".ffn.blocks.1.": ".mlp.fc2.",
    ".ln2.": ".norm2.",
}


def from_mmseg_vit(state: Mapping[str, Tensor], prefix: str = "backbone.") -> dict[str, Tensor]:
    """Weights of MMSegmentation's ``VisionTransformer`` under the names of timm's ViT, which
    Detectron2's ViT shares.

    Args:
        state: a checkpoint's state dict.
        prefix: what the backbone's keys start with in it.

    Returns:
        The same tensors; the final norm is ``norm``, the class token comes first in ``pos_embed``.

    Raises:
        CheckpointError: no key has that prefix and the names of that ViT.
    """
    own = {key[len(prefix) :]: value for key, value in state.items() if key.startswith(prefix)}
    if "patch_embed.projection.weight" not in own:
        given = ", ".join(list(state)[:3]) or "none"
        raise CheckpointError(
            f"Expected weights of MMSegmentation's VisionTransformer, such as "
            f"{prefix + 'patch_embed.projection.weight'!r}; the keys are {given}. Check prefix."
        )
    named = {_renamed(key): value for key, value in own.items()}
    weight = named["patch_embed.proj.weight"]
    # Its patch embedding has no bias unless asked for; the others always have one.
    named.setdefault("patch_embed.proj.bias", weight.new_zeros(weight.shape[0]))
    return named


def _renamed(key: str) -> str:
    key = "." + key
    for old, new in _NAMES.items():
        key = key.replace(old, new)
    # ln1 is a block's first norm, and the name of the norm after the last block.
    return key.replace(".ln1.", ".norm1." if ".blocks." in key else ".norm.")[1:]
