"""What SRT is compared with, as ways to call ``inference`` of a segmentor or depth estimator.

Every method calls the model's own ``inference`` (whole or slide mode, whatever the config says) on
the preprocessed input ``(B, C, H, W)`` and returns logits ``(B, K, H, W)``, or depth
``(B, 1, H, W)``, in place of it. Nothing else of the model or of the evaluation changes.
"""

from __future__ import annotations

import math
from contextlib import AbstractContextManager
from typing import Any, Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..core.chunks import run_views
from ..core.patch import overridden
from ..core.statistics import accumulation_dtype
from ..core.views import Views
from ..errors import ConfigError
from ..uncertainty import OutputSpread, overlap

Inference = Callable[[Tensor, list], Tensor]
Method = Callable[[Inference, Tensor, list], Tensor]
Told = Callable[[Tensor], None]


def inference_by(model: nn.Module, method: Method) -> AbstractContextManager[None]:
    """While active, ``model.inference`` goes through ``method``.

    Raises:
        ConfigError: the model has no ``inference(inputs, batch_img_metas)``.
    """
    original = getattr(model, "inference", None)
    if not callable(original):
        raise ConfigError(
            f"Expected a segmentor with inference(inputs, batch_img_metas), got "
            f"{type(model).__name__} without it; leave these rows out with skip=['oe', 'flip', "
            "'larger'] (--skip oe flip larger)."
        )

    def inference(inputs: Tensor, batch_img_metas: list) -> Tensor:
        return method(original, inputs, batch_img_metas)

    return overridden(model, "inference", inference)


def output_ensemble(
    views: Views,
    padding: str = "replicate",
    view_batch: int | str = "auto",
    told: Told | None = None,
) -> Method:
    """The whole model on every view, its logits put back in place pixel by pixel and averaged.

    The paper's output-level ensemble (OE; Lao et al., Table 1). Pixels that a view does not show
    count in the others only.

    Args:
        views: translations and weights.
        padding: how pixels outside the image are made.
        view_batch: views per call of the model.
        told: called with what the views' logits disagree by; see :class:`.OutputSpread`.
    """

    def method(inference: Inference, inputs: Tensor, metas: list) -> Tensor:
        batch, size = len(inputs), (inputs.shape[-2], inputs.shape[-1])
        total: Tensor | None = None
        cover = torch.zeros(size, device=inputs.device)
        spread = OutputSpread() if told is not None else None

        def run(chunk: Tensor, _: slice) -> Tensor:
            return inference(chunk, sized(metas * (len(chunk) // batch), size))

        for logits, chosen in run_views(run, inputs, views, padding=padding, view_batch=view_batch):
            dtype = logits.dtype
            part = views.part(chosen)
            mirrored = part.mirrored or (False,) * len(part)
            for one, (dy, dx), weight, flipped in zip(
                logits.split(batch), part.translations, part.weights, mirrored
            ):
                one = one.flip(-1) if flipped else one
                if total is None:
                    total = torch.zeros_like(one, dtype=accumulation_dtype(dtype))
                # Content moved by (dy, dx): pixel y of the image is pixel y + dy of the view.
                (to_y, from_y), (to_x, from_x) = overlap(size[0], dy), overlap(size[1], dx)
                total[..., to_y, to_x] += weight * one[..., from_y, from_x]
                cover[to_y, to_x] += weight
                if spread is not None:
                    spread.add(one, (dy, dx), weight)
        if total is None or not bool((cover > 0).all()):
            raise ConfigError(
                "Expected the views to show the whole image, but some border is in none of them; "
                "add the view (0, 0)."
            )
        if told is not None and spread is not None:
            told(spread.result())
        return (total / cover).to(dtype)

    return method


def flip(inference: Inference, inputs: Tensor, metas: list, told: Told | None = None) -> Tensor:
    """Mean of the logits of the image and of its mirror image; ``told`` as in
    :func:`output_ensemble`.
    """
    metas = sized(metas, (inputs.shape[-2], inputs.shape[-1]))
    mirrored = inference(inputs.flip(-1), metas).flip(-1)
    plain = inference(inputs, metas)
    if told is not None:
        spread = OutputSpread()
        for one in (plain, mirrored):
            spread.add(one, (0, 0))
        told(spread.result())
    return (plain + mirrored) / 2


def larger_input(scale: float, multiple: int = 1) -> Method:
    """The input enlarged by ``scale`` per side (bilinear), its logits resized back.

    Args:
        scale: factor per side, >= 1.
        multiple: sides are rounded to this multiple, in pixels (the patch).
    """

    def method(inference: Inference, inputs: Tensor, metas: list) -> Tensor:
        size = (inputs.shape[-2], inputs.shape[-1])
        larger = larger_size(size, scale, multiple)
        enlarged = F.interpolate(inputs, larger, mode="bilinear", align_corners=False)
        logits = inference(enlarged, sized(metas, larger))
        return F.interpolate(logits, size, mode="bilinear", align_corners=False)

    return method


def matching_scale(
    cost: Callable[[float], int], plain: int, wanted: int, tolerance: float = 0.03
) -> float:
    """Scale per side at which a larger input costs ``wanted`` operations.

    Sought by straight lines between logarithms of scale and cost: what heads cost need not grow
    with the image (a detector's see as many boxes at any size), attention grows with its square.

    Args:
        cost: operations at a scale.
        plain: operations at scale 1.
        wanted: operations to match.
        tolerance: of the cost, relative.
    """
    points = [(0.0, math.log(plain))]
    scale, target = max(1.0, wanted / plain) ** 0.5, math.log(wanted)
    for _ in range(4):
        points.append((math.log(scale), math.log(cost(scale))))
        (x0, y0), (x1, y1) = sorted(points, key=lambda p: abs(p[1] - target))[:2]
        if abs(y1 - target) < tolerance or abs(y0 - target) < tolerance or y0 == y1:
            break
        scale = max(1.0, math.exp(x0 + (target - y0) * (x1 - x0) / (y1 - y0)))
    return math.exp(min(points, key=lambda p: abs(p[1] - target))[0])


def larger_size(size: tuple[int, int], scale: float, multiple: int) -> tuple[int, int]:
    """``(H, W)`` enlarged by ``scale``, rounded to the nearest multiple, never smaller."""
    height, width = (max(side, round(side * scale / multiple) * multiple) for side in size)
    return height, width


def sized(metas: list, size: tuple[int, int]) -> list[dict[str, Any]]:
    """Copies of the image metas that tell the heads to return logits of ``size``.

    Copies, because slide mode writes each window's size into the metas that it is given.
    """
    shape = torch.Size(size)
    return [{**meta, "img_shape": shape, "pad_shape": shape} for meta in metas]
