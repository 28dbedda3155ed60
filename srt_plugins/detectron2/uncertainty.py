"""Dispersion over views in the outputs of Detectron2's models: ``output["srt_dispersion"]``, and
``instances.srt_dispersion`` of what was detected.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import numpy as np
import torch
from detectron2.modeling import Backbone
from detectron2.modeling.postprocessing import sem_seg_postprocess
from detectron2.structures import Instances
from detectron2.utils.visualizer import ColorMode, VisImage, Visualizer
from torch import Tensor, nn

from ..errors import ConfigError
from ..state import check
from ..uncertainty import combined, dispersing, follow
from ..wrapper import attach, wrapped

Model = TypeVar("Model")

DISPERSION = "srt_dispersion"

# Sizes of the images that a wrapped part got last, beside the parts, which are copied and pickled.
_SIZES: weakref.WeakKeyDictionary[nn.Module, tuple[int, int]] = weakref.WeakKeyDictionary()


def with_dispersion(model: Model, target: str | None = None, **keywords: Any) -> Model:
    """Ensemble a model's backbone with ``dispersion=True``, and hand the dispersion to its outputs.

    Every output then has ``"srt_dispersion"``, ``(H, W)`` float32 in the size of the other outputs,
    and its instances the field ``srt_dispersion``, ``(N,)``: the mean within each mask, or within
    the box where there are no masks. Of a pyramid it is the geometric mean over levels, in which
    the scale of each level's features is a factor of the whole map.
    :func:`srt_plugins.detach` undoes all of it.

    A config whose SRT keywords have ``dispersion`` does the same by itself.

    Args:
        model: a meta-architecture, or a ``DefaultPredictor``.
        target: part of the backbone to ensemble; see :func:`srt_plugins.attach`.
        **keywords: see :class:`srt_plugins.Settings`.

    Returns:
        What it was given.

    Raises:
        ConfigError: a bad keyword, or no model.
    """
    module = _module(model)
    parts, keywords = wrapped(module), {**keywords, "dispersion": True}
    if parts and target is None:
        settings = parts[0]._srt.settings.but(**keywords)
        check(settings, parts[0]._srt.adapter)
        parts[0]._srt.settings = settings
    else:
        attach(model, target, **keywords)
    put_on(module)
    return model


def put_on(model: nn.Module, child: nn.Module | None = None) -> OutputMaps:
    """Hooks that hand the dispersion of a wrapped backbone to a model's outputs; see
    :func:`with_dispersion`. They go when SRT goes.

    Args:
        model: a meta-architecture.
        child: what holds the wrapped part, where the model does not have it yet.
    """
    _take_off(model)
    parts = wrapped(model if child is None else child)
    handles = [model.register_forward_hook(_HandOver(), with_kwargs=True)]
    handles += [part.register_forward_pre_hook(_Note(), with_kwargs=True) for part in parts]
    maps = OutputMaps(handles)
    for part in parts:
        # Unwrapping a backbone drops its state.
        weakref.finalize(part._srt, maps.remove).atexit = False
    return maps


@contextmanager
def dispersion_in_outputs(model: Any) -> Iterator[None]:
    """While active, :func:`put_on` is in effect on a model."""
    module = _module(model)
    if any(isinstance(hook, _HandOver) for hook in module._forward_hooks.values()):
        yield  # of a config, whose backbone is wrapped
        return
    maps = put_on(module)
    try:
        yield
    finally:
        maps.remove()


def follow_into_model(backbone: nn.Module) -> None:
    """Put the hooks on the model that a backbone, of which a part is wrapped, is built into."""
    follow(backbone, _is_model, put_on)


def _is_model(module: nn.Module, name: str) -> bool:
    return name == "backbone" and not isinstance(module, Backbone)


class OutputMaps:
    """What :func:`put_on` did; ``remove()`` undoes it."""

    def __init__(self, handles: list[Any]) -> None:
        self._handles = handles

    def remove(self) -> None:
        """Undo it."""
        while self._handles:
            self._handles.pop().remove()


def draw_dispersion(
    image: Any,
    output: dict[str, Any],
    metadata: Any = None,
    alpha: float = 0.5,
    scale: float = 1.0,
) -> VisImage:
    """A heat map of the dispersion over an image, and what was detected labelled with it.

    Args:
        image: RGB, ``(H, W, 3)`` uint8, at the output's size.
        output: of a model that :func:`with_dispersion` was called on.
        metadata: of the dataset, with ``thing_classes``; None = numbers.
        alpha: opacity of the heat map, whose lowest value is blue and whose highest is red.
        scale: of the picture.

    Returns:
        As Detectron2's ``Visualizer`` gives it: ``get_image()``, ``save(path)``.

    Raises:
        ConfigError: an output without dispersion, or of another size than the image.
    """
    found = output.get(DISPERSION)
    pixels = np.asarray(image)
    if found is None or tuple(found.shape) != pixels.shape[:2]:
        raise ConfigError(
            f"Expected output[{DISPERSION!r}] of the image's size {pixels.shape[:2]}, got "
            f"{'none' if found is None else tuple(found.shape)}; run a model with_dispersion, and "
            "pass the image that its output is for."
        )
    heat = (1 - alpha) * pixels + alpha * _heat(found)
    drawn = Visualizer(heat.astype(np.uint8), metadata, scale, ColorMode.IMAGE)
    instances = output.get("instances")
    if instances is None or not instances.has(DISPERSION):
        return drawn.output
    names = getattr(metadata, "thing_classes", None)
    chosen = instances.to("cpu")
    labels = [
        f"{names[int(k)] if names else int(k)} {spread:.3g}"
        for k, spread in zip(chosen.pred_classes, chosen.get(DISPERSION))
    ]
    boxes = chosen.pred_boxes if chosen.has("pred_boxes") else None
    masks = np.asarray(chosen.pred_masks) if chosen.has("pred_masks") else None
    return drawn.overlay_instances(boxes=boxes, masks=masks, labels=labels, alpha=0.2)


def _heat(values: Tensor) -> np.ndarray:
    """Blue to red, ``(H, W, 3)`` 0 .. 255."""
    from matplotlib import colormaps

    shown = values.detach().float().cpu()
    low, high = shown.min(), shown.max()
    shares = (shown - low) / (high - low).clamp_min(torch.finfo(shown.dtype).tiny)
    return 255 * np.asarray(colormaps["jet"](shares.numpy()))[..., :3]


def _module(model: Any) -> nn.Module:
    module = model if isinstance(model, nn.Module) else getattr(model, "model", None)
    if isinstance(module, nn.Module):
        return module
    raise ConfigError(f"Expected a model or predictor of Detectron2, got {type(model).__name__}.")


def _take_off(model: nn.Module) -> None:
    for module in model.modules():
        for hooks, flags, kind in (
            (module._forward_pre_hooks, module._forward_pre_hooks_with_kwargs, _Note),
            (module._forward_hooks, module._forward_hooks_with_kwargs, _HandOver),
        ):
            for key in [key for key, hook in hooks.items() if isinstance(hook, kind)]:
                del hooks[key]
                flags.pop(key, None)


class _Note:
    """Pre-hook of a wrapped part: the size of the images that it gets, padding and all."""

    def __call__(self, part: nn.Module, args: tuple, kwargs: dict) -> None:
        for value in (*args, *kwargs.values()):
            if isinstance(value, Tensor) and value.ndim == 4:
                _SIZES[part] = (int(value.shape[-2]), int(value.shape[-1]))
                return


class _HandOver:
    """Hook of a model; holds no reference to it, so that it is copied with it."""

    def __call__(self, model: nn.Module, args: tuple, kwargs: dict, outputs: Any) -> None:
        if not wrapped(model):
            _take_off(model)  # the backbone was unwrapped by itself
            return
        part = dispersing(model)
        inputs: Any = args[0] if args else next(iter(kwargs.values()), None)
        if part is None or not part._srt.dispersion or not _is_batch(inputs, outputs):
            return
        maps = combined(part._srt.dispersion, _SIZES[part])
        for item, output, one in zip(inputs, outputs, maps):
            size = (item["image"].shape[-2], item["image"].shape[-1])
            to = (item.get("height", size[0]), item.get("width", size[1]))
            placed = sem_seg_postprocess(one, size, *to)[0]
            output[DISPERSION] = placed
            instances = output.get("instances")
            if isinstance(instances, Instances):
                instances.set(DISPERSION, of_instances(placed, instances))


def _is_batch(inputs: Any, outputs: Any) -> bool:
    lists = isinstance(inputs, (list, tuple)) and isinstance(outputs, list)
    return (
        lists
        and len(inputs) == len(outputs)
        and all(isinstance(one, dict) and "image" in one for one in inputs)
        and all(isinstance(one, dict) for one in outputs)
    )


def of_instances(dispersion: Tensor, instances: Instances) -> Tensor:
    """The mean of a map ``(H, W)`` within each mask, or box where there is none, ``(N,)``."""
    height, width = dispersion.shape
    masks = instances.pred_masks if instances.has("pred_masks") else None
    if not isinstance(masks, Tensor) or tuple(masks.shape[1:]) != (height, width):
        masks = [None] * len(instances)
    boxes = instances.pred_boxes.tensor if instances.has("pred_boxes") else None
    means = []
    for i, mask in enumerate(masks):
        if mask is not None and bool(mask.any()):
            means.append(dispersion[mask.bool()].mean())
        elif boxes is not None:
            x0, y0, x1, y1 = boxes[i].tolist()
            left, top = min(max(int(x0), 0), width - 1), min(max(int(y0), 0), height - 1)
            right, bottom = max(int(-(-x1 // 1)), left + 1), max(int(-(-y1 // 1)), top + 1)
            means.append(dispersion[top:bottom, left:right].mean())
        else:
            means.append(dispersion.new_full((), float("nan")))
    return torch.stack(means) if means else dispersion.new_zeros(0)
