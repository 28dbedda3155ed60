"""Strides of a backbone that no adapter describes, from what it returns.

The size of one image often leaves a choice: 27 pixels and 3 tokens fit a stride of 9, but also one
of 8 that drops the partial patch. A second image of a size that the usual strides divide settles
it, where the backbone takes other sizes at all.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from srt_plugins.adapters.base import Adapter
from srt_plugins.adapters.structure import summary, tensors
from torch import Tensor

from srt_plugins.errors import AdapterError

# Divisible by the strides 1, 2, 4, 7, 8, 14, 16, 28, 32, 56.
PROBE_SIZE = (224, 448)
_COMMON = (16, 14, 8, 4, 32, 2, 64, 1, 7, 10, 12, 20, 28)


def probed(adapter: Adapter, run: Callable[[Tensor], Any], image: Tensor) -> Adapter:
    """The adapter with the stride of every feature map and the patch (the coarsest stride).

    Args:
        adapter: one without strides.
        run: the plain backbone.
        image: one image ``(1, C, H, W)``.

    Raises:
        AdapterError: no feature map, or one that no stride explains; lists what was returned.
    """
    with torch.no_grad():
        output = run(image)
        grids = _sizes(output)
        if not grids:
            raise AdapterError(
                f"Expected {adapter.family} to return at least one feature map (N, C, h, w), got "
                f"{summary(output)}. Wrap the module that returns feature maps."
            )
        try:
            known = _sizes(run(image.new_zeros(1, image.shape[1], *PROBE_SIZE)))
        except Exception:  # a fixed-size backbone; it may refuse in any way
            known = []
    size = (image.shape[-2], image.shape[-1])
    strides = []
    for i, tokens in enumerate(grids):
        if tokens == (1, 1) and len(known) == len(grids) and known[i] == (1, 1):
            strides.append(0)  # pooled: one position whatever the size
            continue
        choices = _strides(size, tokens)
        if len(known) == len(grids):
            choices = [s for s in _strides(PROBE_SIZE, known[i]) if s in choices]
        if not choices:
            raise AdapterError(
                f"Expected the feature maps of {adapter.family} to be (N, C, h, w) with one stride "
                f"for both axes, got {summary(output)} for an image of {size[0]}x{size[1]}. If "
                "they are channels-last or tokens, wrap the module that turns them into maps."
            )
        strides.append(choices[0])
    if not any(strides):
        raise AdapterError(
            f"Expected {adapter.family} to return feature maps, got pooled ones only: "
            f"{summary(output)}."
        )
    return replace(adapter, strides=tuple(strides), patch=max(strides))


def _sizes(output: Any) -> list[tuple[int, int]]:
    return [(t.shape[2], t.shape[3]) for _, t in tensors(output) if t.ndim == 4]


def _strides(size: tuple[int, int], tokens: tuple[int, int]) -> list[int]:
    """Strides that explain the tokens of an image (partial patches dropped or completed), the
    exact one first, then the usual ones.
    """
    fits = [
        s
        for s in range(1, max(size) + 1)
        if all(t in (n // s, -(-n // s)) for n, t in zip(size, tokens))
    ]
    exact = [s for s in fits if all(n == t * s for n, t in zip(size, tokens))]
    usual = [s for s in _COMMON if s in fits and s not in exact]
    return exact + usual + [s for s in fits if s not in exact and s not in usual]
