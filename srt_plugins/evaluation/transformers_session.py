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
from .cost import peak_memory, timed
from .labelled_images import LabelledImages
from .request import Request
from .runs import BaseSession, Run
from .transformers_load import Loaded
from .transformers_tasks import Size, Task

Inputs = dict[str, Tensor]
# Images that are looked at before anything runs.
_FIRST = 5


class Session(BaseSession):
    """A model with its test data.

    Args:
        loaded: model and image processor.
        task: how outputs are read.
        data: images with what is true of them.
        request: how they are run.
        device: that of the model.

    Raises:
        ConfigError: the processor crops or pads, so that truth would not fit.
    """

    def __init__(
        self,
        loaded: Loaded,
        task: Task,
        data: LabelledImages,
        request: Request,
        device: torch.device,
    ) -> None:
        self.model = loaded.model
        self.task = task
        self.data = data
        self.classes = task.classes
        self.device = device
        self.batches = _Batches(data, loaded.processor, batched(data.sizes, request.batch_size))
        self.workers = request.workers
        check_whole(loaded.processor, task, data.sizes[0])

    def close(self) -> None:
        """There is nothing to leave behind."""

    @property
    def images(self) -> int:
        """How many images there are."""
        return len(self.data.sizes)

    def call(self, inputs: Inputs) -> Any:
        """The model's outputs, or what stands in for them; rows that are no plain call replace it.

        Args:
            inputs: what the image processor makes of a batch.
        """
        return in_float32(self.model(**inputs))

    def first(self) -> Any:
        """Run the model on the first image."""
        inputs, _, _ = _Batches(self.data, self.batches.processor, [[0]])[0]
        with torch.no_grad():
            return self.call(self._placed(inputs))

    def run(self, on_images: Any = None) -> Run:
        """The model over all images.

        Args:
            on_images: called with the number of images done, after every batch.
        """
        statistics: list[Any] = []
        counts = []
        with peak_memory(self.device) as peak, timed(self, "call", self.device) as watch:
            for inputs, sizes, truths in self._loaded():
                with torch.no_grad():
                    outputs = self.call(self._placed(inputs))
                    predictions = self.task.predictions(outputs, sizes)
                statistics += [self.task.judged(*one) for one in zip(predictions, truths)]
                counts.append(len(sizes))
                if on_images is not None:
                    on_images(len(statistics))
        metric = self.task.metric(statistics)
        return Run([metric], {}, [s / n for s, n in zip(watch.seconds, counts)], peak)

    def completed(self, padding: str | None) -> AbstractContextManager[None]:
        """Nothing changes: image processors make whole patches."""
        return nullcontext()

    def replicating_matters(self) -> bool:
        """Image processors make whole patches."""
        return False

    def _loaded(self) -> Iterator[tuple[Inputs, list[Size], list[np.ndarray]]]:
        # Batches are made by the dataset, so that each holds images of one size.
        return iter(DataLoader(self.batches, batch_size=None, num_workers=self.workers))

    def _placed(self, inputs: Inputs) -> Inputs:
        """On the model's device, pixels in its dtype."""
        dtype = self.model.dtype
        return {
            name: one.to(self.device, dtype if one.is_floating_point() else None)
            for name, one in inputs.items()
        }


class _Batches(Dataset):
    """Processed images ``(inputs, sizes, truths)`` by batch."""

    def __init__(self, data: LabelledImages, processor: Any, batches: list[list[int]]) -> None:
        self.data = data
        self.processor = processor
        self.batches = batches

    def __len__(self) -> int:
        return len(self.batches)

    def __getitem__(self, index: int) -> tuple[Inputs, list[Size], list[np.ndarray]]:
        if index >= len(self):
            raise IndexError(index)
        chosen = self.batches[index]
        inputs = self.processor(images=[self.data.image(i) for i in chosen], return_tensors="pt")
        if len(inputs["pixel_values"]) != len(chosen):
            raise ConfigError(
                f"Expected {type(self.processor).__name__} to make one input of each image, got "
                f"{len(inputs['pixel_values'])} of {len(chosen)}: it splits images "
                "(do_split_image); set that to false in preprocessor_config.json."
            )
        truths = [self.data.truth(i) for i in chosen]
        return dict(inputs), [self.data.sizes[i] for i in chosen], truths


def batched(sizes: list[Size], batch_size: int | None) -> list[list[int]]:
    """Indices of neighbours of one size, so many at most at a time; None = one."""
    batches: list[list[int]] = []
    for i, size in enumerate(sizes):
        if batches and len(batches[-1]) < (batch_size or 1) and sizes[batches[-1][0]] == size:
            batches[-1].append(i)
        else:
            batches.append([i])
    return batches


def in_float32(outputs: Any) -> Any:
    """Outputs with their tensors in float32, which post-processing may need."""
    changed = {
        name: one.float()
        for name, one in outputs.items()
        if isinstance(one, Tensor) and one.is_floating_point() and one.dtype != torch.float32
    }
    return type(outputs)(**{**outputs, **changed}) if changed else outputs


def check_whole(processor: Any, task: Task, size: Size) -> None:
    """Raise :class:`ConfigError` unless a processor shows the model the whole image and no more,
    or its post-processing undoes what it does.

    Pictures whose brightness is the position go through the processor; what comes out must be where
    it was once it is resized as predictions are.
    """
    from PIL import Image

    def seen(picture: np.ndarray) -> Tensor:
        pixels = np.broadcast_to(picture[..., None], (*size, 3)).astype(np.uint8)
        inputs = processor(images=[Image.fromarray(pixels)], return_tensors="pt")
        mean: Tensor = inputs["pixel_values"][0].double().mean(0)
        return mean

    black, white = seen(np.zeros(size)), seen(np.full(size, 255.0))
    for side, place in zip(size, np.meshgrid(*(np.linspace(0, 1, n) for n in size), indexing="ij")):
        # Padding with a constant is 0 / 0 here.
        coordinate = (seen(place * 255) - black) / (white - black)
        found = task.unmoved(coordinate, size).numpy()
        # Half a cell of the smaller grid at the ends, and rounding to 8 bits.
        allowed = 1 / min(side, *coordinate.shape) + 2 / 255
        if not np.abs(found - place).max() <= allowed:
            flags = ("do_center_crop", "do_pad", "do_resize", "size", "crop_size", "size_divisor")
            given = {f: getattr(processor, f) for f in flags if getattr(processor, f, None)}
            raise ConfigError(
                f"Expected {type(processor).__name__} to show the model whole images of "
                f"{size[0]} x {size[1]}, and nothing else, got a crop or padding, so that "
                f"predictions would not lie on the truth; its settings are {given}. Set "
                "do_center_crop and do_pad to false in preprocessor_config.json."
            )


def check_depth_truth(task: Any, data: LabelledImages) -> None:
    """Raise :class:`ConfigError` unless the first images have depth that is judged."""
    from .depth import judged_pixels

    protocol = task.protocol
    truths = [data.truth(i) for i in range(min(_FIRST, len(data.sizes)))]
    if any(judged_pixels(truth, protocol).any() for truth in truths):
        return
    known = [float(np.nanmin(t)) for t in truths] + [float(np.nanmax(t)) for t in truths]
    raise ConfigError(
        f"Expected true depth between min_depth={protocol.min_depth} and max_depth="
        f"{protocol.max_depth} m, got none in the first {len(truths)} images, whose depths are "
        f"{min(known):.4g} to {max(known):.4g}; check --depth-scale "
        "(units per metre) and the range."
    )
