"""The comparison for Detectron2: every row is one run of Detectron2's own test loop."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..core.patch import overridden
from ..core.translate import check_padding
from ..core.views import Views
from ..wrapper import srt_enabled
from .bootstrap import RESAMPLES
from .detectron2_config import Options, import_detectron2
from .detectron2_session import Session
from .environment import circumstances
from .methods import flip, larger_input, output_ensemble
from .results import Comparison, compare
from .rows import Row, RowArg, check_skip, keywords, plan
from .runs import Progress, Runs, asked_settings, default_settings, views_of


def compare_detectron2(
    cfg: Any,
    checkpoint: str | Path,
    rows: Sequence[RowArg] | None = None,
    *,
    extra_rows: Sequence[RowArg] = (),
    dataset: str | None = None,
    target: str | None = None,
    complete: str | None = None,
    skip: Sequence[str] = (),
    limit: int | None = None,
    batch_size: int | None = None,
    workers: int = 0,
    device: str | None = None,
    seed: int = 0,
    resamples: int = RESAMPLES,
    trust_checkpoint: bool = False,
    cfg_options: Options = None,
    progress: Progress | None = None,
) -> Comparison:
    """Run a model with and without SRT, and with what SRT must beat, on the test data of a config.

    Args:
        cfg: path of a yacs config (``.yaml``) or of a LazyConfig (``.py``) with ``model``,
            ``dataloader.test`` and ``dataloader.evaluator``, or such a config itself.
        checkpoint: weights, as Detectron2's checkpointer takes them.
        rows: SRT rows, each :class:`~srt_plugins.Settings` or a dict of its keywords. None = the
            default views without and with smoothing, or, where the config wraps its backbone, the
            config's settings. The output ensemble and the larger input use the views of the first.
        extra_rows: more SRT rows after those.
        dataset: name of a registered dataset, or of procedural scenes such as
            ``"scenes_val_200_320x480"``; None = as the config says.
        target: part of the backbone to ensemble instead of the whole, as a module path (``"net"``
            of a ViTDet pyramid, ``"bottom_up"`` of an FPN); None = as the config says.
        complete: ``"zeros" | "replicate" | "reflect"``: how partial patches are completed, in every
            row; None = as the model does.
        skip: rows to leave out: ``"controls"``, ``"oe"``, ``"flip"``, ``"larger"``.
        limit: first so many images; None = all.
        batch_size: images per batch; None = as the config says.
        workers: processes that load data.
        device: torch device; None = a GPU if there is one.
        seed: of the bootstrap, and of weights that the checkpoint lacks.
        resamples: bootstrap resamples.
        trust_checkpoint: load a checkpoint that may run code.
        cfg_options: overrides in the config's own syntax (``["KEY", "VALUE"]`` or
            ``["key=value"]``), or a dict by dotted key.
        progress: see :data:`srt_plugins.evaluation.runs.Progress`.

    Returns:
        All figures, with intervals; ``.save(path)`` writes JSON.

    Raises:
        SRTError: a bad argument, config or checkpoint; nothing has been measured by then.
    """
    left_out = check_skip(skip)
    path = str(checkpoint).partition("?")[0]  # Detectron2 takes options as a query
    asked, extra = asked_settings(rows, extra_rows, path)
    if complete is not None:
        check_padding(complete)
    import_detectron2()
    from .detectron2_checkpoint import load_detectron2_weights

    with Session(
        cfg,
        options=cfg_options,
        dataset=dataset,
        limit=limit,
        batch_size=batch_size,
        workers=workers,
        device=device,
        seed=seed,
    ) as session:
        loaded = load_detectron2_weights(session.model, checkpoint, trust_checkpoint)
        own, own_target = session.take_settings()
        target = own_target if target is None else target
        settings = (default_settings(own) if asked is None else asked) + extra
        with session.completed(complete):
            srt = [
                (s, views_of(session, s, srt_enabled(session.model, target=target, **keywords(s))))
                for s in settings
            ]
        runs = DetectorRuns(session, complete, target, srt[0][1])
        planned = plan(
            srt,
            left_out | runs.without_counterpart(),
            complete not in (None, "zeros"),
            complete is None and session.replicating_matters(),
        )
        warning = loaded.warning()
        notes = [*session.notes, *([warning] if warning else []), *runs.reasons(left_out)]
        if not runs.dense:
            notes.append("FLOPs: of the first image; a detector's vary with how much it finds.")
        if complete is not None and any(row.method == "flip" for row in planned):
            notes += [] if runs.dense else [_TTA_PADS]
        planned, flops = runs.tried(planned, notes)
        measured = runs.all_measured(planned, flops, session.images, progress)
        found = compare(measured, session.classes, seed=seed, resamples=resamples)
        found.notes = notes
        found.context = {
            "config": str(cfg) if isinstance(cfg, (str, Path)) else type(cfg).__name__,
            "checkpoint": str(checkpoint),
            "dataset": session.dataset_name,
            "meta_architecture": type(session.model).__name__,
            "target": target,
            "complete": complete or "zeros",
            "limit": limit,
            "seed": seed,
            "resamples": resamples,
            "batch_size": session.loader.batch_size,
            "cfg_options": cfg_options if isinstance(cfg_options, dict) else [*(cfg_options or ())],
            **circumstances(loaded, session.device),
        }
        return found


_TTA_PADS = "flip TTA: Detectron2's own, which pads as the model does, whatever was asked."


class DetectorRuns(Runs):
    """Runs rows on a Detectron2 model.

    Args:
        session: model and data.
        complete: how partial patches are completed, None = as the model does.
        target: part of the backbone that is ensembled, None = the whole.
        views: those of the output ensemble, whose number the larger input matches.
    """

    session: Session

    def __init__(
        self, session: Session, complete: str | None, target: str | None, views: Views
    ) -> None:
        super().__init__(session, complete, views)
        self.target = target
        self.dense = session.outputs == {"sem_seg"}

    def without_counterpart(self) -> frozenset[str]:
        """Rows that there cannot be for this model."""
        return frozenset(self._reasons())

    def reasons(self, skip: frozenset[str]) -> list[str]:
        """Why those rows are left out, of those that were not skipped anyway."""
        return [text for row, text in self._reasons().items() if row not in skip]

    def _reasons(self) -> dict[str, str]:
        from .detectron2_methods import why_no_flip_tta

        if self.dense:
            return {}
        found = {
            "oe": "output ensemble (OE): left out, outputs with instances have no mean over views."
        }
        reason = why_no_flip_tta(self.session.model)
        if reason:
            found["flip"] = f"flip TTA: left out, {reason}."
        return found

    def method(self, row: Row) -> AbstractContextManager[Any]:
        """While active, the session's model is run by the row's method."""
        if row.method == "srt":
            assert row.settings is not None
            return srt_enabled(self.session.model, target=self.target, **keywords(row.settings))
        return nullcontext() if row.method == "plain" else self._rival(row)

    @contextmanager
    def _rival(self, row: Row) -> Iterator[None]:
        from .detectron2_methods import (
            flip_tta,
            larger_images,
            larger_square,
            multiple_of,
            on_logits,
        )

        session, model = self.session, self.session.model
        square: AbstractContextManager[None] = nullcontext()
        if row.method == "oe":
            assert row.settings is not None
            padding, view_batch = row.settings.padding, row.settings.view_batch
            method = on_logits(model, output_ensemble(self.views, padding, view_batch))
        elif row.method == "flip":
            method = on_logits(model, flip) if self.dense else flip_tta(model)
        else:
            square = larger_square(model, self.scale)
            multiple = multiple_of(model)
            if self.dense:
                method = on_logits(model, larger_input(self.scale, multiple))
            else:
                method = larger_images(self.scale, multiple)
        call = session.call
        with square, overridden(session, "call", lambda batch: method(call, batch)):
            yield

    def _matched(self, row: Row, plain: int, srt: int) -> Row:
        # What SRT does cost: a detector's heads run once, whatever the number of views.
        from .detectron2_methods import matched_scale

        def cost(scale: float) -> int:
            self.scale = scale
            return self._count(row)

        self.scale = matched_scale(cost, plain, srt)
        return replace(row, name=f"{row.name}, x{self.scale:.3g} per side")
