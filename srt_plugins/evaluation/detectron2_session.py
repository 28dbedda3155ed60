"""Detectron2's own test loop on the test data of a config, to be run again and again.

The config's model, test loader and evaluators are used as they are, through
``inference_on_dataset``. Nothing is written but to a temporary folder.
"""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, Callable

import torch
from torch import nn

from ..adapters import find_backbone
from ..errors import ConfigError
from ..settings import Settings
from ..wrapper import detach, wrapped
from .calibration_run import Collected
from .cost import Stopwatch, peak_memory, timed
from .detectron2_build import Built, build
from .detectron2_config import Options
from .environment import chosen_device
from .request import DEFAULT, Request
from .runs import BaseSession, Run

# Detectron2 takes as many batches for warming up.
_WARM_UP = 5


class Session(BaseSession):
    """A model with its test data.

    Args:
        cfg: path of a yacs config or a LazyConfig, or one of them.
        request: which images, and how they are run.
        options: overrides in the config's own syntax.
        dataset: name of the dataset; None = as the config says.

    Raises:
        ConfigError: the config has no test data or does not build.
        MissingDependencyError: Detectron2 is not installed.
    """

    def __init__(
        self,
        cfg: Any,
        request: Request = DEFAULT,
        options: Options = None,
        dataset: str | None = None,
    ) -> None:
        self.device = chosen_device(request.device)
        self.cut = request.limit is not None
        self._folder = tempfile.mkdtemp(prefix="srt-compare-")
        try:
            built: Built = build(cfg, request, options, dataset, self.device, self._folder)
        except BaseException:
            self.close()
            raise
        self.model: nn.Module = built.model
        self.loader = built.loader
        self.dataset_name = built.dataset
        self.outputs = built.outputs
        self.classes = built.classes
        self.collectors = built.collectors
        self.notes = built.notes
        if request.calibration:
            try:
                self._collect_calibration()
            except ConfigError:
                self.close()
                raise
        # How a batch is run; rows that are no plain call replace it.
        self.call: Callable[[list], list] = self.model

    def _collect_calibration(self) -> None:
        from detectron2.modeling import PanopticFPN, SemanticSegmentor

        from .detectron2_metrics import SemSegCollector

        semantic = next((one for one in self.collectors if isinstance(one, SemSegCollector)), None)
        if semantic is None:
            raise ConfigError(
                f"Expected calibration of semantic segmentation with SemSegEvaluator, got "
                f"{type(self.model).__name__} with "
                f"{[type(one.evaluator).__name__ for one in self.collectors]}; leave --calibration "
                "(calibration=True) out."
            )
        self.calibration = semantic.calibration = Collected()
        semantic.logits = isinstance(self.model, (PanopticFPN, SemanticSegmentor))
        if not semantic.logits:
            self.notes.append(
                f"ECE: left out, the scores of {type(self.model).__name__} are no logits."
            )

    def close(self) -> None:
        """Remove the temporary folder, and what Detectron2's catalog remembers of it."""
        try:
            from detectron2.data import MetadataCatalog
        except ImportError:
            pass
        else:
            for name in MetadataCatalog.list():
                known = vars(MetadataCatalog.get(name))
                if str(known.get("json_file", "")).startswith(self._folder):
                    del known["json_file"]
        shutil.rmtree(self._folder, ignore_errors=True)

    @property
    def images(self) -> int:
        """How many images there are."""
        return len(self.loader.dataset)

    def take_settings(self) -> tuple[Settings | None, str | None]:
        """Unwrap a backbone that the config wrapped; its settings and the part that they were for.

        (None, None) for a plain one.
        """
        found = wrapped(self.model)
        settings = found[0]._srt.settings if found else None
        parts = find_backbone(self.model).named_modules()
        target = next((name for name, part in parts if found and part is found[0]), None)
        detach(self.model)
        return settings, target or None

    def first(self) -> list:
        """Run the model on the first image."""
        self.model.eval()
        with torch.no_grad():
            return self.call(self.loader.collate_fn([self.loader.dataset[0]]))

    def run(self, on_images: Any = None) -> Run:
        """``inference_on_dataset`` once.

        Args:
            on_images: called with the number of images done, after every batch.
        """
        from detectron2.evaluation import inference_on_dataset
        from detectron2.evaluation.evaluator import inference_context
        from detectron2.evaluation.testing import flatten_results_dict

        loader, recorder = _Loader(self.loader), _recorder(self.collectors, on_images, self.cut)
        with ExitStack() as stack:
            peak = stack.enter_context(peak_memory(self.device))
            stack.enter_context(inference_context(self.model))
            compute = stack.enter_context(timed(self, "call", self.device))
            evaluation = stack.enter_context(timed(recorder, "process", self.device))
            inference_on_dataset(lambda batch: self.call(batch), loader, recorder)
        metrics = [
            metric
            for collector, reported in zip(self.collectors, recorder.reported)
            for metric in collector.metrics(reported)
        ]
        if not metrics:
            raise ConfigError(
                f"Expected the evaluator to return figures, got {recorder.reported}; check that "
                "the dataset has labels for what the model predicts."
            )
        flat: dict[str, float] = {}
        for reported in recorder.reported:
            flat.update(flatten_results_dict(reported))
        warm = min(_WARM_UP, len(self.loader) - 1)

        def per_image(watch: Stopwatch) -> list[float]:
            return [s / n for s, n in zip(watch.seconds, recorder.sizes)][warm:]

        stages = {"data": per_image(loader.watch), "evaluation": per_image(evaluation)}
        found = None if self.calibration is None else self.calibration.result()
        return Run(metrics, flat, per_image(compute), peak, stages, found)

    @contextmanager
    def completed(self, padding: str | None) -> Iterator[None]:
        """While active, partial patches are completed by ``padding``; None = as the model does."""
        if padding is None:
            yield
            return
        from ..detectron2.padding import complete_patches

        completion = complete_patches(self.model, padding)
        try:
            yield
        finally:
            completion.remove()

    def inputs(self) -> torch.Tensor:
        """What the backbone gets of the first image."""
        seen: list[torch.Tensor] = []
        backbone = find_backbone(self.model)
        # After the hook that completes patches.
        handle = backbone.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
        try:
            self.first()
        finally:
            handle.remove()
        return seen[0]


class _Loader:
    """A data loader that measures how long each batch takes."""

    def __init__(self, loader: Any) -> None:
        self.loader = loader
        self.watch = Stopwatch()

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Iterator[Any]:
        batches = iter(self.loader)
        while True:
            start = time.perf_counter()
            try:
                batch = next(batches)
            except StopIteration:
                return
            self.watch.seconds.append(time.perf_counter() - start)
            yield batch


def _recorder(collectors: list, on_images: Any, cut: bool) -> Any:
    """A ``DatasetEvaluator`` that passes everything on to collectors."""
    from detectron2.evaluation import DatasetEvaluator

    class Recorder(DatasetEvaluator):
        def reset(self) -> None:
            self.sizes: list[int] = []
            self.reported: list[dict] = []
            for collector in collectors:
                collector.reset()

        def process(self, inputs: list, outputs: list) -> None:
            for collector in collectors:
                collector.process(inputs, outputs)
            self.sizes.append(len(inputs))
            if on_images is not None:
                on_images(sum(self.sizes))

        def evaluate(self) -> dict:
            self.reported = [collector.evaluate(cut) for collector in collectors]
            return {}

    return Recorder()
