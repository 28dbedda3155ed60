"""Completing partial patches with real pixels; Detectron2 itself pads batches with a constant."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from srt_plugins.adapters import describe, find_backbone

from ..core.translate import check_padding, pad
from ..errors import ConfigError


class PatchCompletion:
    """Continues each image into its last partial patches; see :func:`complete_patches`."""

    def __init__(self, model: nn.Module, multiple: int, padding: str) -> None:
        self.multiple = multiple
        self.padding = padding
        self._sizes: list[tuple[int, int]] = []
        backbone = find_backbone(model)
        self._handles: list[Any] = [
            model.register_forward_pre_hook(self._note),
            backbone.register_forward_pre_hook(self._complete),
            model.register_forward_hook(self._forget, always_call=True),
        ]

    def remove(self) -> None:
        """Undo it."""
        while self._handles:
            self._handles.pop().remove()

    # A batch in the format of Detectron2's models: one dict per image.
    def _note(self, model: nn.Module, args: tuple) -> None:
        inputs = args[0] if args and isinstance(args[0], (list, tuple)) else []
        self._sizes = [] if model.training else [tuple(x["image"].shape[-2:]) for x in inputs]

    def _forget(self, *_: Any) -> None:
        self._sizes = []

    def _complete(self, _: nn.Module, args: tuple) -> tuple | None:
        if not args or not isinstance(args[0], Tensor) or len(args[0]) != len(self._sizes):
            return None
        return (self._completed(args[0]), *args[1:])

    def _completed(self, images: Tensor) -> Tensor:
        completed = images.clone()
        for image, (h, w) in zip(completed, self._sizes):
            bottom, right = (
                min(-(-n // self.multiple) * self.multiple, full) - n
                for n, full in zip((h, w), image.shape[-2:])
            )
            filled = pad(image[:, :h, :w], 0, bottom, 0, right, self.padding)
            image[:, : h + bottom, : w + right] = filled
        return completed


def complete_patches(
    model: nn.Module, padding: str = "replicate", multiple: int | None = None
) -> PatchCompletion:
    """Continue images into their last partial patches in eval mode, in place of Detectron2's zeros.

    Images of a batch are padded with a constant at the bottom and right. A patch that is half
    image and half constant is something that the network rarely saw, and costs accuracy at no
    gain; pixels beyond the image's last patch stay as they are. Detectron2's TTA classes do not go
    through the model's forward and are not affected.

    Args:
        model: a Detectron2 model that takes its standard list of dicts.
        padding: ``"replicate"``, ``"reflect"`` or ``"zeros"`` (after normalisation).
        multiple: patch size in pixels; None = the backbone's.

    Returns:
        An object whose ``remove()`` undoes it.

    Raises:
        ConfigError: an unknown padding, or a backbone whose patch size is not known.
    """
    check_padding(padding)
    patch = multiple or describe(find_backbone(model)).patch
    if patch is None:
        raise ConfigError(
            f"Expected multiple to be the patch size in pixels, got {multiple!r}: that of "
            f"{type(find_backbone(model)).__name__} is not known."
        )
    return PatchCompletion(model, patch, padding)
