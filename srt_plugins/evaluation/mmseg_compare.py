"""The comparison itself: every row is one run of MMSegmentation's own test loop."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any, Callable

from torch import nn

from ..adapters import describe, find_backbone
from ..core.views import Views
from ..errors import ConfigError, SRTError
from ..settings import Settings
from ..wrapper import srt_enabled, wrapped
from .bootstrap import RESAMPLES
from .checkpoint import load_weights
from .cost import count_flops, memory_kind
from .environment import hardware, versions
from .methods import flip, inference_by, larger_input, matching_scale, output_ensemble
from .mmseg_session import Session
from .results import Comparison, Measured, compare
from .rows import DEFAULT_ROWS, OWN, Row, RowArg, check_skip, keywords, plan, settings_of

# Called with the row, its number, the number of rows, the images done in it, the images in all.
Progress = Callable[[str, int, int, int, int], None]


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
        cfg: path of a config with test data, or an MMEngine ``Config``.
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
        progress: see :data:`Progress`.

    Returns:
        All figures, with intervals; ``.save(path)`` writes JSON.

    Raises:
        SRTError: a bad argument, config or checkpoint; nothing has run by then.
    """
    left_out = check_skip(skip)
    extra = [settings_of(row) for row in extra_rows]
    asked = None if rows is None else [settings_of(row) for row in rows]
    if asked is not None and not asked + extra:
        raise ConfigError(
            "Expected at least one SRT row, got none; leave rows out for the default."
        )
    if not Path(checkpoint).is_file():
        raise ConfigError(
            f"Expected checkpoint to be a file, got {checkpoint}, which does not exist."
        )
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
        settings = (_default_rows(own) if asked is None else asked) + extra
        with session.completed(complete):
            srt = [(s, _views(session, s)) for s in settings]
        own_padding = complete is not None and complete != session.own_padding()
        free_padding = complete is None and session.replicating_matters()
        planned = plan(srt, left_out, own_padding, free_padding)
        runs = Runs(session, complete, srt[0][1])
        notes = [text for text in (loaded.warning(),) if text]
        planned, flops = runs.tried(planned, notes)
        measured = []
        for number, row in enumerate(planned):
            measured.append(
                runs.measured(row, flops[row.name], _told(progress, planned, number, session))
            )
        found = compare(
            measured,
            session.classes,
            seed=seed,
            resamples=resamples,
            nan_to_num=session.metric.nan_to_num,
        )
        found.notes = notes
        found.context = {
            "config": str(cfg if isinstance(cfg, (str, Path)) else cfg.filename),
            "checkpoint": str(checkpoint),
            "complete": complete or session.own_padding(),
            "limit": limit,
            "seed": seed,
            "resamples": resamples,
            "batch_size": session.cfg.test_dataloader.get("batch_size", 1),
            "cfg_options": {str(k): str(v) for k, v in (cfg_options or {}).items()},
            "missing_keys": list(loaded.missing),
            "unexpected_keys": list(loaded.unexpected),
            "device": str(session.device),
            "peak_memory_is": memory_kind(session.device),
            "hardware": hardware(session.device),
            "versions": versions(),
        }
        return found


class Runs:
    """Runs rows in a session, each as if it were the only one.

    Args:
        session: model and data.
        complete: how partial patches are completed, None = as the config says.
        views: those of the output ensemble, whose number the larger input matches.
    """

    def __init__(self, session: Session, complete: str | None, views: Views) -> None:
        self.session = session
        self.complete = complete
        self.views = views
        self.scale = len(views) ** 0.5

    def active(self, row: Row) -> AbstractContextManager[Any]:
        """While active, the session's model is what the row says."""
        with ExitStack() as stack:
            complete = self.complete if row.complete is None else row.complete
            stack.enter_context(self.session.completed(None if complete == OWN else complete))
            stack.enter_context(self._method(row, self.session.model))
            return stack.pop_all()

    def _method(self, row: Row, model: nn.Module) -> AbstractContextManager[Any]:
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

    def tried(self, rows: list[Row], notes: list[str]) -> tuple[list[Row], dict[str, int]]:
        """Try every row on one image, which also counts operations and warms up.

        A larger input that the model cannot take (fixed sizes, memory) is left out with a note;
        any other failure ends the comparison before time is spent.
        """
        kept: list[Row] = []
        flops: dict[str, int] = {}
        for row in rows:
            try:
                if row.method == "larger":
                    row = self._matched(row, flops[rows[0].name])
                flops[row.name] = self._count(row)
            except Exception as error:
                if row.method != "larger" or isinstance(error, SRTError):
                    raise
                reason = (str(error).splitlines() or [""])[0]
                notes.append(f"{row.name}: left out, {type(error).__name__}: {reason}")
                continue
            kept.append(row)
        return kept, flops

    def _count(self, row: Row) -> int:
        with self.active(row):
            return count_flops(self.session.first)

    def _matched(self, row: Row, plain: int) -> Row:
        """Set the scale at which the larger input costs what the views cost."""
        n = len(self.views)
        self.scale = n**0.5
        self.scale = matching_scale(plain, self._count(row), n)
        return replace(row, name=f"{row.name}, x{self.scale:.3g} per side")

    def measured(self, row: Row, flops: int, on_images: Any = None) -> Measured:
        """Run a row over all data."""
        with self.active(row):
            run = self.session.run(on_images)
        return Measured(row, run.areas, run.reported, run.seconds, flops, run.peak.bytes)


def _default_rows(own: Settings | None) -> list[Settings]:
    if own is None or own.is_plain:
        return [settings_of(row) for row in DEFAULT_ROWS]
    return [own] if own.smooth is not None else [own, own.but(smooth=3)]


def _views(session: Session, settings: Settings) -> Views:
    """The views of some settings; also checks the settings against the backbone."""
    with srt_enabled(session.model, **keywords(settings)):
        if settings.is_plain:
            return Views(((0, 0),), (1.0,))
        state = wrapped(session.model)[0]._srt
        if state.adapter.patch is None:
            session.first()  # an unknown backbone is probed on its first image
        views: Views = state.views()
        return views


def _told(
    progress: Progress | None, rows: list[Row], number: int, session: Session
) -> Callable[[int], None] | None:
    if progress is None:
        return None
    name, total = rows[number].name, len(session.dataset)
    return lambda done: progress(name, number, len(rows), done, total)
