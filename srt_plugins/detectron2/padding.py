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
        # Sizes of the images of each call of the model that is under way; calls may be nested.
        self._sizes: list[list[tuple[int, int]]] = []
        backbone = find_backbone(model)
        self._handles: list[Any] = [
            model.register_forward_pre_hook(self._note, with_kwargs=True),
            model.register_forward_hook(self._forget, always_call=True),
            backbone.register_forward_pre_hook(self._complete),
        ]

    def remove(self) -> None:
        """Undo it."""
        while self._handles:
            self._handles.pop().remove()

    # A batch in the format of Detectron2's models: one dict per image.
    def _note(self, _: nn.Module, args: tuple, kwargs: dict) -> None:
        inputs = args[0] if args else next(iter(kwargs.values()), None)
        try:
            sizes = [(int(x["image"].shape[-2]), int(x["image"].shape[-1])) for x in inputs or ()]
        except (IndexError, KeyError, TypeError, AttributeError):  # another format
            sizes = []
        self._sizes.append(sizes)

    def _forget(self, *_: Any) -> None:
        self._sizes.pop()

    def _complete(self, backbone: nn.Module, args: tuple) -> tuple | None:
        sizes = self._sizes[-1] if self._sizes else []
        if backbone.training or not args or not isinstance(args[0], Tensor):
            return None
        if not sizes or len(args[0]) != len(sizes):
            return None
        return (self._completed(args[0], sizes), *args[1:])

    def _completed(self, images: Tensor, sizes: list[tuple[int, int]]) -> Tensor:
        completed = images.clone()
        for image, size in zip(completed, sizes):
            full = image.shape[-2:]
            # An image that is larger than the batch was cropped.
            h, w = (min(n, most) for n, most in zip(size, full))
            if image[:, h:].any() or image[:, :, w:].any():
                continue  # not padding: the image was resized on the way
            bottom, right = (
                min(-(-n // self.multiple) * self.multiple, most) - n
                for n, most in zip((h, w), full)
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
        ConfigError: an unknown padding, a bad multiple, or a backbone whose patch size is not
            known.
    """
    check_padding(padding)
    backbone = find_backbone(model)
    known = describe(backbone).patch
    patch = known if multiple is None else multiple
    if not isinstance(patch, int) or isinstance(patch, bool) or patch < 1:
        raise ConfigError(
            f"Expected multiple to be the patch size in pixels, got {multiple!r}; that of "
            f"{type(backbone).__name__} is {known or 'not known, so it must be given'}."
        )
    return PatchCompletion(model, patch, padding)
