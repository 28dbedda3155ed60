"""Token grids of a backbone at one place: an output or a block, whatever library it is from."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from ..adapters import describe
from ..adapters.form import LAYOUTS, Form
from ..adapters.probe import probed
from ..adapters.structure import Path, summary, tensors
from ..calls import ImageCall, asked_value, image_call
from ..core.accumulator import Grid
from ..core.capture import capture
from ..core.translate import Canvas
from ..errors import AdapterError, ConfigError
from ..wrapper import wrapped

# Methods that may return token grids, the usual one first; those of a model with a head return
# logits from the first.
_METHODS = ("forward", "forward_features", "get_intermediate_layers")
# Outputs that are looked at first, where a backbone returns several kinds by name.
_NAMES = ("x_norm_patchtokens", "last_hidden_state", "feature_maps")


class Tokens:
    """The token grid of a backbone at one place, for images of whole patches.

    The backbone is called by its methods, not as a module: hooks on the backbone itself (not on
    its parts) do not run, as they do not for each view of an ensembled one.

    Args:
        backbone: not wrapped.
        layer: a block index or module path, whose tokens are taken and after which nothing runs;
            None = an output.
        output: which output, as an index into the token grids that the backbone returns or a name;
            None = the last one as fine as the last block's tokens (in a pyramid: not the coarser
            maps that are pooled from it), the last one where blocks are not known.

    Attributes:
        adapter: facts about the backbone.
        channels, stride, itemsize: of the tokens that were seen last; 0 = none yet.

    Raises:
        ConfigError: a wrapped backbone, a layer that it lacks, or both layer and output.
        AdapterError: a backbone without token grids.
    """

    def __init__(
        self, backbone: nn.Module, layer: int | str | None = None, output: int | str | None = None
    ) -> None:
        if not isinstance(backbone, nn.Module):
            raise ConfigError(
                f"Expected backbone to be a torch module, got {type(backbone).__name__}."
            )
        self.backbone = backbone
        self._check_plain()
        if layer is not None and output is not None:
            raise ConfigError(
                f"Expected layer or output, got layer={layer!r} and output={output!r}: blocks have "
                "one output each. Leave one of them out."
            )
        self.adapter = describe(backbone)
        self._block = None if layer is None else self.adapter.block_index(layer)
        self._output = output
        self.channels, self.itemsize = 0, 0
        self.stride: tuple[int, int] = (0, 0)
        known = "forward" in vars(backbone)  # bound to another method, or patched
        self._methods = [
            name
            for name in _METHODS
            if name in self.adapter.entries or (known and name == "forward")
        ]

    @property
    def patch(self) -> int:
        """Period of the token grid in pixels, that of the views; known after :meth:`prepare`."""
        return self.adapter.patch or 1

    def prepare(self, images: Tensor) -> None:
        """Check images, and find out what is not known of the backbone yet.

        Raises:
            ConfigError: not images ``(B, C, H, W)``, or a backbone that was wrapped since.
        """
        good = isinstance(images, Tensor) and images.ndim == 4 and images.is_floating_point()
        if not good or not images.numel():
            given = (
                f"{tuple(images.shape)} {images.dtype}" if isinstance(images, Tensor) else images
            )
            raise ConfigError(
                "Expected images (B, C, H, W) of a floating-point dtype, normalised as the "
                f"backbone wants them, got {given}."
            )
        self._check_plain()
        if self.adapter.patch is None and self.adapter.by_size is None:
            self.adapter = probed(
                self.adapter, self._call(self._methods[0], images).run, images[:1]
            )

    def view_size(self, images: Tensor) -> tuple[int, int]:
        """``(H', W')`` of the images completed to whole cells of every grid of the backbone."""
        a = self.adapter
        strides = a.by_size.strides if a.by_size else a.strides or ()
        block = () if self._block is None else (a.block_strides[self._block],)
        known = [n for n in (self.patch, a.multiple, a.floor, *strides, *block) if n]
        multiple = math.lcm(*known)
        height, width = images.shape[-2:]
        return (-(-height // multiple) * multiple, -(-width // multiple) * multiple)

    def completed(self, images: Tensor, padding: str = "replicate") -> Tensor:
        """The images in that size."""
        canvas = Canvas(images, [(0, 0)], self.view_size(images), padding)
        return canvas.views([(0, 0)])

    def __call__(self, images: Tensor) -> Grid:
        """The grid ``(N, D, h, w)`` of images ``(N, C, H', W')`` of whole cells.

        Raises:
            AdapterError: what the backbone returned holds no token grid. CaptureError: the block
                did not run.
        """
        size = (int(images.shape[-2]), int(images.shape[-1]))
        grid = (
            self._at_output(images, size) if self._block is None else self._at_block(images, size)
        )
        tokens, stride = grid.tensor, grid.stride
        cells = (tokens.shape[-2] * stride[0], tokens.shape[-1] * stride[1])
        if tokens.shape[0] != len(images) or cells != size:
            raise AdapterError(
                f"Expected {self.adapter.family} to return a token for every {stride[0]}x"
                f"{stride[1]} pixels of {len(images)} images of {size[0]}x{size[1]}, got "
                f"{tuple(tokens.shape)}; choose another layer or output."
            )
        self.channels, self.stride = tokens.shape[1], stride
        self.itemsize = tokens.element_size()
        return grid

    def _at_block(self, images: Tensor, size: tuple[int, int]) -> Grid:
        assert self._block is not None
        path = self.adapter.blocks[self._block]
        call = self._call(self._methods[0], images)
        found = capture(
            self.backbone,
            [path],
            lambda: call.run(images),
            attentions=self.adapter.attentions,
        )
        tokens = found[path].tokens
        return _grid(self.adapter.block_form(tokens, self._block, size), tokens)

    def _at_output(self, images: Tensor, size: tuple[int, int]) -> Grid:
        output: Any = None
        for name in self._methods:
            call = self._call(name, images)
            output = call.run(images)
            # Outputs of other kinds do not matter here.
            forms = self.adapter.forms(output, size, size, (), call.asked)
            grids = {p: f for p, f in forms.items() if f.layout in LAYOUTS}
            if grids:
                self._methods = [name]
                path = self._chosen(grids, output)
                return _grid(grids[path], dict(tensors(output))[path])
        self.adapter.forms(output, size, size, None, call.asked)  # says what is wrong
        raise AdapterError(
            f"Expected {self.adapter.family} to return a token grid, got {summary(output)}; build "
            "it so that it returns feature maps, or choose one of its blocks with layer=."
        )

    def _chosen(self, grids: dict[Path, Form], output: Any) -> Path:
        paths = list(grids)
        if self._output is None:
            named = (path for name in _NAMES for path in reversed(paths) if path[:1] == (name,))
            finest = self.adapter.block_strides[-1:]
            fine = (path for path in reversed(paths) if grids[path].stride[0] in finest)
            return next(named, None) or next(fine, paths[-1])
        if isinstance(self._output, int) and -len(paths) <= self._output < len(paths):
            return paths[self._output]
        by_name = [path for path in paths if path[:1] == (self._output,)]
        if not by_name or isinstance(self._output, int):
            raise ConfigError(
                f"Expected output to be one of {len(paths)} token grids (an index) or a name, got "
                f"{self._output!r}; the backbone returns {summary(output)}."
            )
        return by_name[-1]

    def _call(self, name: str, images: Tensor) -> ImageCall:
        """A call by name. Parts of transformers' outputs are told apart by their names."""
        by = self.adapter.named_by
        named = {by: True} if by and asked_value(self.backbone, {}, by) is False else {}
        return image_call(self.backbone, getattr(self.backbone, name), (images,), named)

    def _check_plain(self) -> None:
        if wrapped(self.backbone):
            raise ConfigError(
                f"Expected a backbone without SRT, got {type(self.backbone).__name__} with it: its "
                "views would be run of views. Detach it first, srt_plugins.detach(model)."
            )


def _grid(form: Form, tensor: Tensor) -> Grid:
    leaf = form.split(tensor)[0]
    assert isinstance(leaf, Grid)
    return replace(leaf, crop=None)


@contextmanager
def reading(module: nn.Module) -> Iterator[None]:
    """Eval mode without gradients; every part is left in the mode that it was in."""
    # Flags alone: train() and eval() of some backbones freeze parts.
    training = [part for part in module.modules() if part.training]
    try:
        for part in training:
            part.training = False
        with torch.no_grad():
            yield
    finally:
        for part in training:
            part.training = True
