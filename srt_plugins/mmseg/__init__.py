"""The MMSegmentation plugin: backbone types, depth and segmentation heads, a hook, a data
preprocessor and a dataset.

Importing it registers them; in a config, ``custom_imports = dict(imports=["srt_plugins.mmseg"])``
does. Runs on the full mmcv and on mmcv-lite.
"""

from __future__ import annotations

from ..errors import MissingDependencyError
from .mmcv_ops import install_placeholder

install_placeholder()  # before anything of mmseg.models is imported

try:
    import mmseg  # noqa: F401
except ModuleNotFoundError as error:
    if error.name != "mmseg":
        raise
    raise MissingDependencyError(
        "srt_plugins.mmseg needs MMSegmentation 1.x, which is not installed:\n"
        '  pip install "srt-plugins[mmseg]"'
    ) from error

from .build import SRTWrapper  # noqa: E402
from .dinov2 import DINOv2  # noqa: E402
from .dpt_depth_head import DINOv2DPTDepthHead  # noqa: E402
from .hook import SRTHook  # noqa: E402
from .linear_depth_head import DINOv2LinearDepthHead  # noqa: E402
from .linear_seg_head import DINOv2LinearHead  # noqa: E402
from .preprocessor import PaddedSegDataPreProcessor  # noqa: E402
from .scenes import LoadScene, ScenesDataset  # noqa: E402
from .uncertainty import with_dispersion  # noqa: E402
from .visualizer import SRTLocalVisualizer  # noqa: E402

__all__ = [
    "DINOv2",
    "DINOv2DPTDepthHead",
    "DINOv2LinearDepthHead",
    "DINOv2LinearHead",
    "LoadScene",
    "PaddedSegDataPreProcessor",
    "SRTHook",
    "SRTLocalVisualizer",
    "SRTWrapper",
    "ScenesDataset",
    "with_dispersion",
]
