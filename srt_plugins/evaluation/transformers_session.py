"""A model of transformers with labelled images, to be run again and again."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from ..errors import ConfigError
from ..uncertainty import combined, dispersing
from .calibration_run import Collected
from .cost import peak_memory, timed
from .labelled_images import LabelledImages
from .request import Request
from .runs import BaseSession, Run
from .transformers_load import Loaded, Preparation
from .transformers_tasks import Size, Task

Inputs = dict[str, Tensor]


class Session(BaseSession):
    """A model with its test data.

    Args:
        loaded: model and image processor.
        task: how outputs are read.
        data: images with what is true of them.
        request: how they are run.

    Raises:
        ConfigError: the processor crops or pads, so that truth would not fit.
    """

    def __init__(self, loaded: Loaded, task: Task, data: LabelledImages, request: Request) -> None:
        self.loaded = loaded
        self.model = loaded.model
        self.task = task
        self.data = data
        self.classes = task.classes
        self.device: torch.device = loaded.model.device
        self.batches = _Batches(data, loaded.prepare, batched(data.sizes, request.batch_size))
        self.workers = request.workers
        self.calibration = Collected() if request.calibration else None
        check_whole(loaded.prepare, task, data.sizes[0])

    def close(self) -> None:
        """There is nothing to leave behind."""

    @property
    def images(self) -> int:
        """How many images there are."""
        return len(self.data.sizes)

    def call(self, inputs: Inputs) -> Any:
        """The model's outputs, or what stands in for them; rows that are no plain call replace it.

        Args:
            inputs: what the image processor makes of a batch, on the model's device.
        """
        return self.loaded.outputs(inputs)

    def first(self) -> Any:
        """Run the model on the first image."""
        inputs = self.loaded.prepare([self.data.image(0)])
        with torch.no_grad():
            return self.call(self.loaded.placed(inputs))

    def run(self, on_images: Any = None) -> Run:
        """The model over all images.

        Args:
            on_images: called with the number of images done, after every batch.
        """
        statistics: list[Any] = []
        counts = []
        if self.calibration is not None:
            self.calibration.start()
        with peak_memory(self.device) as peak, timed(self, "call", self.device) as watch:
            for inputs, sizes, truths in self._loaded():
                with torch.no_grad():
                    outputs = self.call(self.loaded.placed(inputs))
                    predictions = self.task.predictions(outputs, sizes)
                    self._calibrate(inputs, outputs, predictions, sizes, truths)
                statistics += [self.task.judged(*one) for one in zip(predictions, truths)]
                counts.append(len(sizes))
                if on_images is not None:
                    on_images(len(statistics))
        metric = self.task.metric(statistics)
        self.noticed = self.task.noticed(metric)
        seconds = [s / n for s, n in zip(watch.seconds, counts)]
        found = None if self.calibration is None else self.calibration.result()
        return Run([metric], {}, seconds, peak, calibration=found)

    def _calibrate(
        self, inputs: Inputs, outputs: Any, predictions: list, sizes: list[Size], truths: list
    ) -> None:
        """Judge the uncertainty of a batch, where that was asked for."""
        if self.calibration is None:
            return
        maps = self._dispersion(
            (inputs["pixel_values"].shape[-2], inputs["pixel_values"].shape[-1])
        )
        doubts = self.task.doubts(outputs, sizes)
        for i, (prediction, size, truth) in enumerate(zip(predictions, sizes, truths)):
            error, judged = self.task.errors(prediction, truth)
            spread = None if maps is None else self.task.unmoved(maps[i, 0], size)
            doubt = None if doubts is None else doubts[i]
            far = self.task.far(prediction)
            self.calibration.add(error, judged, doubt, spread, self.task.root, far)

    def _dispersion(self, size: Size) -> Tensor | None:
        """What views disagreed by in the last call, ``(B, 1, H, W)`` at the size of the input."""
        assert self.calibration is not None
        if self.calibration.spread:
            return self.calibration.spread.pop()
        part = dispersing(self.model)
        maps = () if part is None else part._srt.dispersion
        return combined(maps, size) if maps else None

    def completed(self, padding: str | None) -> AbstractContextManager[None]:
        """Nothing changes: image processors make whole patches."""
        return nullcontext()

    def replicating_matters(self) -> bool:
        """Image processors make whole patches."""
        return False

    def _loaded(self) -> Iterator[tuple[Inputs, list[Size], list[np.ndarray]]]:
        # Batches are made by the dataset, so that each holds images of one size.
        return iter(
            DataLoader(
                self.batches, batch_size=None, num_workers=self.workers, collate_fn=_as_it_is
            )
        )


class _Batches(Dataset):
    """Processed images ``(inputs, sizes, truths)`` by batch."""

    def __init__(
        self, data: LabelledImages, prepare: Preparation, batches: list[list[int]]
    ) -> None:
        self.data = data
        self.prepare = prepare
        self.batches = batches

    def __len__(self) -> int:
        return len(self.batches)

    def __getitem__(self, index: int) -> tuple[Inputs, list[Size], list[np.ndarray]]:
        if index >= len(self):
            raise IndexError(index)
        chosen = self.batches[index]
        inputs = self.prepare([self.data.image(i) for i in chosen])
        truths = [self.data.truth(i) for i in chosen]
        return inputs, [self.data.sizes[i] for i in chosen], truths


def _as_it_is(batch: Any) -> Any:
    return batch


def batched(sizes: list[Size], batch_size: int | None) -> list[list[int]]:
    """Indices of neighbours of one size, so many at most at a time; None = one."""
    batches: list[list[int]] = []
    for i, size in enumerate(sizes):
        if batches and len(batches[-1]) < (batch_size or 1) and sizes[batches[-1][0]] == size:
            batches[-1].append(i)
        else:
            batches.append([i])
    return batches


def check_whole(prepare: Preparation, task: Task, size: Size) -> None:
    """Raise :class:`ConfigError` unless a processor shows the model the whole image and no more,
    or its post-processing undoes what it does.

    Pictures whose brightness is the position go through the processor; what comes out must be where
    it was once it is resized as predictions are.
    """
    from PIL import Image

    def seen(picture: np.ndarray) -> Tensor:
        pixels = np.broadcast_to(picture[..., None], (*size, 3)).astype(np.uint8)
        return prepare([Image.fromarray(pixels)])["pixel_values"][0].double().mean(0)

    black, white = seen(np.zeros(size)), seen(np.full(size, 255.0))
    for side, place in zip(size, np.meshgrid(*(np.linspace(0, 1, n) for n in size), indexing="ij")):
        # Padding with a constant is 0 / 0 here.
        coordinate = (seen(place * 255) - black) / (white - black)
        found = task.unmoved(coordinate, size).numpy()
        # Half a cell of the smaller grid at the ends, and rounding to 8 bits.
        allowed = 1 / min(side, *coordinate.shape) + 2 / 255
        if not np.abs(found - place).max() <= allowed:
            processor = prepare.image_processor
            flags = ("do_center_crop", "do_pad", "do_resize", "size", "crop_size", "size_divisor")
            given = {f: getattr(processor, f) for f in flags if getattr(processor, f, None)}
            raise ConfigError(
                f"Expected {type(processor).__name__} to show the model whole images of "
                f"{size[0]} x {size[1]}, and nothing else, got a crop or padding, so that "
                f"predictions would not lie on the truth; its settings are {given}. Set "
                "do_center_crop and do_pad to false in preprocessor_config.json."
            )
