"""The comparison itself: every row is one run of MMSegmentation's own test loop."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

from ..adapters import describe, find_backbone
from ..wrapper import srt_enabled
from .bootstrap import RESAMPLES
from .checkpoint import load_weights
from .environment import circumstances
from .methods import flip, inference_by, larger_input, output_ensemble
from .mmseg_session import Session
from .results import Comparison, compare
from .rows import Row, RowArg, check_skip, keywords, plan
from .runs import Progress, Runs, asked_settings, default_settings, views_of


def compare_mmseg(
    cfg: Any,
    checkpoint: str | Path,
    rows: Sequence[RowArg] | None = None,
    *,
    extra_rows: Sequence[RowArg] = (),
    complete: str | None = None,
    skip: Sequence[str] = (),
    limit: int | None = None,
    batch_size: int | None = None,
    workers: int = 0,
    device: str | None = None,
    seed: int = 0,
    resamples: int = RESAMPLES,
    trust_checkpoint: bool = False,
    cfg_options: dict[str, Any] | None = None,
    progress: Progress | None = None,
) -> Comparison:
    """Run a model with and without SRT, and with what SRT must beat, on the test data of a config.

    Args:
        cfg: path of a config with test data, or an MMEngine ``Config``: a segmentor with
            ``IoUMetric``, or a ``DepthEstimator`` with ``DepthMetric``.
        checkpoint: weights.
        rows: SRT rows, each :class:`~srt_plugins.Settings` or a dict of its keywords. None = the
            default views without and with smoothing, or, where the config wraps its backbone, the
            config's settings. The output ensemble and the larger input use the views of the first.
        extra_rows: more SRT rows after those.
        complete: ``"zeros" | "replicate" | "reflect"``: how the preprocessor completes partial
            patches, in every row; None = as the config says.
        skip: rows to leave out: ``"controls"``, ``"oe"``, ``"flip"``, ``"larger"``.
        limit: first so many images; None = all.
        batch_size: images per batch; None = as the config says.
        workers: processes that load data.
        device: torch device; None = a GPU if there is one.
        seed: of the bootstrap and of MMEngine.
        resamples: bootstrap resamples.
        trust_checkpoint: load a checkpoint that holds more than plain tensors; this runs code
            from the file.
        cfg_options: overrides of the config, by dotted key.
        progress: see :data:`srt_plugins.evaluation.runs.Progress`.

    Returns:
        All figures, with intervals; ``.save(path)`` writes JSON.

    Raises:
        SRTError: a bad argument, config or checkpoint; nothing has run by then.
    """
    left_out = check_skip(skip)
    asked, extra = asked_settings(rows, extra_rows, checkpoint)
    with Session(
        cfg,
        options=cfg_options,
        limit=limit,
        batch_size=batch_size,
        workers=workers,
        device=device,
        seed=seed,
    ) as session:
        loaded = load_weights(session.model, checkpoint, trust_checkpoint)
        own = session.take_settings()
        session.check()
        settings = (default_settings(own) if asked is None else asked) + extra
        with session.completed(complete):
            srt = [
                (s, views_of(session, s, srt_enabled(session.model, **keywords(s))))
                for s in settings
            ]
        own_padding = complete is not None and complete != session.own_padding()
        free_padding = complete is None and session.replicating_matters()
        planned = plan(srt, left_out, own_padding, free_padding)
        runs = SegmentorRuns(session, complete, srt[0][1])
        notes = [text for text in (loaded.warning(),) if text]
        planned, flops = runs.tried(planned, notes)
        measured = runs.all_measured(planned, flops, len(session.dataset), progress)
        found = compare(measured, session.classes, seed=seed, resamples=resamples)
        found.notes = notes + session.notes()
        found.context = {
            "config": str(cfg if isinstance(cfg, (str, Path)) else cfg.filename),
            "checkpoint": str(checkpoint),
            "complete": complete or session.own_padding(),
            "limit": limit,
            "seed": seed,
            "resamples": resamples,
            "batch_size": session.cfg.test_dataloader.get("batch_size", 1),
            "cfg_options": {str(k): str(v) for k, v in (cfg_options or {}).items()},
            **session.record(),
            **circumstances(loaded, session.device),
        }
        return found


class SegmentorRuns(Runs):
    """Runs rows on a segmentor."""

    def method(self, row: Row) -> AbstractContextManager[Any]:
        """While active, the session's model is run by the row's method."""
        model = self.session.model
        if row.method == "srt":
            assert row.settings is not None
            return srt_enabled(model, **keywords(row.settings))
        if row.method == "oe":
            assert row.settings is not None
            padding, view_batch = row.settings.padding, row.settings.view_batch
            return inference_by(model, output_ensemble(self.views, padding, view_batch))
        if row.method == "flip":
            return inference_by(model, flip)
        if row.method == "larger":
            patch = describe(find_backbone(model)).patch or 1
            return inference_by(model, larger_input(self.scale, patch))
        return nullcontext()
