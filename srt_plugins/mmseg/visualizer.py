"""Pictures of predictions with a heat map of where views disagree beside them."""

from __future__ import annotations

from typing import Any

import mmcv
import numpy as np
from mmengine.dist import master_only
from mmseg.registry import VISUALIZERS
from mmseg.visualization import SegLocalVisualizer

from ..core.patch import overridden
from .sample_maps import DEPTH_STD, DISPERSION


@VISUALIZERS.register_module()
class SRTLocalVisualizer(SegLocalVisualizer):
    """``SegLocalVisualizer`` that puts ``srt_dispersion`` and ``srt_depth_std`` beside predictions.

    The maps are laid over the image, blue where a map is lowest in that image and red where it is
    highest. Samples without them are drawn as ``SegLocalVisualizer`` does. In a config,
    ``visualizer = dict(type="SRTLocalVisualizer", vis_backends=[...], name="visualizer")``.

    Args:
        name: of the instance.
        heat_alpha: opacity of the heat maps.
        **keywords: those of ``SegLocalVisualizer``.
    """

    def __init__(self, name: str = "visualizer", heat_alpha: float = 0.6, **keywords: Any) -> None:
        super().__init__(name, **keywords)
        self.heat_alpha = heat_alpha

    @master_only
    def add_datasample(
        self,
        name: str,
        image: np.ndarray,
        data_sample: Any = None,
        draw_gt: bool = True,
        draw_pred: bool = True,
        show: bool = False,
        wait_time: float = 0,
        out_file: str | None = None,
        step: int = 0,
        with_labels: bool | None = True,
    ) -> None:
        """Draw a sample as the parent does, with heat maps to its right; see the parent."""
        drawn: list[Any] = []
        with overridden(self, "add_image", lambda _, picture, __=0: drawn.append(picture)):
            super().add_datasample(
                name, image, data_sample, draw_gt, draw_pred, step=step, with_labels=with_labels
            )
        pictures = [one for one in drawn if one is not None]
        pictures += self._heat_maps(image, data_sample) if draw_pred else []
        if not pictures:
            return
        picture = side_by_side(pictures)
        self.set_image(picture)
        if show:
            self.show(picture, win_name=name, wait_time=wait_time)
        if out_file is not None:
            mmcv.imwrite(mmcv.rgb2bgr(picture), out_file)
        else:
            self.add_image(name, picture, step)

    def _heat_maps(self, image: np.ndarray, sample: Any) -> list[np.ndarray]:
        names = [key for key in (DISPERSION, DEPTH_STD) if sample is not None and key in sample]
        return [
            self.draw_featmap(
                sample.get(key).data.detach().cpu().float(),
                image,
                resize_shape=image.shape[:2],
                alpha=self.heat_alpha,
            )
            for key in names
        ]


def side_by_side(pictures: list[np.ndarray]) -> np.ndarray:
    """Pictures ``(H, W, 3)`` from left to right, lower ones continued in black."""
    height = max(len(one) for one in pictures)
    filled = [np.pad(one, ((0, height - len(one)), (0, 0), (0, 0))) for one in pictures]
    return np.concatenate(filled, axis=1)
