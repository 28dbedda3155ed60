"""MMSegmentation's metrics, with the per-image statistics that intervals need.

What a metric reports is its own. Statistics are taken from the results that it keeps of each image,
as they come.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from mmengine.hooks import Hook
from mmseg.evaluation import DepthMetric, IoUMetric
from torch import Tensor

from ..core.patch import overridden
from ..errors import ConfigError
from .calibration_run import Collected
from .depth import FIGURES, pixel_errors
from .metrics import DepthErrors, MeanIoU, Metric
from .scores import stack_areas


class IoUCollector:
    """Pixel counts per image of an ``IoUMetric``, copied before it sums and drops them.

    Args:
        metric: of MMSegmentation.
        classes: names of the classes.
    """

    def __init__(self, metric: IoUMetric, classes: Sequence[str]) -> None:
        self.source = metric
        self.classes = classes

    @contextmanager
    def running(self) -> Iterator[None]:
        """One run over the data."""
        self.results: list[Any] = []
        yield

    def take(self) -> None:
        """Take what the metric has got since the last call."""
        self.results.extend(self.source.results[len(self.results) :])

    def metric(self) -> Metric:
        """The metric of the last run."""
        return self.part()

    def part(self) -> Metric:
        """The metric of the images so far, of which there may be too few to judge by."""
        return MeanIoU(stack_areas(self.results), self.classes, self.source.nan_to_num)

    def record(self) -> dict[str, Any]:
        """How the metric judges, where figures cannot be compared without it."""
        return {}

    def notes(self) -> list[str]:
        """What must be known of all runs."""
        return []


class DepthCollector:
    """Depth errors per image of a ``DepthMetric``, by its own mask and as it takes predictions.

    The metric keeps true and predicted depth of all judged pixels until the end, 2 MB per NYU
    image. Here its own errors of an image are computed at once and kept in their place.

    Args:
        metric: of MMSegmentation.
    """

    def __init__(self, metric: DepthMetric) -> None:
        self.source = metric
        kind = type(metric)
        # A subclass may need the depths themselves.
        self.frees = (
            kind.compute_metrics is DepthMetric.compute_metrics
            and kind._calc_all_metrics is DepthMetric._calc_all_metrics
        )
        self.impossible = self.empty = 0
        self.outside = 0.0

    @contextmanager
    def running(self) -> Iterator[None]:
        """One run over the data."""
        self.errors: list[np.ndarray] = []
        self.pixels: list[int] = []
        if not self.frees:
            yield
            return
        with overridden(self.source, "_calc_all_metrics", lambda kept, _: kept):
            yield

    def take(self) -> None:
        """Take what the metric has got since the last call."""
        results = self.source.results
        for i in range(len(self.errors), len(results)):
            truth, predicted = self._depths(results[i])
            self.errors.append(pixel_errors(predicted.numpy(), truth.numpy()))
            self.pixels.append(truth.numel())
            self._look(predicted)
            if self.frees:
                # On the CPU, as the metric computes them in the end.
                results[i] = (DepthMetric._calc_all_metrics(truth, predicted), None)

    def metric(self) -> Metric:
        """The metric of the last run."""
        self.empty = self.pixels.count(0)
        if self.empty == len(self.pixels):
            raise ConfigError(
                f"Expected depth between min_depth_eval={self.source.min_depth_eval} and "
                f"max_depth_eval={self.source.max_depth_eval} in some image, got none in "
                f"{self.empty} images; check depth_rescale_factor and the range."
            )
        return self.part()

    def part(self) -> Metric:
        """The metric of the images so far, of which there may be too few to judge by."""
        errors = np.stack(self.errors).reshape(-1, len(FIGURES))
        return DepthErrors(errors, np.array(self.pixels))

    def record(self) -> dict[str, Any]:
        """How the metric judges, where figures cannot be compared without it."""
        names = ("min_depth_eval", "max_depth_eval", "crop_type")
        return {"depth": {name: getattr(self.source, name) for name in names}}

    def notes(self) -> list[str]:
        """What must be known of all runs."""
        low, high = self.source.min_depth_eval, self.source.max_depth_eval
        found = []
        if self.empty:
            found.append(
                f"depth: {self.empty} images without judged pixels are left out of means; "
                "MMSegmentation's own figures are NaN then."
            )
        if self.outside:
            found.append(
                f"depth: in some image {100 * self.outside:.3g} % of the judged pixels are "
                f"predicted outside of {low} to {high} m. DepthMetric takes them as they are, the "
                "usual protocol on NYU clamps them."
            )
        if self.impossible:
            found.append(
                "depth: some predictions are not positive. They have no RMSE_log, and are counted "
                "as wrong in a1, a2, a3, where DepthMetric's own d1, d2, d3 count them as right."
            )
        return found

    def _depths(self, result: Any) -> tuple[Tensor, Tensor]:
        parts = result if isinstance(result, tuple) and len(result) == 2 else ()
        if not parts or any(not isinstance(p, Tensor) or p.ndim != 1 for p in parts):
            raise ConfigError(
                f"Expected {type(self.source).__name__} to keep true and predicted depth of the "
                "judged pixels of every image, as DepthMetric does; use DepthMetric."
            )
        return parts[0].cpu(), parts[1].cpu()

    def _look(self, predicted: Tensor) -> None:
        if predicted.numel():
            low, high = self.source.min_depth_eval, self.source.max_depth_eval
            outside = (predicted < low) | (predicted > high)
            self.outside = max(self.outside, float(outside.float().mean()))
            self.impossible += int((predicted <= 0).sum())


def collectors(metrics: Sequence[Any], name: Any, classes: Sequence[str]) -> list[Any]:
    """A collector for the first ``IoUMetric`` and the first ``DepthMetric``, in their order.

    Raises:
        ConfigError: neither is there, or one is used without labels.
    """
    found: dict[type, Any] = {}
    for one in metrics:
        for kind in (IoUMetric, DepthMetric):
            if isinstance(one, kind):
                found.setdefault(kind, one)
    if not found or any(one.format_only for one in found.values()):
        raise ConfigError(
            f"Expected test_evaluator of {name} to be an IoUMetric or a DepthMetric with labels, "
            f"got {[_described(one) for one in metrics]}; segmentation with mIoU and depth are "
            "what can be compared."
        )
    for one in found.values():
        one.output_dir = None
    return [
        IoUCollector(one, classes) if kind is IoUMetric else DepthCollector(one)
        for kind, one in found.items()
    ]


def _described(metric: Any) -> str:
    only = getattr(metric, "format_only", False)
    return type(metric).__name__ + ("(format_only=True)" if only else "")


class Watcher(Hook):
    """Lets collectors take each batch's results, and tells the progress.

    Args:
        collectors: of metrics; the calibration is that of the first one's predictions.
        calibration: of the run; None = not asked for.
    """

    def __init__(self, collectors: Sequence[Any], calibration: Collected | None = None) -> None:
        self.collectors = collectors
        self.calibration = calibration

    def start(self, on_images: Any) -> None:
        """Before a run."""
        self.on_images = on_images
        self.sizes: list[int] = []
        if self.calibration is not None:
            self.calibration.start()

    def after_test_iter(
        self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        """After each batch, as MMEngine calls it."""
        for collector in self.collectors:
            collector.take()
        self.sizes.append(len(outputs))
        if self.calibration is not None:
            from .calibration_mmseg import add_sample

            for sample in outputs:
                add_sample(self.calibration, self.collectors[0], sample)
        if self.on_images is not None:
            self.on_images(sum(self.sizes))
