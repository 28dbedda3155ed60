"""The comparison for Detectron2: every row is one run of Detectron2's own test loop."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

from ..core.patch import overridden
from ..core.translate import check_padding
from ..core.views import Views
from ..settings import Settings
from ..wrapper import srt_enabled
from .detectron2_config import Options, import_detectron2
from .detectron2_session import Session
from .environment import circumstances
from .files import check_file
from .methods import flip, larger_input, output_ensemble
from .request import Request
from .results import Comparison
from .rows import Row, RowArg, keywords, plan
from .runs import Runs, views_of


def compare_detectron2(
    cfg: Any,
    checkpoint: str | Path,
    rows: Sequence[RowArg] | None = None,
    *,
    dataset: str | None = None,
    target: str | None = None,
    complete: str | None = None,
    cfg_options: Options = None,
    **options: Any,
) -> Comparison:
    """Run a model with and without SRT, and with what SRT must beat, on the test data of a config.

    Args:
        cfg: path of a yacs config (``.yaml``) or of a LazyConfig (``.py``) with ``model``,
            ``dataloader.test`` and ``dataloader.evaluator``, or such a config itself.
        checkpoint: weights, as Detectron2's checkpointer takes them.
        rows: SRT rows; see :class:`.request.Request`.
        dataset: name of a registered dataset, or of procedural scenes such as
            ``"scenes_val_200_320x480"``; None = as the config says.
        target: part of the backbone to ensemble instead of the whole, as a module path (``"net"``
            of a ViTDet pyramid, ``"bottom_up"`` of an FPN); None = as the config says.
        complete: ``"zeros" | "replicate" | "reflect"``: how partial patches are completed, in every
            row; None = as the model does.
        cfg_options: overrides in the config's own syntax (``["KEY", "VALUE"]`` or
            ``["key=value"]``), or a dict by dotted key.
        **options: ``extra_rows, skip, limit, batch_size, workers, device, seed, resamples,
            trust_checkpoint, calibration, progress``; see :class:`.request.Request`.

    Returns:
        All figures, with intervals; ``.save(path)`` writes JSON.

    Raises:
        SRTError: a bad argument, config or checkpoint; nothing has been measured by then.
    """
    request = Request.of(rows, options)
    check_file("checkpoint", str(checkpoint).partition("?")[0])  # Detectron2 takes a query as well
    if complete is not None:
        check_padding(complete)
    import_detectron2()
    from .detectron2_checkpoint import load_detectron2_weights

    with Session(cfg, request, cfg_options, dataset) as session:
        loaded = load_detectron2_weights(session.model, checkpoint, request.trust_checkpoint)
        own, own_target = session.take_settings()
        target = own_target if target is None else target
        settings = request.settings(own)
        with session.completed(complete):
            srt = [
                (s, views_of(session, s, srt_enabled(session.model, target=target, **keywords(s))))
                for s in settings
            ]
        runs = DetectorRuns(session, complete, target, srt[0][1])
        planned = plan(
            srt,
            request.left_out | runs.without_counterpart(),
            complete not in (None, "zeros"),
            complete is None and session.replicating_matters(),
        )
        warning = loaded.warning()
        reasons = runs.reasons(request.left_out)
        notes = [*session.notes, *([warning] if warning else []), *reasons]
        if not runs.dense:
            notes.append("FLOPs: of the first image; a detector's vary with how much it finds.")
        if complete is not None and any(row.method == "flip" for row in planned):
            notes += [] if runs.dense else [_TTA_PADS]
        found = runs.compared(planned, notes, request)
        found.context = {
            "config": str(cfg) if isinstance(cfg, (str, Path)) else type(cfg).__name__,
            "checkpoint": str(checkpoint),
            "dataset": session.dataset_name,
            "meta_architecture": type(session.model).__name__,
            "target": target,
            "complete": complete or "zeros",
            **request.record(),
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
            return self._srt(row.settings)
        return nullcontext() if row.method == "plain" else self._rival(row)

    @contextmanager
    def _srt(self, settings: Settings) -> Iterator[None]:
        from ..detectron2.uncertainty import dispersion_in_outputs

        model = self.session.model
        handed = dispersion_in_outputs if settings.dispersion else nullcontext
        with srt_enabled(model, target=self.target, **keywords(settings)), handed(model):
            yield

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
        told = None if session.calibration is None else session.calibration.told
        spread = None if session.calibration is None else session.calibration.spread
        square: AbstractContextManager[None] = nullcontext()
        if row.method == "oe":
            assert row.settings is not None
            padding, view_batch = row.settings.padding, row.settings.view_batch
            whole = output_ensemble(self.views, padding, view_batch, told)
            method = on_logits(model, whole, spread)
        elif row.method == "flip":
            both = on_logits(model, partial(flip, told=told), spread)
            method = both if self.dense else flip_tta(model)
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
