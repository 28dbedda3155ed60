"""The procedural scenes as Detectron2 datasets that need no files.

Pictures and label maps are rendered when a path that starts with ``scenes://`` is opened, so
Detectron2's own mappers, evaluators and visualizers work on them unchanged.
"""

from __future__ import annotations

import io
import re
from functools import partial
from typing import Any

import numpy as np
import pycocotools.mask
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.structures import BoxMode
from detectron2.utils.file_io import PathHandler, PathManager
from PIL import Image

from ..errors import ConfigError
from ..scenes import CLASSES, IGNORE_INDEX, PALETTE, SPLIT_SEEDS, THING_CLASSES, Scenes, render

PREFIX = "scenes://"
_PATH = re.compile(r"scenes://(\w+)/(\d+)x(\d+)/(\d+)(_labels)?\.png")
_REGISTERED: dict[str, tuple[str, int, tuple[int, int]]] = {}
_THINGS = {CLASSES.index(name): i for i, name in enumerate(THING_CLASSES)}


class ScenesHandler(PathHandler):
    """Opens ``scenes://<split>/<H>x<W>/<index>.png`` and ``..._labels.png`` as PNG bytes."""

    def _get_supported_prefixes(self) -> list[str]:
        return [PREFIX]

    def _open(self, path: str, mode: str = "r", buffering: int = -1, **_: Any) -> io.BytesIO:
        match = _PATH.fullmatch(path)
        if match is None or match[1] not in SPLIT_SEEDS:
            raise FileNotFoundError(
                f"Expected scenes://<{'|'.join(SPLIT_SEEDS)}>/<H>x<W>/<index>[_labels].png, "
                f"got {path!r}."
            )
        if mode != "rb":
            raise ConfigError(f"Expected mode='rb' for {path!r}, got {mode!r}.")
        scene = render(SPLIT_SEEDS[match[1]], int(match[4]), (int(match[2]), int(match[3])))
        data = io.BytesIO()
        # Fast rather than small: the bytes live for one read.
        image = Image.fromarray(scene.labels if match[5] else scene.image)
        image.save(data, "png", compress_level=0)
        data.seek(0)
        return data


def scene_dicts(split: str, length: int, size: tuple[int, int]) -> list[dict]:
    """Detectron2's standard dicts of a split, with boxes, run-length masks and label maps.

    Args:
        split: ``"train"``, ``"val"`` or ``"test"``.
        length: number of scenes.
        size: ``(H, W)`` in pixels.
    """
    dicts = []
    for index, scene in enumerate(Scenes(split, length, size)):
        name = f"{PREFIX}{split}/{size[0]}x{size[1]}/{index:05d}"
        annotations = [
            {
                "bbox": [float(v) for v in box],
                "bbox_mode": BoxMode.XYXY_ABS,
                "category_id": _THINGS[int(label)],
                "segmentation": pycocotools.mask.encode(np.asfortranarray(mask, np.uint8)),
                "iscrowd": 0,
            }
            for box, mask, label in zip(scene.boxes, scene.masks, scene.classes)
        ]
        dicts.append(
            {
                "file_name": f"{name}.png",
                "sem_seg_file_name": f"{name}_labels.png",
                "image_id": index,
                "height": size[0],
                "width": size[1],
                "annotations": annotations,
            }
        )
    return dicts


def register_scenes(
    split: str = "val",
    length: int = 100,
    size: tuple[int, int] = (320, 480),
    name: str | None = None,
) -> str:
    """Register a split in Detectron2's catalogs, once; returns its name.

    Instances are trees, signs, cars and people (bitmask run-length masks); label maps have the ten
    classes of :data:`srt_plugins.scenes.CLASSES`.

    Args:
        split: ``"train"``, ``"val"`` or ``"test"``.
        length: number of scenes.
        size: ``(H, W)`` in pixels.
        name: name in the catalogs; None = ``scenes_<split>_<length>_<H>x<W>``.

    Raises:
        ConfigError: an unknown split, a length below 1, or a name that another dataset has.
    """
    size = (int(size[0]), int(size[1]))
    Scenes(split, length, size)  # its checks
    name = name or f"scenes_{split}_{length}_{size[0]}x{size[1]}"
    if name in DatasetCatalog and _REGISTERED.get(name) != (split, length, size):
        raise ConfigError(
            f"Expected a name that is free in Detectron2's catalog, got {name!r}, which names "
            "another dataset; leave name out for one that says what is in it."
        )
    if not any(isinstance(h, ScenesHandler) for h in PathManager._path_handlers.values()):
        PathManager.register_handler(ScenesHandler())
    if name not in DatasetCatalog:
        DatasetCatalog.register(name, partial(scene_dicts, split, length, size))
        _REGISTERED[name] = (split, length, size)
        MetadataCatalog.get(name).set(
            thing_classes=list(THING_CLASSES),
            thing_colors=[PALETTE[CLASSES.index(n)] for n in THING_CLASSES],
            stuff_classes=list(CLASSES),
            stuff_colors=list(PALETTE),
            ignore_label=IGNORE_INDEX,
            evaluator_type="coco",
        )
    return name
