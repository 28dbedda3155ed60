"""How much views disagree, as maps in the size of a model's outputs; what the plugins of the
frameworks share.
"""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any, Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.module import register_module_module_registration_hook

from .core.chunks import run_views
from .core.statistics import accumulation_dtype
from .core.views import Views
from .errors import ConfigError
from .wrapper import srt_enabled, wrapped

Size = tuple[int, int]


def combined(maps: Sequence[Tensor], size: Size, align_corners: bool | None = False) -> Tensor:
    """The dispersion of every ensembled grid as one map, ``(B, 1, H, W)`` float32.

    Maps are resized (bilinear); of several, the geometric mean is taken, in which the scale that
    features have at each level is a factor of the whole map and favours no level.

    Args:
        maps: ``(B, 1, h, w)`` each, as :func:`srt_plugins.dispersion` returns them.
        size: ``(H, W)``.
        align_corners: as the model's own outputs are resized.
    """
    each = [
        F.interpolate(one.float(), size, mode="bilinear", align_corners=align_corners)
        for one in maps
    ]
    if len(each) == 1:
        return each[0]
    tiny = torch.finfo(torch.float32).tiny
    return torch.stack([one.clamp_min(tiny).log() for one in each]).mean(0).exp()


class OutputSpread:
    """Standard deviation over views of dense outputs (weighted, population form).

    Views are added in place, pixel by pixel; a pixel counts in the views that show it (West, 1979).
    """

    def __init__(self) -> None:
        self._mean: Tensor | None = None
        self._m2: Tensor | None = None
        self._weight: Tensor | None = None

    def add(self, output: Tensor, translation: tuple[int, int], weight: float = 1.0) -> None:
        """Add a view's output ``(B, K, H, W)``, whose content was moved by ``(dy, dx)`` pixels."""
        dtype = accumulation_dtype(output.dtype)
        if self._mean is None or self._m2 is None or self._weight is None:
            self._mean = torch.zeros_like(output, dtype=dtype)
            self._m2 = torch.zeros_like(self._mean)
            self._weight = torch.zeros(output.shape[-2:], dtype=dtype, device=output.device)
        inside, seen = zip(*(overlap(n, d) for n, d in zip(output.shape[-2:], translation)))
        there, found = (..., *inside), output[(..., *seen)].to(dtype)
        total = self._weight[there] + weight
        before = found - self._mean[there]
        self._mean[there] += before * (weight / total)
        self._m2[there] += weight * before * (found - self._mean[there])
        self._weight[there] = total

    def result(self) -> Tensor:
        """Root mean square over channels of the standard deviation, ``(B, 1, H, W)``.

        Raises:
            ConfigError: some pixel is in no view.
        """
        if self._m2 is None or self._weight is None or not bool((self._weight > 0).all()):
            raise ConfigError(
                "Expected the views to show the whole image, but some border is in none of them; "
                "add the view (0, 0)."
            )
        return (self._m2 / self._weight).clamp_min(0).mean(1, keepdim=True).sqrt()


def output_spread(
    run: Callable[[Tensor], Tensor],
    images: Tensor,
    views: Views,
    padding: str = "replicate",
    view_batch: int | str = "auto",
) -> Tensor:
    """Standard deviation over views of what a whole model makes of them, ``(B, 1, H, W)``.

    Args:
        run: images ``(N, C, H, W)`` to outputs ``(N, K, H, W)``.
        images: ``(B, C, H, W)``.
        views: integer translations.
        padding: how pixels outside the image are made.
        view_batch: views per call of ``run``.
    """
    spread = OutputSpread()
    every = run_views(
        lambda chunk, _: run(chunk), images, views, padding=padding, view_batch=view_batch
    )
    for outputs, chosen in every:
        part = views.part(chosen)
        mirrored = part.mirrored or (False,) * len(part)
        for one, translation, weight, flipped in zip(
            outputs.split(len(images)), part.translations, part.weights, mirrored
        ):
            spread.add(one.flip(-1) if flipped else one, translation, weight)
    return spread.result()


def depth_std(model: nn.Module, inputs: Any, **settings: Any) -> Tensor:
    """Standard deviation over views of the depth that a model of transformers predicts.

    Runs the whole model once per view, beside whatever else is run of it.

    Args:
        model: returns ``predicted_depth`` ``(B, h, w)``.
        inputs: ``pixel_values`` ``(B, 3, H, W)``, or what the image processor made, in which that
            is the only tensor.
        **settings: see :class:`srt_plugins.Settings`; those that choose views, ``padding`` and
            ``view_batch`` matter. None = those of the wrapped model, or the default views.

    Returns:
        ``(B, H, W)`` in the unit of the model's depth, at the size of ``pixel_values``.

    Raises:
        ConfigError: inputs without images, or a model that predicts no depth.
    """
    images = inputs if isinstance(inputs, Tensor) else dict(inputs).get("pixel_values")
    if not isinstance(images, Tensor) or images.ndim != 4:
        raise ConfigError(
            "Expected inputs to be pixel_values (B, 3, H, W), or what the image processor of the "
            f"model made, got {type(inputs).__name__}."
        )
    size = (images.shape[-2], images.shape[-1])

    def run(chunk: Tensor) -> Tensor:
        found = getattr(model(pixel_values=chunk), "predicted_depth", None)
        if found is None:
            raise ConfigError(
                f"Expected a model that returns predicted_depth, got {type(model).__name__}; "
                "dispersion=True tells how much the features of any model disagree."
            )
        return F.interpolate(found[:, None], size, mode="bilinear", align_corners=False)

    with torch.no_grad(), srt_enabled(model, **settings):
        state = wrapped(model)[0]._srt
        if state.adapter.patch is None:
            model(pixel_values=images[:1])  # an unknown backbone is probed on its first image
        views, used = state.views(), state.settings
        with off(model):
            return output_spread(run, images, views, used.padding, used.view_batch)[:, 0]


def off(model: nn.Module) -> AbstractContextManager[Any]:
    """While active, a wrapped model is the plain one."""
    return srt_enabled(model, enabled=False)


def dispersing(model: nn.Module) -> Any:
    """The part of a model whose views' dispersion is kept in its next forward; None for none."""
    for part in wrapped(model):
        state = part._srt
        if state.enabled and state.settings.dispersion and not part.training:
            return part
    return None


def follow(
    part: nn.Module,
    is_model: Callable[[nn.Module, str], bool],
    found: Callable[[nn.Module, nn.Module], Any],
) -> None:
    """Call ``found(model, child)`` once a part, or what it was put into, is made a part of a model.

    A config builds the backbone before the model, which the backbone never gets to know.

    Args:
        part: wrapped.
        is_model: whether a module is the model, into which something is put by that name.
        found: called once, before the child that holds the part can be found in the model.
    """
    last = [weakref.ref(part)]

    def registered(module: nn.Module, name: str, child: nn.Module | None) -> None:
        awaited = last[0]()
        if awaited is None:
            handle.remove()
        elif child is awaited and is_model(module, name):
            handle.remove()
            found(module, awaited)
        elif child is awaited:
            last[0] = weakref.ref(module)

    handle = register_module_module_registration_hook(registered)


def overlap(length: int, shift: int) -> tuple[slice, slice]:
    """What both an image and a view moved by ``shift`` show, as slices of either."""
    inside = slice(max(0, -shift), length - max(0, shift))
    return inside, slice(inside.start + shift, inside.stop + shift)
