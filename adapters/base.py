"""What the engine must know of a backbone, and the two conversions that follow from it: outputs to
token grids, and block tokens to token grids.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import torch
from srt_plugins.adapters.structure import Path, summary, tensors
from torch import Tensor

from srt_plugins.core.ensemble import Grid, Leaf, Vector
from srt_plugins.errors import AdapterError, ConfigError, nearest

# The next step where an output cannot be ensembled.
_ELSE = "Name those to ensemble with outputs=, or wrap a module that returns feature maps only."


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
        parts: children that take images, and so can be a target of their own; None = not known.
        blocks: module paths of the blocks, in the order in which they run.
        block_strides: stride of each block's tokens, in pixels.
        taps: indices of the blocks whose results the outputs are made from.
        prefix_tokens: class and register tokens in front of each block's tokens.
        block_layout: ``"NLC"``, ``"NHWC"`` or ``"NCHW"``.
    """

    family: str
    patch: int | None = None
    multiple: int | None = None
    strides: tuple[int, ...] | None = None
    names: tuple[str, ...] = ()
    declares: bool = False
    floor: int = 1
    parts: tuple[str, ...] | None = None
    blocks: tuple[str, ...] = ()
    block_strides: tuple[int, ...] = ()
    taps: tuple[int, ...] = ()
    prefix_tokens: int = 0
    block_layout: str = "NLC"

    def view_size(self, size: tuple[int, int]) -> tuple[int, int]:
        """``(H, W)`` of the views for an image of ``size``: completed to whole patches."""
        if self.multiple is None:
            return size
        m = self.multiple
        return (-(-size[0] // m) * m, -(-size[1] // m) * m)

    def leaves(
        self,
        output: Any,
        view_size: tuple[int, int],
        image_size: tuple[int, int],
        needed: Collection[Path] | None = None,
    ) -> dict[Path, Leaf]:
        """Every tensor of an output as a grid (4-D, NCHW) or image-level tokens (2-D, 3-D).

        Args:
            output: what the backbone returned for views of ``view_size``.
            view_size: ``(H', W')`` of the views, pixels.
            image_size: ``(H, W)`` of the image; grids are cropped to what it alone would give.
            needed: outputs that are ensembled; the others may be anything that needs no cropping.
                None = all.

        Raises:
            AdapterError: no grid among the outputs, one whose stride cannot be told, or patch
                tokens (N, L, C), which would have to be aligned.
        """
        found: dict[Path, Leaf] = {}
        grids = 0
        for path, tensor in tensors(output):
            try:
                found[path] = self._leaf(path, tensor, grids, output, view_size, image_size)
            except AdapterError:
                if needed is None or path in needed or view_size != image_size:
                    raise
                found[path] = Vector(tensor)  # never averaged
            grids += tensor.ndim == 4
        if not grids:
            raise AdapterError(
                f"Expected {self.family} to return at least one feature map (N, C, h, w), got "
                f"{summary(output)}. Wrap the module that returns feature maps."
            )
        return found

    def _leaf(
        self,
        path: Path,
        tensor: Tensor,
        grids: int,
        output: Any,
        view_size: tuple[int, int],
        image_size: tuple[int, int],
    ) -> Leaf:
        """One output, ``grids`` maps having come before it."""
        if not tensor.is_floating_point():
            raise AdapterError(
                f"Expected {self.family} to return floating-point features, which can be "
                f"averaged, got {summary(output)}. {_ELSE}"
            )
        if tensor.ndim == 4:
            position = self._position(path, grids)
            if (self.strides or ())[position : position + 1] == (0,):
                return Vector(tensor)
            stride = self._stride(tensor, position, view_size, output)
            return Grid(tensor, stride, self._crop(stride, view_size, image_size))
        maps = [t for _, t in tensors(output) if t.ndim == 4]
        positions = min({t.shape[2] * t.shape[3] for t in maps} - {1}, default=0)
        if tensor.ndim == 3 and tensor.shape[1] >= positions > 0:
            raise AdapterError(
                f"Expected {self.family} to return image-level tokens beside its feature maps, "
                f"got as many tokens as map positions: {summary(output)}. {_ELSE}"
            )
        if tensor.ndim in (2, 3):
            return Vector(tensor)
        raise AdapterError(
            f"Expected {self.family} to return feature maps (N, C, h, w), got "
            f"{summary(output)}. {_ELSE}"
        )

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

    def block_leaves(self, tokens: Tensor, index: int, view_size: tuple[int, int]) -> list[Leaf]:
        """A block's tokens as ``[Grid]`` or ``[Grid, Vector]`` (prefix tokens)."""
        stride = self.block_strides[index]
        if self.block_layout in ("NCHW", "NHWC"):
            if tokens.ndim != 4:
                raise AdapterError(
                    f"Expected block {self.blocks[index]!r} of {self.family} to return "
                    f"{self.block_layout} tokens, got {tuple(tokens.shape)}."
                )
            maps = tokens if self.block_layout == "NCHW" else tokens.permute(0, 3, 1, 2)
            return [Grid(maps, (stride, stride))]
        prefix = self.prefix_tokens
        h, w = -(-view_size[0] // stride), -(-view_size[1] // stride)
        if tokens.ndim == 3 and tokens.shape[1] != prefix + h * w:  # partial patches left out
            h, w = view_size[0] // stride, view_size[1] // stride
        if tokens.ndim != 3 or tokens.shape[1] != prefix + h * w:
            raise AdapterError(
                f"Expected block {self.blocks[index]!r} of {self.family} to return (N, "
                f"{prefix} + {h}*{w}, C) tokens, got {tuple(tokens.shape)}."
            )
        grid = tokens[:, prefix:].transpose(1, 2).unflatten(2, (h, w))
        leaves: list[Leaf] = [Grid(grid, (stride, stride))]
        return [*leaves, Vector(tokens[:, :prefix])] if prefix else leaves

    def block_tokens(self, results: list[Tensor], dtype: Any) -> Tensor:
        """Inverse of :meth:`block_leaves` on aggregated tensors."""
        if self.block_layout == "NCHW":
            return results[0].to(dtype)
        if self.block_layout == "NHWC":
            return results[0].permute(0, 2, 3, 1).to(dtype).contiguous()
        grid = results[0].flatten(2).transpose(1, 2)
        if len(results) > 1:
            grid = torch.cat([results[1], grid], 1)
        return grid.to(dtype).contiguous()

    def stored_blocks(self, index: int) -> list[int]:
        """Blocks to aggregate for ``layer=index``: itself and the earlier ones that outputs tap."""
        return [i for i in self.taps if i < index] + [index]

    def _position(self, path: Path, grids: int) -> int:
        """Index in ``strides`` of a map, ``grids`` maps having come before it."""
        if not self.names:
            return grids
        name = path[0] if path else None
        if name in self.names:
            return self.names.index(str(name))
        raise AdapterError(
            f"Expected {self.family} to return the maps that it declares, "
            f"{', '.join(self.names)}, got {name!r} too. {_ELSE}"
        )

    def _stride(
        self, grid: Tensor, position: int, size: tuple[int, int], output: Any
    ) -> tuple[int, int]:
        if self.strides is not None and position < len(self.strides):
            s = self.strides[position]
            # Partial patches may be left out or completed, on every level of a pyramid.
            least = [n // self.floor * self.floor // s for n in size]
            if all(a <= t <= -(-n // s) for a, n, t in zip(least, size, grid.shape[2:])):
                return (s, s)
        raise AdapterError(
            f"Expected the feature maps of {self.family} to be (N, C, h, w) with strides "
            f"{self.strides}, got {summary(output)} for an image of {size[0]}x{size[1]}. If they "
            "are channels-last or tokens, wrap the module that turns them into maps."
        )

    def _crop(
        self, stride: tuple[int, int], view_size: tuple[int, int], size: tuple[int, int]
    ) -> tuple[int, int] | None:
        if view_size == size:
            return None
        return (-(-size[0] // stride[0]), -(-size[1] // stride[1]))
