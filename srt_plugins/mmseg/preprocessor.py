"""Completing images to a size with real pixels instead of a constant."""

from __future__ import annotations

from typing import Any

from mmseg.models.data_preprocessor import SegDataPreProcessor
from mmseg.registry import MODELS

from ..core.translate import check_padding, pad
from ..errors import ConfigError


@MODELS.register_module()
class PaddedSegDataPreProcessor(SegDataPreProcessor):
    """``SegDataPreProcessor`` that pads test images by continuing them.

    A constant border is something that the network never saw in training and it changes the tokens
    next to it. Padding sizes, metainfo and training (which pads with ``pad_val``) are the parent's.

    Args:
        padding: ``"replicate"`` (edge pixels), ``"reflect"``, or ``"zeros"`` (the parent's own
            padding with ``pad_val``, to the bit); applied after normalisation.
        **keywords: those of ``SegDataPreProcessor``; ``test_cfg=dict(size_divisor=...)`` or
            ``test_cfg=dict(size=...)`` says how far test images are completed.

    Raises:
        ConfigError: unknown padding, or no ``test_cfg``, without which nothing is padded.
    """

    def __init__(self, padding: str = "replicate", **keywords: Any) -> None:
        check_padding(padding)
        if not keywords.get("test_cfg"):
            raise ConfigError(
                "Expected test_cfg=dict(size_divisor=...) or test_cfg=dict(size=...) with "
                f"padding={padding!r}, got test_cfg={keywords.get('test_cfg')!r}: without it no "
                "test image is padded. Set test_cfg to the patch size of the backbone, or use "
                "SegDataPreProcessor."
            )
        super().__init__(**keywords)
        self.padding = padding

    def forward(self, data: dict, training: bool = False) -> dict[str, Any]:
        """Normalise, then pad and stack; see the parent."""
        height, width = data["inputs"][0].shape[-2:]
        out = super().forward(data, training)
        if training or self.padding == "zeros":
            return out
        padded = out["inputs"]
        bottom, right = padded.shape[-2] - height, padded.shape[-1] - width
        image = padded[..., :height, :width]
        out["inputs"] = pad(image, 0, bottom, 0, right, self.padding).contiguous()
        return out
