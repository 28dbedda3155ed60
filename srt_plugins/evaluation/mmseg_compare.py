"""The comparison itself: every row is one run of MMSegmentation's own test loop."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

from ..adapters import describe, find_backbone
from ..settings import Settings
from ..wrapper import srt_enabled
from .checkpoint import load_weights
from .environment import circumstances
from .files import check_file
from .methods import Method, flip, inference_by, larger_input, output_ensemble
from .mmseg_session import Session
from .request import Request
from .results import Comparison
from .rows import Row, RowArg, keywords, plan
from .runs import Runs, views_of


def compare_mmseg(
    cfg: Any,
    checkpoint: str | Path,
    rows: Sequence[RowArg] | None = None,
    *,
    complete: str | None = None,
    cfg_options: dict[str, Any] | None = None,
    **options: Any,
) -> Comparison:
    """Run a model with and without SRT, and with what SRT must beat, on the test data of a config.

    Args:
        cfg: path of a config with test data, or an MMEngine ``Config``: a segmentor with
            ``IoUMetric``, or a ``DepthEstimator`` with ``DepthMetric``.
        checkpoint: weights.
        rows: SRT rows; see :class:`.request.Request`.
        complete: ``"zeros" | "replicate" | "reflect"``: how the preprocessor completes partial
            patches, in every row; None = as the config says.
        cfg_options: overrides of the config, by dotted key.
        **options: ``extra_rows, skip, limit, batch_size, workers, device, seed, resamples,
            trust_checkpoint, calibration, progress``; see :class:`.request.Request`.

    Returns:
        All figures, with intervals; ``.save(path)`` writes JSON.

    Raises:
        SRTError: a bad argument, config or checkpoint; nothing has run by then.
    """
    request = Request.of(rows, options)
    check_file("checkpoint", checkpoint)
    with Session(cfg, request, cfg_options) as session:
        loaded = load_weights(session.model, checkpoint, request.trust_checkpoint)
        settings = request.settings(session.take_settings())
        session.check()
        with session.completed(complete):
            srt = [
                (s, views_of(session, s, srt_enabled(session.model, **keywords(s))))
                for s in settings
            ]
        own_padding = complete is not None and complete != session.own_padding()
        free_padding = complete is None and session.replicating_matters()
        planned = plan(srt, request.left_out, own_padding, free_padding)
        notes = [text for text in (loaded.warning(),) if text]
        found = SegmentorRuns(session, complete, srt[0][1]).compared(planned, notes, request)
        found.notes += session.notes()
        found.context = {
            "config": str(cfg if isinstance(cfg, (str, Path)) else cfg.filename),
            "checkpoint": str(checkpoint),
            "complete": complete or session.own_padding(),
            **request.record(),
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
        model, calibration = self.session.model, self.session.calibration
        told = None if calibration is None else calibration.told
        if row.method == "srt":
            assert row.settings is not None
            return _srt(model, row.settings)
        if row.method == "oe":
            assert row.settings is not None
            padding, view_batch = row.settings.padding, row.settings.view_batch
            return self._rival(output_ensemble(self.views, padding, view_batch, told))
        if row.method == "flip":
            return self._rival(partial(flip, told=told))
        if row.method == "larger":
            patch = describe(find_backbone(model)).patch or 1
            return inference_by(model, larger_input(self.scale, patch))
        return nullcontext()

    @contextmanager
    def _rival(self, method: Method) -> Iterator[None]:
        model, calibration = self.session.model, self.session.calibration
        with ExitStack() as stack:
            stack.enter_context(inference_by(model, method))
            if calibration is not None:
                from ..mmseg.sample_maps import placed_in_samples

                stack.enter_context(placed_in_samples(model, calibration.spread))
            yield


@contextmanager
def _srt(model: Any, settings: Settings) -> Iterator[None]:
    """While active, the model has SRT, and its samples the dispersion where it is kept."""
    with ExitStack() as stack:
        stack.enter_context(srt_enabled(model, **keywords(settings)))
        if settings.dispersion:
            from ..mmseg.uncertainty import dispersion_in_samples

            stack.enter_context(dispersion_in_samples(model))
        yield
