"""Which form each tensor of a backbone's output has.

Backbones that declare their maps one by one are held to the declaration. Those of libraries whose
outputs depend on how they are called (tokens, maps, hidden states, pooled tokens) are recognised by
size: a grid of stride s has as many tokens as an image of that size has cells of s pixels.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from srt_plugins.adapters.form import Form
from srt_plugins.adapters.structure import Path, summary, tensors
from torch import Tensor

from srt_plugins.errors import AdapterError

Size = tuple[int, int]

# The next step where an output cannot be ensembled.
_ELSE = "Name those to ensemble with outputs=, or wrap a module that returns feature maps only."


@dataclass(frozen=True)
class Asked:
    """How a backbone was called: which of its methods, with which arguments, by name."""

    entry: str = "forward"
    arguments: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Call:
    """One call of a backbone: what it returned for views of a size in pixels."""

    family: str
    output: Any
    view_size: Size
    image_size: Size
    asked: Asked = field(default_factory=Asked)

    def crop(self, stride: int) -> Size | None:
        """``(h, w)`` that the image alone would give; None where nothing is to be cropped."""
        if self.view_size == self.image_size:
            return None
        return (-(-self.image_size[0] // stride), -(-self.image_size[1] // stride))


@dataclass(frozen=True)
class Declared:
    """Maps ``(N, C, h, w)`` in a declared order or by declared names, beside image-level tokens.

    Attributes:
        strides: stride of each map in pixels; 0 = a pooled map of one position.
        names: keys that the strides belong to, where maps come in a dict.
        floor: sizes are first cut to this multiple (pixels) by the backbone.
    """

    strides: tuple[int, ...] | None
    names: tuple[str, ...] = ()
    floor: int = 1

    def forms(self, call: Call, needed: Collection[Path] | None) -> dict[Path, Form]:
        """The form of every tensor; see :meth:`Adapter.forms`."""
        found: dict[Path, Form] = {}
        grids = 0
        for path, tensor in tensors(call.output):
            try:
                found[path] = self._form(path, tensor, grids, call)
            except AdapterError:
                if needed is None or path in needed or call.view_size != call.image_size:
                    raise
                found[path] = Form("kept")
            grids += tensor.ndim == 4
        if not grids:
            raise AdapterError(
                f"Expected {call.family} to return at least one feature map (N, C, h, w), got "
                f"{summary(call.output)}. Wrap the module that returns feature maps."
            )
        return found

    def _form(self, path: Path, tensor: Tensor, grids: int, call: Call) -> Form:
        """One output, ``grids`` maps having come before it."""
        check_floating(tensor, call)
        if tensor.ndim == 4:
            position = self._position(path, grids, call)
            if (self.strides or ())[position : position + 1] == (0,):
                return Form("vector")
            stride = self._stride(tensor, position, call)
            return Form("NCHW", (stride, stride), crop=call.crop(stride))
        maps = [t for _, t in tensors(call.output) if t.ndim == 4]
        positions = min({t.shape[2] * t.shape[3] for t in maps} - {1}, default=0)
        if tensor.ndim == 3 and tensor.shape[1] >= positions > 0:
            raise AdapterError(
                f"Expected {call.family} to return image-level tokens beside its feature maps, "
                f"got as many tokens as map positions: {summary(call.output)}. {_ELSE}"
            )
        if tensor.ndim in (2, 3):
            return Form("vector")
        raise AdapterError(
            f"Expected {call.family} to return feature maps (N, C, h, w), got "
            f"{summary(call.output)}. {_ELSE}"
        )

    def _position(self, path: Path, grids: int, call: Call) -> int:
        """Index in ``strides`` of a map, ``grids`` maps having come before it."""
        if not self.names:
            return grids
        name = path[0] if path else None
        if name in self.names:
            return self.names.index(str(name))
        raise AdapterError(
            f"Expected {call.family} to return the maps that it declares, "
            f"{', '.join(self.names)}, got {name!r} too. {_ELSE}"
        )

    def _stride(self, grid: Tensor, position: int, call: Call) -> int:
        size = call.view_size
        if self.strides is not None and position < len(self.strides):
            s = self.strides[position]
            # Partial patches may be left out or completed, on every level of a pyramid.
            least = [n // self.floor * self.floor // s for n in size]
            if all(a <= t <= -(-n // s) for a, n, t in zip(least, size, grid.shape[2:])):
                return s
        raise AdapterError(
            f"Expected the feature maps of {call.family} to be (N, C, h, w) with strides "
            f"{self.strides}, got {summary(call.output)} for an image of {size[0]}x{size[1]}. If "
            "they are channels-last or tokens, wrap the module that turns them into maps."
        )


@dataclass(frozen=True)
class BySize:
    """Tokens and maps of any of the strides that a backbone has, in any order and depth.

    Attributes:
        strides: of the token grids inside the backbone, in pixels, the finest first.
        prefix: class and register tokens in front of a sequence of tokens.
        layouts: that 4-D outputs can have, the likelier first: ``"NCHW"``, ``"NHWC"``.
        kept: names of outputs that are not features (attention maps), whatever their size.
        channels: that sequences of tokens can have; empty = any.
        whole: the backbone takes images of whole patches only, or resizes others by itself.
    """

    strides: tuple[int, ...]
    prefix: int = 0
    layouts: tuple[str, ...] = ("NCHW",)
    kept: tuple[str, ...] = ()
    channels: tuple[int, ...] = ()
    whole: bool = False

    def layouts_of(self, path: Path, call: Call) -> tuple[str, ...]:
        """Layouts that one output can have, the likelier first. Overridden where the call tells."""
        return (*self.layouts, "NLC", "vector")

    def forms(self, call: Call, needed: Collection[Path] | None) -> dict[Path, Form]:
        """The form of every tensor; see :meth:`Adapter.forms`."""
        found: dict[Path, Form] = {}
        for path, tensor in tensors(call.output):
            if path and path[0] in self.kept:
                found[path] = Form("kept")
                continue
            try:
                found[path] = self._form(path, tensor, call)
            except AdapterError:
                if needed is None or path in needed or call.view_size != call.image_size:
                    raise
                found[path] = Form("kept")
        if not found:
            raise AdapterError(
                f"Expected {call.family} to return tensors, got {summary(call.output)}."
            )
        return found

    def _form(self, path: Path, tensor: Tensor, call: Call) -> Form:
        check_floating(tensor, call)
        layouts = self.layouts_of(path, call)
        pooled = "vector" in layouts and self._is_pooled(tensor)
        for layout in layouts:
            forms = list(dict.fromkeys(self._fitting(layout, tensor, call)))
            if len(forms) + (pooled and tensor.shape[1] > 1) > 1 and forms:
                raise AdapterError(
                    f"Expected one reading of what {call.family} returns, got "
                    f"{summary(call.output)} for an image of {call.view_size[0]}x"
                    f"{call.view_size[1]}, whose sizes fit several. Use a larger image, or sides "
                    f"that are multiples of {max(self.strides)}."
                )
            if forms:
                return forms[0]
        if tensor.ndim == 4 and self._is_attention(tensor, call):
            return Form("kept")
        if pooled:
            return Form("vector")
        height, width = call.view_size
        counts = [f"{h}x{w} (stride {s})" for s, (h, w) in self._grids(call.view_size)]
        raise AdapterError(
            f"Expected {call.family} to return token grids of "
            f"{', '.join(dict.fromkeys(counts)) or f'strides {self.strides}'} for an image of "
            f"{height}x{width}, got {summary(call.output)}. If it was changed after it was "
            "wrapped, detach it and wrap it again; if it resizes images by itself, resize them "
            f"before and wrap the part after the resizing. {_ELSE}"
        )

    def _fitting(self, layout: str, tensor: Tensor, call: Call) -> Iterator[Form]:
        """Every grid that a tensor can hold in a layout."""
        if layout in ("NCHW", "NHWC") and tensor.ndim == 4:
            shape = tuple(tensor.shape[2:] if layout == "NCHW" else tensor.shape[1:3])
            for s, grid in self._grids(call.view_size):
                if shape == grid:
                    yield Form(layout, (s, s), grid, crop=call.crop(s))
        channels = self.channels or tensor.shape[2:3]
        if layout == "NLC" and tensor.ndim == 3 and tensor.shape[2] in channels:
            for prefix in dict.fromkeys((self.prefix, 0)):
                for s, grid in self._grids(call.view_size):
                    if tensor.shape[1] == prefix + grid[0] * grid[1]:
                        yield Form(layout, (s, s), grid, prefix, call.crop(s))

    def _is_pooled(self, tensor: Tensor) -> bool:
        """Whether a tensor is one vector, or as many as there are prefix tokens at most."""
        return tensor.ndim == 2 or (tensor.ndim == 3 and tensor.shape[1] <= max(1, self.prefix))

    def _is_attention(self, tensor: Tensor, call: Call) -> bool:
        """Whether a tensor ``(N, heads, L, L)`` goes from every token to every token."""
        counts = {h * w for _, (h, w) in self._grids(call.view_size)}
        square = tensor.shape[2] == tensor.shape[3]
        return square and bool({tensor.shape[2], tensor.shape[2] - self.prefix} & counts)

    def _grids(self, size: Size) -> Iterator[tuple[int, Size]]:
        """Grids that an image of a size has: partial patches completed, or left out."""
        for s in self.strides:
            if not self.whole or not (size[0] % s or size[1] % s):
                yield s, (-(-size[0] // s), -(-size[1] // s))
        for s in self.strides:
            if not self.whole and min(size) >= s:
                yield s, (size[0] // s, size[1] // s)


def check_floating(tensor: Tensor, call: Call) -> None:
    """Only floating-point features can be averaged."""
    if not tensor.is_floating_point():
        raise AdapterError(
            f"Expected {call.family} to return floating-point features, which can be "
            f"averaged, got {summary(call.output)}. {_ELSE}"
        )
