"""Which form the outputs of timm's models have, by how the model was called."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from srt_plugins.adapters.form import Form
from srt_plugins.adapters.outputs import BySize, Call
from srt_plugins.adapters.structure import Path
from torch import Tensor


@dataclass(frozen=True)
class AsDeclared(BySize):
    """Maps, or sequences without prefix tokens, in one layout only."""

    def layouts_of(self, path: Path, call: Call) -> tuple[str, ...]:
        """The one layout."""
        return self.layouts


@dataclass(frozen=True)
class AsAsked(BySize):
    """Features of a whole model.

    Attributes:
        own: layout of what goes to the head: ``"NCHW"``, ``"NHWC"`` or ``"NLC"``; sequences are
            known as such in any case.
        rolled: strides at which sequences are in raster order; None = all.
    """

    own: str = "NCHW"
    rolled: tuple[int, ...] | None = None

    def layouts_of(self, path: Path, call: Call) -> tuple[str, ...]:
        """Layouts that one output can have: the model's own, or those that were asked for."""
        entry, given = call.asked.entry, call.asked.arguments
        if entry == "get_intermediate_layers":
            # With prefix tokens each feature comes as a pair.
            pooled = len(path) == 2 and path[1] == 1
            return ("vector" if pooled else "NCHW" if given.get("reshape") else "NLC",)
        if entry == "forward_intermediates" and not _is_final(path, given):
            fmt = given.get("output_fmt", "NCHW")
            return ("vector" if _is_prefix(path, given) else str(getattr(fmt, "value", fmt)),)
        if entry == "forward_features" and given.get("return_intermediates") and path[0] == 1:
            return ("NHWC",)
        every = (self.own, "NLC", "vector")
        return every if entry != "forward" else ("NCHW", "NHWC", "NLC", "vector")

    def _fitting(self, layout: str, tensor: Tensor, call: Call) -> Iterator[Form]:
        for form in super()._fitting(layout, tensor, call):
            if layout != "NLC" or self.rolled is None or form.stride[0] in self.rolled:
                yield form


def _is_final(path: Path, given: Mapping[str, Any]) -> bool:
    """Whether an output is what goes to the head, not an intermediate feature."""
    if given.get("intermediates_only"):
        return False
    return path[0] == ("image_features" if given.get("output_dict") else 0)


def _is_prefix(path: Path, given: Mapping[str, Any]) -> bool:
    """Whether an intermediate output is the prefix tokens of one, which make a pair with it."""
    if given.get("output_dict"):
        return path[0] == "image_intermediates_prefix"
    pair = path[1:] if given.get("intermediates_only") else path[2:]
    return pair[:1] == (1,)
