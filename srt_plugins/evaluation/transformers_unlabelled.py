"""Images without labels for models of transformers: references stand in for truth."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..adapters import describe, find_backbone
from ..errors import ConfigError
from .depth import DepthProtocol
from .held_out import reference
from .labelled_images import IMAGE_ENDINGS
from .transformers_compare import TransformersRuns
from .transformers_load import Loaded
from .transformers_session import Session
from .transformers_tasks import Depth, Task, semantic_task


class FolderOfImages:
    """Images of a folder, or of the folder ``images`` in it, by name.

    Args:
        root: the folder.

    Raises:
        ConfigError: no images, or a file that is none.
    """

    def __init__(self, root: str | Path) -> None:
        from PIL import Image

        folder = Path(root) / "images"
        folder = folder if folder.is_dir() else Path(root)
        found = sorted(folder.glob("*"), key=lambda path: path.name)
        self.paths = [path for path in found if path.suffix.lower() in IMAGE_ENDINGS]
        if not self.paths:
            what = "has none" if folder.is_dir() else "does not exist"
            raise ConfigError(
                f"Expected dataset to be a folder of images that end in {', '.join(IMAGE_ENDINGS)} "
                f"(or to hold a folder images with them), got {root}, which {what}."
            )
        self.sizes = []
        for path in self.paths:
            try:
                with Image.open(path) as opened:
                    self.sizes.append((opened.height, opened.width))
            except OSError as error:
                raise ConfigError(f"Expected {path} to be an image, got {error}.") from error

    def image(self, index: int) -> Any:
        """The image, for Pillow."""
        from PIL import Image

        with Image.open(self.paths[index]) as opened:
            return opened.convert("RGB")


class Unlabelled:
    """Images with references in place of what is true of them.

    Args:
        images: with ``image(index)`` and ``sizes``.
    """

    def __init__(self, images: Any) -> None:
        self.image = images.image
        self.sizes: list[tuple[int, int]] = images.sizes
        self._truths: list[np.ndarray] = []

    def truth(self, index: int) -> np.ndarray:
        """What the reference says, ``(H, W)``."""
        return self._truths[index]

    def refer(self, session: Session, runs: TransformersRuns) -> None:
        """Run the references of all images."""
        patch = describe(find_backbone(session.model)).patch or 1
        with runs.called_by(reference(patch)), torch.no_grad():
            for index, size in enumerate(self.sizes):
                inputs = session.loaded.placed(session.loaded.prepare([self.image(index)]))
                outputs = session.call(inputs)
                self._truths += session.task.predictions(outputs, [size])


def unlabelled_task(loaded: Loaded, data: Unlabelled) -> Task:
    """The task, judged at every pixel."""
    processor = loaded.prepare.image_processor
    if loaded.task == "depth":
        return Depth(processor, DepthProtocol(min_depth=0, max_depth=math.inf, clamp=False))
    names = loaded.model.config.id2label
    classes = [str(names.get(i, i)) for i in range(loaded.model.config.num_labels)]
    with torch.no_grad():
        outputs = loaded.outputs(loaded.placed(loaded.prepare([data.image(0)])))
    return semantic_task(outputs, processor, classes, -1)
