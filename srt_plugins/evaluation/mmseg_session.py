"""MMSegmentation's own Runner on the test data of a config, to be run again and again.

The config's test dataloader, pipeline, evaluator and test loop are used as they are. What only
matters for training, logging and drawing is left out, and nothing is written but to a temporary
work_dir. Hooks of the config do not run.
"""

from __future__ import annotations

import logging
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..adapters import describe, find_backbone
from ..core.patch import overridden
from ..core.translate import check_padding
from ..errors import ConfigError, SRTError
from ..settings import Settings
from ..wrapper import detach, wrapped
from .calibration_run import Collected
from .cost import peak_memory, timed
from .environment import chosen_device
from .metrics import Metric
from .mmseg_config import import_mmseg, limit_images, prepared, read_config
from .request import DEFAULT, Request
from .runs import BaseSession, Run


class Session(BaseSession):
    """A model with its test data.

    Args:
        cfg: path of a config, or an MMEngine ``Config``.
        request: which images, and how they are run.
        options: overrides, as MMEngine's ``--cfg-options``.

    Raises:
        ConfigError: the config has no test data or does not build.
        MissingDependencyError: MMSegmentation is not installed.
    """

    def __init__(
        self, cfg: Any, request: Request = DEFAULT, options: dict[str, Any] | None = None
    ) -> None:
        import_mmseg()
        self.device = chosen_device(request.device)
        self.calibration = Collected() if request.calibration else None
        self._folder = tempfile.mkdtemp(prefix="srt-compare-")
        try:
            self.cfg = prepared(read_config(cfg, options), self._folder, request)
            if request.limit is not None:
                limit_images(self.cfg, request.limit)
            self._build(cfg if isinstance(cfg, (str, Path)) else "the config")
        except BaseException:
            self.close()
            raise

    def _build(self, name: Any) -> None:
        from mmengine.runner import Runner
        from mmseg.evaluation import DepthMetric

        from .mmseg_depth import check_depth
        from .mmseg_metrics import Watcher, collectors

        try:
            self.runner = Runner.from_cfg(self.cfg)
            self.evaluator = self.runner.test_evaluator
            self.dataset = self.runner.test_dataloader.dataset
        except SRTError:
            raise
        except Exception as error:
            raise ConfigError(
                f"Expected {name} to build with MMSegmentation, got {type(error).__name__}: "
                f"{' '.join(str(error).split())}. Check the model, the data paths and "
                "custom_imports of the config."
            ) from error
        self.classes = list(self.dataset.metainfo.get("classes") or ())
        self.collectors = collectors(self.evaluator.metrics, name, self.classes)
        if not len(self.dataset):
            raise ConfigError(f"Expected test data in {name}, got an empty dataset.")
        self.model: nn.Module = self.runner.model
        self.model.to(self.device)
        if self.calibration is not None:
            self._check_calibration()
        self._notes: list[str] = []
        for collector in self.collectors:
            if isinstance(collector.source, DepthMetric):
                self._notes += check_depth(collector.source, self.model, self.dataset)
        self._watcher = Watcher(self.collectors, self.calibration)
        self.runner.register_hook(self._watcher)

    def _check_calibration(self) -> None:
        from .calibration_mmseg import check_head
        from .mmseg_metrics import IoUCollector

        if isinstance(self.collectors[0], IoUCollector):
            check_head(self.model)

    def close(self) -> None:
        """Close the log and remove the temporary work_dir."""
        logger: Any = getattr(getattr(self, "runner", None), "logger", None)
        for handler in [*logger.handlers] if logger else []:
            # MMEngine goes on writing to the files of its current logger: take closed ones away.
            if isinstance(handler, logging.FileHandler):
                logger.removeHandler(handler)
                handler.close()
        shutil.rmtree(self._folder, ignore_errors=True)

    @property
    def images(self) -> int:
        """How many images there are."""
        return len(self.dataset)

    def check(self) -> None:
        """Raise :class:`ConfigError` unless the metrics take what the model returns."""
        batch, outputs = self._first_batch(), self.first()
        try:
            self.evaluator.process(data_samples=outputs, data_batch=batch)
        except Exception as error:
            names = " and ".join(type(metric).__name__ for metric in self.evaluator.metrics)
            raise ConfigError(
                f"Expected {names} to take the first image's labels and what "
                f"{type(self.model).__name__} returns, got {type(error).__name__}: "
                f"{' '.join(str(error).split())}; IoUMetric is for segmentors, DepthMetric for "
                "depth estimators."
            ) from error
        finally:
            for metric in self.evaluator.metrics:
                metric.results.clear()

    def record(self) -> dict[str, Any]:
        """How the metrics judge, where figures cannot be compared without it."""
        return {name: value for one in self.collectors for name, value in one.record().items()}

    def notes(self) -> list[str]:
        """What must be known of the data, and of all runs so far."""
        return [*self._notes, *(note for one in self.collectors for note in one.notes())]

    def take_settings(self) -> Settings | None:
        """Unwrap a backbone that the config wrapped; its settings, None for a plain one."""
        found = [module._srt.settings for module in wrapped(self.model)]
        detach(self.model)
        return found[0] if found else None

    def first(self) -> Any:
        """Run the model on the first image."""
        self.model.eval()
        with torch.no_grad():
            return self.runner.model.test_step(self._first_batch())

    def inputs(self) -> torch.Tensor:
        """What the backbone gets of the first image."""
        preprocessor: Any = self.model.data_preprocessor
        inputs: torch.Tensor = preprocessor(self._first_batch())["inputs"]
        return inputs

    def _first_batch(self) -> Any:
        from mmengine.dataset import pseudo_collate

        return pseudo_collate([self.dataset[0]])

    def run(self, on_images: Any = None) -> Run:
        """``runner.test()`` once.

        Args:
            on_images: called with the number of images done, after every batch.
        """
        self._watcher.start(on_images)
        with ExitStack() as stack:
            for collector in self.collectors:
                stack.enter_context(collector.running())
            peak = stack.enter_context(peak_memory(self.device))
            watch = stack.enter_context(timed(self.model, "test_step", self.device))
            reported = self.runner.test()
        return Run(
            [collector.metric() for collector in self.collectors],
            {str(name): float(value) for name, value in reported.items()},
            [seconds / n for seconds, n in zip(watch.seconds, self._watcher.sizes)],
            peak,
            calibration=None if self.calibration is None else self.calibration.result(),
        )

    def batches(self) -> Iterable[Any]:
        """The test data, a batch at a time."""
        loader: Iterable[Any] = self.runner.test_dataloader
        return loader

    def run_batch(self, batch: Any, number: int = 0) -> list[Metric]:
        """One iteration of the test loop, judged by itself.

        Args:
            batch: of :meth:`batches`; may be changed.
            number: of the batch.
        """
        self.model.eval()
        self._watcher.start(None)
        with ExitStack() as stack:
            for collector in self.collectors:
                stack.enter_context(collector.running())
                stack.callback(collector.source.results.clear)
            self.runner.test_loop.run_iter(number, batch)
            return [collector.part() for collector in self.collectors]

    def own_padding(self) -> str:
        """How the config's preprocessor completes test images."""
        return str(getattr(self.model.data_preprocessor, "padding", "zeros"))

    @contextmanager
    def completed(self, padding: str | None) -> Iterator[None]:
        """While active, the preprocessor completes test images by ``padding``.

        Where the config completes nothing, images are completed to whole patches.
        """
        if padding is None:
            yield
            return
        with overridden(self.model, "data_preprocessor", self._preprocessor(padding)):
            yield

    def _preprocessor(self, padding: str) -> nn.Module:
        from mmseg.models.data_preprocessor import SegDataPreProcessor
        from mmseg.registry import MODELS

        check_padding(padding)
        own = self.model.data_preprocessor
        if not isinstance(own, SegDataPreProcessor):
            raise ConfigError(
                f"Expected a SegDataPreProcessor with complete={padding!r}, got "
                f"{type(own).__name__}; leave --complete out."
            )
        config = dict(self.cfg.model.get("data_preprocessor") or self.cfg.data_preprocessor)
        config.update(type="PaddedSegDataPreProcessor", padding=padding, _scope_="mmseg")
        if not config.get("test_cfg"):
            patch = describe(find_backbone(self.model)).patch
            if patch is None:
                raise ConfigError(
                    f"Expected test_cfg=dict(size_divisor=...) in the data_preprocessor with "
                    f"complete={padding!r}, because the patch of this backbone is not known; add "
                    "--cfg-options model.data_preprocessor.test_cfg.size_divisor=<patch>."
                )
            config["test_cfg"] = {"size_divisor": patch}
        built: nn.Module = MODELS.build(config)
        return built.to(self.device)
