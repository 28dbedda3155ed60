"""The models that are measured: ViTs of timm with random weights; nothing is downloaded."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from ..adapters import describe
from ..errors import ConfigError, MissingDependencyError, nearest

# Short names; the patch size is the one that the image size is a multiple of.
_SIZES = ("tiny", "small", "base", "large")
_PATCHES = {16: "vit_{}_patch16_224", 14: "vit_{}_patch14_dinov2"}


def check_model(name: str, size: tuple[int, int]) -> str:
    """The name that timm has for a model, before anything is built.

    Args:
        name: ``"vit_small"`` and the like, or a name of timm.
        size: ``(H, W)`` in pixels, which chooses the patch of a short name.

    Raises:
        ConfigError: unknown, or no known patch divides the size.
        MissingDependencyError: timm is not installed.
    """
    timm = _timm()
    short = name.partition("_")[2]
    if name.startswith("vit_") and short in _SIZES:
        for patch, pattern in _PATCHES.items():
            found = pattern.format(short)
            if not any(pixels % patch for pixels in size) and timm.is_model(found):
                return found
        _check_size(size, 16)
    if not timm.is_model(name):
        known = [*(f"vit_{s}" for s in _SIZES), *timm.list_models("vit_*")]
        raise ConfigError(
            f"Expected --model to be a ViT of timm, or one of vit_{', vit_'.join(_SIZES)}, got "
            f"{name!r}; did you mean {nearest(name, known, 3)}?"
        )
    return name


def build(
    name: str, size: tuple[int, int], device: torch.device, dtype: torch.dtype
) -> tuple[nn.Module, int]:
    """A ViT in eval mode that returns its last feature map, and its patch size in pixels.

    Args:
        name: as :func:`check_model` gives it.
        size: ``(H, W)`` in pixels, a multiple of the patch.

    Raises:
        ConfigError: no ViT, or the size is no multiple of its patch.
    """
    options: dict[str, Any] = {"img_size": size, "features_only": True, "out_indices": (-1,)}
    try:
        with torch.random.fork_rng(devices=[]), device:
            torch.manual_seed(0)
            backbone = _timm().create_model(name, pretrained=False, **options)
    except (TypeError, RuntimeError, AssertionError) as error:
        raise ConfigError(
            f"Expected --model to be a ViT that takes {size[0]}x{size[1]} pixels, got {name!r}: "
            f"{error}. Use one such as vit_small."
        ) from error
    patch = describe(backbone).patch
    if patch is None:
        raise ConfigError(
            f"Expected --model to have one known patch size, got {name!r}; use one such as "
            "vit_small."
        )
    _check_size(size, patch)
    return backbone.to(device, dtype).eval(), patch


def _check_size(size: tuple[int, int], patch: int) -> None:
    # With partial patches the plain model would run on fewer tokens than the views.
    if any(pixels < 2 * patch or pixels % patch for pixels in size):
        near = [max(2, round(pixels / patch)) * patch for pixels in size]
        raise ConfigError(
            f"Expected --size to be two or more whole patches ({patch} pixels), got {size[0]} "
            f"{size[1]}; use --size {near[0]} {near[1]}."
        )


def _timm() -> Any:
    try:
        import timm
    except ImportError as error:
        raise MissingDependencyError(
            "The benchmark needs timm, which is not installed: pip install 'srt-plugins[timm]'."
        ) from error
    return timm
