"""The procedural scenes as an MMSegmentation dataset that renders on the fly."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from mmcv.transforms.base import BaseTransform
from mmseg.datasets import BaseSegDataset
from mmseg.registry import DATASETS, TRANSFORMS

from srt_plugins.scenes import CLASSES, PALETTE, SPLIT_SEEDS, Scenes, render


@DATASETS.register_module()
class ScenesDataset(BaseSegDataset):
    """Procedural street and landscape scenes; needs no files and no `data_root`.

    The pipeline starts with `LoadScene` in place of `LoadImageFromFile` and `LoadAnnotations`.

    Args:
        split: "train", "val" or "test"; their pictures differ.
        length: number of scenes.
        size: (H, W) of the pictures in pixels.
        kwargs: those of `BaseSegDataset` (`pipeline`, `metainfo`, `indices`, ...).

    Raises:
        ConfigError: unknown split or a length below 1.
    """

    METAINFO: ClassVar[dict] = {"classes": CLASSES, "palette": [list(colour) for colour in PALETTE]}

    def __init__(
        self,
        split: str = "val",
        length: int = 100,
        size: tuple[int, int] = (200, 312),
        **kwargs: Any,
    ) -> None:
        Scenes(split, length, size)  # its checks
        self.split = split
        self.length = length
        self.size = (int(size[0]), int(size[1]))
        super().__init__(**kwargs)

    def load_data_list(self) -> list[dict]:
        """One entry per scene: its seed, index and size, and a name in place of a path."""
        return [
            {
                "img_path": f"scenes_{self.split}_{index:05d}.png",
                "scene": (SPLIT_SEEDS[self.split], index, self.size),
                "label_map": self.label_map,
                "reduce_zero_label": self.reduce_zero_label,
                "seg_fields": [],
            }
            for index in range(self.length)
        ]


@TRANSFORMS.register_module()
class LoadScene(BaseTransform):
    """Render a scene of `ScenesDataset` into the results dict.

    Required keys: scene, seg_fields; optional: label_map, reduce_zero_label.

    Added keys: img (H, W, 3) uint8 BGR, img_shape, ori_shape, gt_seg_map (H, W) uint8, and with
    `depth` gt_depth_map (H, W) float32 in metres, 0 where there is none (sky).

    Args:
        depth: add the depth map.
        cache: keep every rendered scene in memory (4 bytes per pixel, 8 with depth), for training
            over several epochs. Each data loader worker holds its own; use persistent workers.
    """

    def __init__(self, depth: bool = False, cache: bool = False) -> None:
        self.depth = depth
        self.cache = cache
        self._kept: dict[tuple, tuple[np.ndarray, np.ndarray, np.ndarray | None]] = {}

    def transform(self, results: dict) -> dict:
        """Fill `results`; see the class docstring."""
        image, labels, depth = self._scene(results["scene"])
        results["img"] = image[..., ::-1].copy()
        results["img_shape"] = results["ori_shape"] = image.shape[:2]
        results["gt_seg_map"] = _relabel(labels, results)
        results["seg_fields"].append("gt_seg_map")
        if depth is not None:
            results["gt_depth_map"] = depth.copy()
            results["seg_fields"].append("gt_depth_map")
        return results

    def _scene(self, key: tuple) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
        if key in self._kept:
            return self._kept[key]
        scene = render(*key)
        arrays = (scene.image, scene.labels, scene.depth if self.depth else None)
        if self.cache:
            self._kept[key] = arrays
        return arrays

    def __repr__(self) -> str:
        return f"{type(self).__name__}(depth={self.depth}, cache={self.cache})"


def _relabel(labels: np.ndarray, results: dict) -> np.ndarray:
    """Labels after `reduce_zero_label` and a custom class list, as `LoadAnnotations` does it."""
    table = np.arange(256, dtype=np.uint8)
    if results.get("reduce_zero_label"):
        table = np.where(table == 0, 255, table - 1).astype(np.uint8)
        table[255] = 255
    mapped = table.copy()
    for old, new in (results.get("label_map") or {}).items():
        mapped[table == old] = new
    return mapped[labels]
