"""What SRT is compared with, as ways to call a Detectron2 model.

A method gets the model's own call and a batch of dataset dicts, and returns what the model would.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any, Callable

import numpy as np
import torch
import torch.nn.functional as F
from detectron2.config import get_cfg
from detectron2.data.transforms import ResizeTransform
from detectron2.modeling import GeneralizedRCNN, GeneralizedRCNNWithTTA
from detectron2.modeling.test_time_augmentation import DatasetMapperTTA
from torch import Tensor, nn

from srt_plugins.adapters import describe, find_backbone

from ..core.patch import overridden
from . import methods

Batch = list[dict[str, Any]]
Call = Callable[[Batch], Batch]
Method = Callable[[Call, Batch], Batch]


def on_logits(model: Any, method: methods.Method, spread: list[Tensor] | None = None) -> Method:
    """A method of :mod:`.methods` on a model that returns logits, ``{"sem_seg": (K, H, W)}``.

    Logits are combined in the size of the model's input and then resized as Detectron2 does it.
    Images are passed without their mean, so that zero padding is what it is inside of the model.

    Args:
        model: has ``pixel_mean``.
        method: of logits ``(B, K, H, W)``.
        spread: what ``method`` leaves there, the disagreement of its views ``(1, 1, H, W)``, is
            taken out of it and put into the output as ``"srt_dispersion"``.
    """

    def one(call: Call, item: dict[str, Any]) -> dict[str, Any]:
        mean = getattr(model, "pixel_mean", torch.zeros(1))
        image = item["image"].to(mean.device) - mean
        bare = {k: v for k, v in item.items() if k != "sem_seg"}

        def inference(images: Tensor, _: list) -> Tensor:
            height, width = images.shape[-2:]
            batch = [{**bare, "image": x + mean, "height": height, "width": width} for x in images]
            return torch.stack([output["sem_seg"] for output in call(batch)])

        logits = method(inference, image[None], [{}])
        size = (item.get("height", image.shape[-2]), item.get("width", image.shape[-1]))
        made = {"sem_seg": _resized(logits, size)[0]}
        if spread:
            made["srt_dispersion"] = _resized(spread.pop(), size)[0, 0]
        return made

    return lambda call, batch: [one(call, item) for item in batch]


def _resized(maps: Tensor, size: tuple[int, int]) -> Tensor:
    if maps.shape[-2:] == size:
        return maps
    return F.interpolate(maps, size, mode="bilinear", align_corners=False)


def larger_images(scale: float, multiple: int = 1) -> Method:
    """Images enlarged by ``scale`` per side; outputs come in the size of the original images.

    Args:
        scale: factor per side, >= 1.
        multiple: sides are rounded to this multiple, in pixels.
    """

    def larger(item: dict[str, Any]) -> dict[str, Any]:
        image = item["image"]
        size = (image.shape[-2], image.shape[-1])
        resize = ResizeTransform(*size, *methods.larger_size(size, scale, multiple))
        pixels = resize.apply_image(image.permute(1, 2, 0).cpu().numpy())
        enlarged = torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1)))
        whole = {"height": size[0], "width": size[1], **item}
        return {**whole, "image": enlarged.to(image.device)}

    return lambda call, batch: call([larger(item) for item in batch])


def larger_square(model: nn.Module, scale: float) -> AbstractContextManager[None]:
    """While active, a backbone that pads images to a square pads to a larger one.

    Raises:
        NotImplementedError: it pads to a square that cannot be changed.
    """
    backbone: Any = find_backbone(model)
    square = (getattr(backbone, "padding_constraints", None) or {}).get("square_size", 0)
    if square <= 0:
        return nullcontext()
    if vars(backbone).get("_square_pad") != square:
        raise NotImplementedError(f"the backbone pads every image to {square} x {square} pixels")
    larger, _ = methods.larger_size((square, square), scale, multiple_of(model))
    return overridden(backbone, "_square_pad", larger)


def multiple_of(model: nn.Module) -> int:
    """Pixels that the sides of images are best multiples of."""
    backbone: Any = find_backbone(model)
    try:
        divisibility = int(backbone.size_divisibility)
    except (AttributeError, TypeError):  # Swin's raises
        divisibility = 0
    return divisibility if divisibility > 1 else describe(backbone).patch or 1


def flip_tta(model: Any) -> Method:
    """Detectron2's own test-time augmentation, with the image and its mirror image.

    Boxes of both are merged by non-maximum suppression, and masks of the merged boxes averaged,
    for which the backbone runs on both once more.
    """
    return _on_own(GeneralizedRCNNWithTTA(_tta_config(model), model, _mirrored))


def why_no_flip_tta(model: Any) -> str | None:
    """Why Detectron2's own test-time augmentation does not take a model; None where it does."""
    kind = type(model).__name__
    if not isinstance(model, GeneralizedRCNN):
        return f"Detectron2's GeneralizedRCNNWithTTA does not take a {kind}"
    if type(model).inference is not GeneralizedRCNN.inference:
        return f"Detectron2's GeneralizedRCNNWithTTA cannot run the inference of {kind}"
    if getattr(model.roi_heads, "keypoint_on", False):
        return "Detectron2's GeneralizedRCNNWithTTA does not support keypoints"
    if model.proposal_generator is None:
        return "Detectron2's GeneralizedRCNNWithTTA does not support precomputed proposals"
    try:
        _tta_config(model)
    except AttributeError as error:
        return f"what Detectron2's GeneralizedRCNNWithTTA needs is not in the heads: {error}"
    return None


def _tta_config(model: Any) -> Any:
    """The yacs keys that GeneralizedRCNNWithTTA reads, as the model's own heads have them."""
    heads = model.roi_heads
    predictor: Any = heads.box_predictor
    predictor = predictor[-1] if isinstance(predictor, nn.ModuleList) else predictor  # cascade
    cfg = get_cfg()
    cfg.MODEL.MASK_ON = bool(getattr(heads, "mask_on", False))
    cfg.MODEL.ROI_HEADS.NUM_CLASSES = int(heads.num_classes)
    cfg.MODEL.ROI_HEADS.NMS_THRESH_TEST = float(predictor.test_nms_thresh)
    cfg.TEST.DETECTIONS_PER_IMAGE = int(predictor.test_topk_per_image)
    return cfg


def _mirrored(item: dict[str, Any]) -> Batch:
    """The image and its mirror image, in the size that it has."""
    height, width = item["image"].shape[-2:]
    mapper = DatasetMapperTTA([min(height, width)], max(height, width), flip=True)
    pair: Batch = mapper({"height": height, "width": width, **item})
    return pair


def _on_own(model: Callable[[Batch], Batch]) -> Method:
    return lambda _, batch: model(batch)
