"""Tuning on the validation data of an MMSegmentation config, by MMSegmentation's own evaluation."""

from __future__ import annotations

import copy
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..errors import ConfigError
from .checkpoint import load_weights
from .environment import circumstances
from .files import check_file
from .mmseg_compare import SegmentorRuns
from .mmseg_config import import_mmseg, read_config
from .mmseg_session import Session
from .mmseg_unlabelled import references, take_labels_away
from .request import Request
from .tune import ONE_VIEW, Plan, Tuning, tuned


def tune_mmseg(
    cfg: Any,
    checkpoint: str | Path,
    plan: Plan | None = None,
    *,
    complete: str | None = None,
    images_from: str | Path | None = None,
    cfg_options: dict[str, Any] | None = None,
    **options: Any,
) -> Tuning:
    """Choose settings on a few images of a config's validation data.

    Args:
        cfg: path of a config, or an MMEngine ``Config``. ``val_dataloader`` and ``val_evaluator``
            are used; where it has none, those of the test.
        checkpoint: weights.
        plan: how many images, what is tried, and whether by labels; None = 10 labelled images, a
            budget of 5 forwards.
        complete: how the preprocessor completes partial patches; None = as the config says.
        images_from: a folder of images in place of the config's, without labels.
        cfg_options: overrides of the config, by dotted key.
        **options: ``batch_size, workers, device, seed, resamples, trust_checkpoint, progress``; see
            :class:`.request.Request`.

    Raises:
        SRTError: a bad argument, config or checkpoint; nothing has run by then.
    """
    plan = plan or Plan()
    if images_from is not None:
        plan = replace(plan, labels=False)
    request = Request.of(None, options)
    check_file("checkpoint", checkpoint)
    import_mmseg()
    read = read_config(cfg, cfg_options)
    on = _validating(read)
    if not plan.labels:
        take_labels_away(read, images_from)
    with ExitStack() as stack, Session(read, request) as session:
        loaded = load_weights(session.model, checkpoint, request.trust_checkpoint)
        session.take_settings()
        images = _reduce(session, plan, request)
        runs = SegmentorRuns(session, complete, ONE_VIEW)
        if not plan.labels:
            stack.enter_context(references(session, runs))
        session.check()
        warning = loaded.warning()
        found = tuned(runs, session.dataset, images, plan, request, [warning] if warning else [])
        found.notes += session.notes()
        found.context = {
            "config": str(cfg if isinstance(cfg, (str, Path)) else cfg.filename),
            "checkpoint": str(checkpoint),
            "data": on if images_from is None else str(images_from),
            "complete": complete or session.own_padding(),
            "seed": request.seed,
            "cfg_options": {str(k): str(v) for k, v in (cfg_options or {}).items()},
            **found.context,
            **circumstances(loaded, session.device),
        }
        return found


def _validating(cfg: Any) -> str:
    """Put a config's validation data in the place of its test data; says which it has."""
    if cfg.get("val_dataloader") is None or cfg.get("val_evaluator") is None:
        return "test_dataloader"
    cfg.test_dataloader, cfg.test_evaluator = cfg.val_dataloader, cfg.val_evaluator
    if cfg.get("test_cfg") is None:
        cfg.test_cfg = {"type": "TestLoop"}
    return "val_dataloader"


def _reduce(session: Session, plan: Plan, request: Request) -> list[int]:
    """Cut a session's data to the images that choose; their indices."""
    from mmengine.dataset import BaseDataset

    images = plan.spread(len(session.dataset))
    if len(images) == len(session.dataset):
        return images
    if not isinstance(session.dataset, BaseDataset):
        raise ConfigError(
            f"Expected a dataset of which images can be taken, got "
            f"{type(session.dataset).__name__}; --images {len(session.dataset)} (images=...) takes "
            "all."
        )
    session.dataset.get_subset_(images)
    loader = copy.copy(session.cfg.test_dataloader)
    loader.dataset = session.dataset
    built = session.runner.build_dataloader(loader, request.seed)
    session.runner.test_loop.dataloader, session.dataset = built, built.dataset
    return images
