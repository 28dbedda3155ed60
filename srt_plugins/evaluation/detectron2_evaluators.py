"""Which of Detectron2's evaluators a config and its dataset ask for."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from typing import Any

from ..errors import ConfigError
from .detectron2_config import evaluator_nodes

# What evaluates a dataset's "evaluator_type" whatever the model returns; read from Detectron2.
_OTHER_EVALUATORS = {
    "cityscapes_instance": "CityscapesInstanceEvaluator",
    "cityscapes_sem_seg": "CityscapesSemSegEvaluator",
    "pascal_voc": "PascalVOCDetectionEvaluator",
    "lvis": "LVISEvaluator",
}
_COCO_TYPES = ("coco", "coco_panoptic_seg", "sem_seg", "ade20k_panoptic_seg")


def yacs_evaluators(
    dataset: str | None, outputs: frozenset[str], sample: dict, folder: str, notes: list[str]
) -> list:
    """The evaluators that Detectron2's train_net.py would take, and that the model can use."""
    from detectron2 import evaluation
    from detectron2.data import MetadataCatalog

    metadata = MetadataCatalog.get(dataset)
    kind = metadata.get("evaluator_type")
    if kind in _OTHER_EVALUATORS:
        make = getattr(evaluation, _OTHER_EVALUATORS[kind])
        return [make(dataset, output_dir=folder) if kind == "lvis" else make(dataset)]
    if kind not in _COCO_TYPES:
        raise ConfigError(
            f"Expected {dataset} to have an evaluator_type that is supported "
            f"({', '.join((*_COCO_TYPES, *_OTHER_EVALUATORS))}), got {kind!r}; set "
            f"MetadataCatalog.get({dataset!r}).evaluator_type."
        )
    made = []
    labelled = "sem_seg" in sample or "sem_seg_file_name" in sample
    if "sem_seg" in outputs and labelled and metadata.get("stuff_classes"):
        made.append(evaluation.SemSegEvaluator(dataset, output_dir=folder))
    if "instances" in outputs and kind != "sem_seg":
        made.append(evaluation.COCOEvaluator(dataset, output_dir=folder))
    if "panoptic_seg" in outputs and kind.endswith("panoptic_seg"):
        if importlib.util.find_spec("panopticapi"):
            made.append(evaluation.COCOPanopticEvaluator(dataset, folder))
        else:
            notes.append("PQ: left out, panopticapi is not installed.")
    if not made:
        raise ConfigError(
            f"Expected {dataset} (evaluator_type {kind!r}) to have labels for what the model "
            f"returns, {', '.join(sorted(outputs))}; name another dataset with --dataset."
        )
    return made


def lazy_evaluators(cfg: Any, folder: str) -> list:
    """The evaluators of a LazyConfig, writing to ``folder``."""
    from detectron2.config import instantiate
    from detectron2.evaluation import DatasetEvaluators

    for node in evaluator_nodes(cfg):
        if "output_dir" in node or "COCOEvaluator" in str(node.get("_target_")):
            node["output_dir"] = folder
    made = instantiate(cfg.dataloader.evaluator)
    if isinstance(made, DatasetEvaluators):
        return list(made._evaluators)
    return list(made) if isinstance(made, Sequence) else [made]


def keep_from_writing(evaluators: list) -> None:
    """No files of predictions, where the evaluator does not read them again itself."""
    from detectron2.evaluation import COCOEvaluator, SemSegEvaluator

    for evaluator in evaluators:
        if isinstance(evaluator, (COCOEvaluator, SemSegEvaluator)):
            evaluator._output_dir = None


def check_evaluators(collectors: list, inputs: list, outputs: list) -> None:
    """Raise :class:`ConfigError` unless the evaluators take what the model returns."""
    for collector in collectors:
        try:
            collector.reset()
            collector.process(inputs, outputs)
        except Exception as error:
            raise ConfigError(
                f"Expected {type(collector.evaluator).__name__} to take what the model returns, "
                f"{', '.join(sorted(outputs[0]))}, got {type(error).__name__}: "
                f"{' '.join(str(error).split())}."
            ) from error
        collector.reset()
