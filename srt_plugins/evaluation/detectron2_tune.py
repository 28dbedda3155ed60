"""Tuning on the data of a Detectron2 config, by Detectron2's own evaluation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..core.translate import check_padding
from ..errors import ConfigError
from .detectron2_compare import DetectorRuns
from .detectron2_config import Options, import_detectron2, read_config
from .detectron2_session import Session
from .environment import circumstances
from .files import check_file
from .request import Request
from .tune import ONE_VIEW, Plan, Tuning, tuned


def tune_detectron2(
    cfg: Any,
    checkpoint: str | Path,
    plan: Plan | None = None,
    *,
    dataset: str | None = None,
    target: str | None = None,
    complete: str | None = None,
    cfg_options: Options = None,
    **options: Any,
) -> Tuning:
    """Choose settings on a few labelled images of a config's data.

    Args:
        cfg: path of a yacs config or of a LazyConfig, or such a config itself.
        checkpoint: weights.
        plan: how many images, and what is tried; None = 10 images, a budget of 5 forwards.
        dataset: name of a registered dataset, or of procedural scenes; None = as the config says.
        target: part of the backbone to ensemble; None = as the config says.
        complete: how partial patches are completed; None = as the model does.
        cfg_options: overrides in the config's own syntax.
        **options: ``batch_size, workers, device, seed, resamples, trust_checkpoint, progress``; see
            :class:`.request.Request`.

    Raises:
        SRTError: a bad argument, config or checkpoint; nothing has been measured by then.
    """
    plan = plan or Plan()
    if not plan.labels:
        raise ConfigError(
            "Expected labels=True with a model of Detectron2, whose evaluators read labels from "
            "files themselves; srt tune mmseg and srt tune transformers take images without labels."
        )
    request = Request.of(None, options)
    check_file("checkpoint", str(checkpoint).partition("?")[0])  # Detectron2 takes a query as well
    if complete is not None:
        check_padding(complete)
    import_detectron2()
    from .detectron2_checkpoint import load_detectron2_weights

    with Session(cfg, request, cfg_options, dataset) as session:
        loaded = load_detectron2_weights(session.model, checkpoint, request.trust_checkpoint)
        _, own_target = session.take_settings()
        target = own_target if target is None else target
        images = _reduce(session, plan, request)
        warning = loaded.warning()
        notes = [*session.notes, *([warning] if warning else [])]
        runs = DetectorRuns(session, complete, target, ONE_VIEW)
        found = tuned(runs, session.loader.dataset, images, plan, request, notes)
        found.context = {
            "config": str(cfg) if isinstance(cfg, (str, Path)) else type(cfg).__name__,
            "checkpoint": str(checkpoint),
            "builder": _builder(cfg, cfg_options),
            "dataset": session.dataset_name,
            "target": target,
            "complete": complete or "zeros",
            "seed": request.seed,
            "cfg_options": cfg_options if isinstance(cfg_options, dict) else [*(cfg_options or ())],
            **found.context,
            **circumstances(loaded, session.device),
        }
        return found


def _builder(cfg: Any, options: Options) -> str | None:
    """Name of the builder of a yacs config's backbone, below SRT; None for a LazyConfig."""
    read = read_config(cfg, options)
    if "MODEL" not in read:
        return None
    name = str(read.MODEL.BACKBONE.NAME)
    return str(read.MODEL.SRT.BACKBONE) if name == "build_srt_backbone" else name


def _reduce(session: Session, plan: Plan, request: Request) -> list[int]:
    """Cut a session's data to the images that choose; their indices."""
    from detectron2.data import build_detection_test_loader
    from torch.utils.data import Subset

    data = session.loader.dataset
    images = plan.spread(len(data))
    if len(images) == len(data):
        return images
    for collector in session.collectors:
        if not collector.can_be_cut:
            raise ConfigError(
                f"Expected an evaluator that judges some of a dataset's images, got "
                f"{type(collector.evaluator).__name__}, which judges whole datasets; --images "
                f"{len(data)} (images=...) takes all."
            )
    session.loader = build_detection_test_loader(
        dataset=Subset(data, images),
        mapper=None,
        batch_size=session.loader.batch_size or 1,
        num_workers=request.workers,
        collate_fn=session.loader.collate_fn,
    )
    session.cut = True
    return images
