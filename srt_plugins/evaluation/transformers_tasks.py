"""What models of transformers predict: dense maps, post-processing and figures of each task.

Dense maps ``(B, K, h, w)`` are what the rivals of SRT combine; post-processing is always the image
processor's own.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import ConfigError
from .calibration import doubt
from .depth import FIGURES, DepthProtocol, image_errors, judged_depth, judged_pixels
from .metrics import DepthErrors, MeanIoU, Metric
from .scores import pixel_counts

Size = tuple[int, int]


class Task:
    """How the outputs of a model are read.

    Args:
        processor: the model's image processor.
    """

    processor: Any
    classes: list[str]
    # What must be known of the rows that combine dense maps.
    note = ""

    def maps(self, outputs: Any, size: Size) -> Tensor:
        """The dense maps of a model's outputs, resized to ``size``, ``(B, K, H, W)``."""
        raise NotImplementedError

    def outputs(self, maps: Tensor, like: Any) -> Any:
        """Maps as what the model returns."""
        raise NotImplementedError

    def predictions(self, outputs: Any, sizes: Sequence[Size]) -> list[np.ndarray]:
        """What the processor makes of outputs for images of these sizes, ``(H, W)`` each."""
        raise NotImplementedError

    def unmoved(self, coordinate: Tensor, size: Size) -> Tensor:
        """Where post-processing puts what the model sees: ``(h, w)`` to ``(H, W)``."""
        return resized(coordinate[None, None], size)[0, 0]

    def judged(self, prediction: np.ndarray, truth: np.ndarray) -> Any:
        """The statistics of an image."""
        raise NotImplementedError

    def errors(self, prediction: np.ndarray, truth: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The error of each judged pixel, ``(P,)``: 0 or 1, or with :attr:`root` its square, and
        which pixels are judged, ``(H, W)``.
        """
        raise NotImplementedError

    # Whether errors are squared ones.
    root = False

    def far(self, prediction: np.ndarray) -> np.ndarray | None:
        """What grows with predicted depth, ``(H, W)``; None where no depth is predicted."""
        return None

    def doubts(self, outputs: Any, sizes: Sequence[Size]) -> list[Tensor] | None:
        """1 - the largest probability of each pixel, ``(H, W)`` each; None for no probabilities."""
        return None

    def metric(self, statistics: list[Any]) -> Metric:
        """The metric of all images from their statistics."""
        raise NotImplementedError

    def noticed(self, metric: Any) -> list[str]:
        """What must be known of the figures of a metric."""
        return []

    def without_maps(self) -> str | None:
        """Why there are no dense maps; None where there are."""
        return None


class Depth(Task):
    """``predicted_depth`` ``(B, h, w)``: metres, or what else the protocol says.

    Args:
        processor: with ``post_process_depth_estimation``.
        protocol: which pixels are judged, and how.
    """

    def __init__(self, processor: Any, protocol: DepthProtocol) -> None:
        self.processor = processor
        self.protocol = protocol
        self.classes: list[str] = []
        known = inspect.signature(processor.post_process_depth_estimation).parameters
        # ZoeDepth's undoes the padding of its own; others resize only.
        self.unpads = "source_sizes" in known

    def maps(self, outputs: Any, size: Size) -> Tensor:
        """Predicted depth, ``(B, 1, H, W)``."""
        return resized(outputs.predicted_depth[:, None], size)

    def outputs(self, maps: Tensor, like: Any) -> Any:
        """Maps as ``predicted_depth``."""
        return type(like)(predicted_depth=maps[:, 0])

    def predictions(self, outputs: Any, sizes: Sequence[Size]) -> list[np.ndarray]:
        """Depth of each image."""
        source = {"source_sizes": list(sizes)} if self.unpads else {}
        found = self.processor.post_process_depth_estimation(
            outputs, target_sizes=list(sizes), **source
        )
        return [one["predicted_depth"].cpu().numpy() for one in found]

    def unmoved(self, coordinate: Tensor, size: Size) -> Tensor:
        """As the processor does it, where it does more than resize."""
        if not self.unpads:
            return super().unmoved(coordinate, size)
        from transformers.modeling_outputs import DepthEstimatorOutput

        outputs = DepthEstimatorOutput(predicted_depth=coordinate[None])
        found = self.processor.post_process_depth_estimation(
            outputs, source_sizes=[size], target_sizes=[size]
        )
        back: Tensor = found[0]["predicted_depth"]
        return back

    def judged(self, prediction: np.ndarray, truth: np.ndarray) -> tuple[np.ndarray, int]:
        """Errors, and how many pixels they are of."""
        judged = int(judged_pixels(truth, self.protocol).sum())
        return image_errors(prediction, truth, self.protocol), judged

    root = True

    def far(self, prediction: np.ndarray) -> np.ndarray:
        """Depth, or inverse depth with its sign turned."""
        return -prediction if self.protocol.disparity else prediction

    def errors(self, prediction: np.ndarray, truth: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Squared errors of depth as it is judged."""
        judged = judged_pixels(truth, self.protocol)
        true = np.asarray(truth, dtype=np.float64)[judged]
        depth = judged_depth(np.asarray(prediction, dtype=np.float64)[judged], true, self.protocol)
        return (depth - true) ** 2, judged

    def metric(self, statistics: list[Any]) -> DepthErrors:
        """The depth errors."""
        errors, pixels = zip(*statistics)
        return DepthErrors(np.stack(errors).reshape(-1, len(FIGURES)), np.array(pixels))

    def noticed(self, metric: DepthErrors) -> list[str]:
        """Images whose depth is unknown, or out of range, everywhere."""
        empty = int((metric.pixels == 0).sum())
        return [f"depth: images without judged pixels, left out of means: {empty}."] * (empty > 0)


class Semantic(Task):
    """``logits`` ``(B, K, h, w)``.

    Args:
        processor: with ``post_process_semantic_segmentation``.
        classes: names of the K classes.
        ignore_index: label of pixels that are not judged.
    """

    def __init__(self, processor: Any, classes: Sequence[str], ignore_index: int) -> None:
        self.processor = processor
        self.classes = list(classes)
        self.ignore_index = ignore_index

    def maps(self, outputs: Any, size: Size) -> Tensor:
        """Logits, ``(B, K, H, W)``."""
        return resized(outputs.logits, size)

    def outputs(self, maps: Tensor, like: Any) -> Any:
        """Maps as ``logits``."""
        return type(like)(logits=maps)

    def predictions(self, outputs: Any, sizes: Sequence[Size]) -> list[np.ndarray]:
        """Class ids of each image."""
        post = self.processor.post_process_semantic_segmentation
        return [one.cpu().numpy() for one in post(outputs, target_sizes=list(sizes))]

    def judged(self, prediction: np.ndarray, truth: np.ndarray) -> np.ndarray:
        """Pixel counts."""
        return pixel_counts(prediction, truth, len(self.classes), self.ignore_index)

    def errors(self, prediction: np.ndarray, truth: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Which pixels are wrong."""
        judged = truth != self.ignore_index
        return (prediction != truth)[judged], judged

    def doubts(self, outputs: Any, sizes: Sequence[Size]) -> list[Tensor] | None:
        """Those of the softmax of logits, resized as the processor does it."""
        logits = zip(outputs.logits, sizes)
        return [doubt(resized(one[None].float(), size)[0]) for one, size in logits]

    def metric(self, statistics: list[Any]) -> MeanIoU:
        """mIoU, mAcc, aAcc."""
        return MeanIoU(np.stack(statistics), self.classes)


class MaskClassification(Semantic):
    """Masks of queries with a class each (MaskFormer, Mask2Former).

    Dense maps are the semantic scores that the processor's post-processing sums over queries. It
    ends in resizing them and taking the best class, which is then all that is left to do.
    """

    note = (
        "FLOPs and s/image of output ensemble, flip and larger input: with the sum of masks to "
        "scores, which the other rows leave to post-processing."
    )

    def maps(self, outputs: Any, size: Size) -> Tensor:
        """Semantic scores, ``(B, K, H, W)``."""
        found = self.processor.post_process_semantic_segmentation(
            outputs,
            target_sizes=[size] * len(outputs.class_queries_logits),
            return_segmentation_scores=True,
        )
        return torch.stack([one.segmentation_scores for one in found])

    def outputs(self, maps: Tensor, like: Any) -> Any:
        """The scores themselves."""
        return maps

    def predictions(self, outputs: Any, sizes: Sequence[Size]) -> list[np.ndarray]:
        """Class ids of each image."""
        if not isinstance(outputs, Tensor):
            return super().predictions(outputs, sizes)
        scores = [resized(one[None], size)[0] for one, size in zip(outputs, sizes)]
        return [one.argmax(0).cpu().numpy() for one in scores]

    def doubts(self, outputs: Any, sizes: Sequence[Size]) -> list[Tensor] | None:
        """Scores are no probabilities."""
        return None

    def without_maps(self) -> str | None:
        """Scores are given by transformers 5 and later."""
        known = inspect.signature(self.processor.post_process_semantic_segmentation).parameters
        if "return_segmentation_scores" in known:
            return None
        return "this version of transformers gives no semantic scores of mask classification"


def semantic_task(
    outputs: Any, processor: Any, classes: Sequence[str], ignore_index: int
) -> Semantic:
    """The task that a segmentation model's outputs are read by.

    Raises:
        ConfigError: neither logits of pixels nor classified masks.
    """
    logits = outputs.get("logits")
    if isinstance(logits, Tensor) and logits.ndim == 4:
        return Semantic(processor, classes, ignore_index)
    if "class_queries_logits" in outputs and "masks_queries_logits" in outputs:
        return MaskClassification(processor, classes, ignore_index)
    raise ConfigError(
        "Expected a model that returns logits (B, K, h, w), or class_queries_logits and "
        f"masks_queries_logits, got {type(outputs).__name__} with {sorted(outputs)}."
    )


def resized(maps: Tensor, size: Size) -> Tensor:
    """Maps ``(B, K, h, w)`` in another size, bilinear."""
    if maps.shape[-2:] == size:
        return maps
    return F.interpolate(maps, size, mode="bilinear", align_corners=False)
