"""What the engine must know of a backbone, and what follows from it: the forms of its outputs and
of its blocks' tokens.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from srt_plugins.adapters.form import Form
from srt_plugins.adapters.outputs import Asked, BySize, Call, Declared, Size
from srt_plugins.adapters.structure import Path
from torch import Tensor

from srt_plugins.errors import AdapterError, ConfigError, nearest


@dataclass(frozen=True)
class Adapter:
    """Facts about one backbone.

    Attributes:
        family: name for messages.
        patch: pixels after which the token grid repeats, the period of the views: the patch size,
            or the coarsest output stride of a hierarchical backbone. None = probed on first use.
        multiple: image sizes are completed to this multiple (in pixels) by the wrapper before the
            backbone pads them itself; None = sizes are left alone (fixed-size or flooring ones).
        strides: stride of each 4-D output in pixels, None = probed on first use; 0 = a pooled
            map of one position, which is averaged like image-level tokens.
        names: keys of the outputs that ``strides`` belong to, where they come in a dict; empty =
            in the order in which they come.
        declares: heads were built for the strides that the backbone declares, so outputs must keep
            them.
        floor: sizes are first cut to this multiple (in pixels) by the backbone; 1 = they are not.
        by_size: how outputs that depend on the call are recognised; None = they are the declared
            maps, in order.
        named_by: keyword of calls, and of the configuration, with which outputs come by name;
            where it is False, they are what ``to_tuple()`` of the named ones gives.
        refused: why the backbone cannot be ensembled, and what can instead; "" = it can be.
        entries: methods that take images and are ensembled, beside ``forward`` or in place of it
            where ``forward`` calls one of them.
        parts: children that take images, and so can be a target of their own; None = not known.
        blocks: module paths of the blocks, in the order in which they run.
        block_strides: stride of each block's tokens, in pixels.
        taps: indices of the blocks whose results the outputs are made from.
        prefix_tokens: class and register tokens in front of each block's tokens.
        block_layout: ``"NLC"``, ``"NHWC"`` or ``"NCHW"``.
        attentions: blocks may return attention maps behind their tokens, for outputs to collect.
    """

    family: str
    patch: int | None = None
    multiple: int | None = None
    strides: tuple[int, ...] | None = None
    names: tuple[str, ...] = ()
    declares: bool = False
    floor: int = 1
    by_size: BySize | None = None
    named_by: str = ""
    refused: str = ""
    entries: tuple[str, ...] = ("forward",)
    parts: tuple[str, ...] | None = None
    blocks: tuple[str, ...] = ()
    block_strides: tuple[int, ...] = ()
    taps: tuple[int, ...] = ()
    prefix_tokens: int = 0
    block_layout: str = "NLC"
    attentions: bool = False

    def view_size(self, size: tuple[int, int]) -> tuple[int, int]:
        """``(H, W)`` of the views for an image of ``size``: completed to whole patches."""
        if self.multiple is None:
            return size
        m = self.multiple
        return (-(-size[0] // m) * m, -(-size[1] // m) * m)

    def forms(
        self,
        output: Any,
        view_size: Size,
        image_size: Size,
        needed: Collection[Path] | None = None,
        asked: Asked | None = None,
    ) -> dict[Path, Form]:
        """How every tensor of an output holds its token grid.

        Args:
            output: what the backbone returned for views of ``view_size``.
            view_size: ``(H', W')`` of the views, pixels.
            image_size: ``(H, W)`` of the image; grids are cropped to what it alone would give.
            needed: outputs that are ensembled; the others may be anything that needs no cropping.
                None = all.
            asked: how the backbone was called; None = by ``forward``.

        Raises:
            AdapterError: an output that is no token grid of the backbone's strides.
        """
        call = Call(self.family, output, view_size, image_size, asked or Asked())
        rule = self.by_size or Declared(self.strides, self.names, self.floor)
        return rule.forms(call, needed)

    def block_index(self, layer: int | str) -> int:
        """Index of a block from ``layer=`` (an index, negative allowed, or a module path)."""
        if not self.blocks:
            raise ConfigError(
                f"Expected layer=None for {self.family}, whose blocks are not known, got "
                f"layer={layer!r}; ensemble its outputs instead."
            )
        if isinstance(layer, str) and layer in self.blocks:
            return self.blocks.index(layer)
        if isinstance(layer, int) and not isinstance(layer, bool):
            if -len(self.blocks) <= layer < len(self.blocks):
                return layer % len(self.blocks)
            raise ConfigError(
                f"Expected layer between {-len(self.blocks)} and {len(self.blocks) - 1} for "
                f"{self.family} with {len(self.blocks)} blocks, got {layer}."
            )
        raise ConfigError(
            f"Expected layer to be a block index or one of {nearest(str(layer), self.blocks)}, "
            f"got {layer!r}."
        )

    def block_form(self, tokens: Tensor, index: int, view_size: Size) -> Form:
        """How a block's tokens hold their grid."""
        stride = self.block_strides[index]
        both = (stride, stride)
        if self.block_layout in ("NCHW", "NHWC"):
            if tokens.ndim != 4:
                raise AdapterError(
                    f"Expected block {self.blocks[index]!r} of {self.family} to return "
                    f"{self.block_layout} tokens, got {tuple(tokens.shape)}."
                )
            return Form(self.block_layout, both)
        prefix = self.prefix_tokens
        h, w = -(-view_size[0] // stride), -(-view_size[1] // stride)
        if tokens.ndim == 3 and tokens.shape[1] != prefix + h * w:  # partial patches left out
            h, w = view_size[0] // stride, view_size[1] // stride
        if tokens.ndim != 3 or tokens.shape[1] != prefix + h * w:
            raise AdapterError(
                f"Expected block {self.blocks[index]!r} of {self.family} to return (N, "
                f"{prefix} + {h}*{w}, C) tokens, got {tuple(tokens.shape)}."
            )
        return Form("NLC", both, (h, w), prefix)

    def stored_blocks(self, index: int) -> list[int]:
        """Blocks to aggregate for ``layer=index``: itself and the earlier ones that outputs tap."""
        return [i for i in self.taps if i < index] + [index]
