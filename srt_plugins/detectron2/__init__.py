"""The Detectron2 plugin: a backbone builder for yacs configs, one line for LazyConfigs, backbones
from timm or plain torch, a linear segmentation head, and datasets that need no files.

Importing it registers them. Works with the model zoo's official checkpoints as they are.
"""

from __future__ import annotations

from ..errors import MissingDependencyError

try:
    import detectron2  # noqa: F401
except ModuleNotFoundError as error:
    if error.name != "detectron2":
        raise
    raise MissingDependencyError(
        "srt_plugins.detectron2 needs Detectron2, which is not installed; it is built for your "
        "torch from its sources: https://detectron2.readthedocs.io/tutorials/install.html"
    ) from error

from .backbones import TorchBackbone
from .build import build_srt_backbone
from .config import add_srt_config
from .heads import LinearSemSegHead
from .lazy import srt_backbone, with_srt
from .padding import complete_patches
from .scenes import register_scenes
from .timm_net import timm_net
from .uncertainty import draw_dispersion, with_dispersion

__all__ = [
    "LinearSemSegHead",
    "TorchBackbone",
    "add_srt_config",
    "build_srt_backbone",
    "complete_patches",
    "draw_dispersion",
    "register_scenes",
    "srt_backbone",
    "timm_net",
    "with_dispersion",
    "with_srt",
]
