"""Detectron2's evaluators, with the per-image statistics that intervals need.

Figures are those that the evaluator itself returns. Statistics are taken out of it: COCO's matches
per image, and the growth of the confusion matrix with each image.
"""

from __future__ import annotations

import contextlib
import io
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from detectron2.evaluation import COCOEvaluator, DatasetEvaluator, SemSegEvaluator

from ..core.patch import overridden
from ..errors import ConfigError
from .average_precision import coco_matches
from .calibration import doubt
from .calibration_run import Collected
from .figure import MainFigure
from .metrics import AveragePrecision, LabelledIoU, Metric, Reported

_LABELS = {
    "bbox/AP": "box AP",
    "segm/AP": "mask AP",
    "keypoints/AP": "keypoint AP",
    "sem_seg/mIoU": "mIoU",
    "panoptic_seg/PQ": "PQ",
}
# Main figures by preference, where an evaluator is not known.
_MAIN = ("PQ", "AP", "mIoU", "IoU")
# Per-class figures are named like "AP-tree"; class names may hold hyphens as well.
_OF_CLASS = re.compile(r"(min\(IoU, B-Iou\)|[^-]+)-(.+)")


class Collector:
    """An evaluator of which only the figures are known.

    Args:
        evaluator: of Detectron2.
    """

    can_be_cut = False

    def __init__(self, evaluator: DatasetEvaluator) -> None:
        self.evaluator = evaluator

    def reset(self) -> None:
        """Start a run."""
        self.images: list[Any] = []
        self.evaluator.reset()

    def process(self, inputs: list, outputs: list) -> None:
        """Take the outputs of a batch."""
        self.images += [one.get("image_id") for one in inputs]
        self.evaluator.process(inputs, outputs)

    def evaluate(self, cut: bool = False) -> dict[str, Any]:
        """What the evaluator returns; ``cut`` = only some of the dataset's images were run."""
        # COCO's evaluation prints its own tables.
        with contextlib.redirect_stdout(io.StringIO()):
            return dict(self._evaluated(cut) or {})

    def _evaluated(self, cut: bool) -> Any:
        return self.evaluator.evaluate()

    def metrics(self, reported: Mapping[str, Any]) -> list[Metric]:
        """The metrics of what :meth:`evaluate` returned."""
        made = []
        for task, values in reported.items():
            figures, classes = _split(task, values)
            if figures:
                made.append(self._metric(task, figures, classes))
        return made

    def _metric(self, task: str, figures: dict, classes: dict) -> Metric:
        names = [f"{task}/{name}" for name in _MAIN]
        main = next((name for name in names if name in figures), next(iter(figures)))
        return Reported(_main(main, figures), len(self.images), figures, classes)


class CocoCollector(Collector):
    """COCO's AP of boxes, masks and keypoints, with matches per image."""

    can_be_cut = True

    def reset(self) -> None:
        """Start a run."""
        super().reset()
        self.found: dict[str, Any] = {}

    def _evaluated(self, cut: bool) -> Any:
        evaluator: Any = self.evaluator
        derive = evaluator._derive_coco_results

        def kept(coco_eval: Any, iou_type: str, class_names: Any = None) -> Any:
            self.found[iou_type] = coco_eval
            return derive(coco_eval, iou_type, class_names=class_names)

        with overridden(evaluator, "_derive_coco_results", kept):
            return evaluator.evaluate(img_ids=self.images if cut else None)

    def _metric(self, task: str, figures: dict, classes: dict) -> Metric:
        coco_eval = self.found.get(task)
        main = f"{task}/AP"
        if coco_eval is None or main not in figures:
            return super()._metric(task, figures, classes)
        with contextlib.redirect_stdout(io.StringIO()):
            matches = coco_matches(coco_eval)
        return AveragePrecision(_main(main, figures), figures, classes, matches)


class SemSegCollector(Collector):
    """mIoU with a confusion matrix per image.

    Attributes:
        calibration: collects that of each image; None = not asked for.
        logits: outputs are logits, and not scores of another kind.
    """

    can_be_cut = True
    calibration: Collected | None = None
    logits = True

    def reset(self) -> None:
        """Start a run."""
        super().reset()
        self.confusions: list[np.ndarray] = []
        if self.calibration is not None:
            self.calibration.start()

    def process(self, inputs: list, outputs: list) -> None:
        """Take the outputs of a batch, one by one."""
        evaluator: Any = self.evaluator
        for one, output in zip(inputs, outputs):
            before = evaluator._conf_matrix.copy()
            super().process([one], [output])
            self.confusions.append(evaluator._conf_matrix - before)
            if self.calibration is not None:
                self._calibrate(self.calibration, one, output)

    def _calibrate(self, calibration: Collected, one: dict, output: dict) -> None:
        evaluator: Any = self.evaluator
        path = evaluator.input_file_to_gt_file[one["file_name"]]
        truth = np.asarray(evaluator.sem_seg_loading_fn(path, dtype=int))
        logits = output["sem_seg"]
        wrong = logits.argmax(0).cpu().numpy() != truth
        calibration.add(
            wrong,
            truth != evaluator._ignore_label,
            doubt(logits) if self.logits else None,
            output.get("srt_dispersion"),
        )

    def _metric(self, task: str, figures: dict, classes: dict) -> Metric:
        main = f"{task}/mIoU"
        if main not in figures:
            return super()._metric(task, figures, classes)
        areas = np.stack([_areas(one) for one in self.confusions])
        return LabelledIoU(_main(main, figures), figures, classes, areas)


def collectors(evaluators: Sequence[Any], limit: int | None) -> list[Collector]:
    """A collector for each evaluator.

    Raises:
        ConfigError: not an evaluator, one without labels, or one that cannot be cut to a limit.
    """
    made: list[Collector] = []
    for one in evaluators:
        name = type(one).__name__
        if not isinstance(one, DatasetEvaluator):
            raise ConfigError(
                f"Expected dataloader.evaluator to be a DatasetEvaluator, got {name}; "
                "COCOEvaluator and SemSegEvaluator give intervals, others their figures."
            )
        if isinstance(one, COCOEvaluator):
            if not one._do_evaluation:
                raise ConfigError(
                    "Expected a dataset with labels, but its annotation file has no "
                    "'annotations'; use a labelled one with --dataset (dataset=...)."
                )
            made.append(CocoCollector(one))
        elif isinstance(one, SemSegEvaluator):
            made.append(SemSegCollector(one))
        else:
            made.append(Collector(one))
        if limit is not None and not made[-1].can_be_cut:
            raise ConfigError(
                f"Expected no limit with {name}, which evaluates whole datasets; leave --limit out."
            )
    return made


def _main(name: str, figures: Mapping[str, float]) -> MainFigure:
    beside = tuple(other for other in figures if other != name)
    return MainFigure(name, _LABELS.get(name, name), beside=beside)


def _split(task: str, values: Any) -> tuple[dict[str, float], dict[str, dict[str, float]]]:
    """Figures of a task, and those of each class, by figure."""
    if not isinstance(values, Mapping):
        return ({task: float(values)} if isinstance(values, (int, float)) else {}), {}
    figures: dict[str, float] = {}
    classes: dict[str, dict[str, float]] = {}
    for name, value in values.items():
        if not isinstance(value, (int, float, np.floating)):
            continue
        match = _OF_CLASS.fullmatch(str(name))
        if match:
            classes.setdefault(f"{task}/{match[1]} per class", {})[match[2]] = float(value)
        else:
            figures[f"{task}/{name}"] = float(value)
    return figures, classes


def _areas(confusion: np.ndarray) -> np.ndarray:
    """``(4, C)`` pixel counts of a ``(C + 1, C + 1)`` matrix ``[predicted, labelled]``, whose last
    row and column are the pixels without a label.
    """
    inside = confusion[:-1, :-1].astype(np.float64)
    right, predicted, labelled = inside.diagonal(), inside.sum(1), inside.sum(0)
    return np.stack([right, predicted + labelled - right, predicted, labelled])
