"""Stochastic Resonance Transformer ensembling at test time, for models that you already have.

``SRTWrapper(backbone)`` makes a frozen ViT backbone run on a few translated copies of its input,
puts the feature maps back in place and averages them (Lao et al., ICML 2024, arXiv 2310.03967).
"""

from __future__ import annotations

from .core import views
from .errors import (
    AdapterError,
    CaptureError,
    CheckpointError,
    ConfigError,
    MediaError,
    MissingDependencyError,
    SRTError,
)
from .settings import Settings
from .wrapper import (
    SRTWrapper,
    attach,
    detach,
    dispersion,
    mean_views_used,
    srt_enabled,
    views_used,
)

__version__ = "0.1.0"

__all__ = [
    "AdapterError",
    "CaptureError",
    "CheckpointError",
    "ConfigError",
    "MediaError",
    "MissingDependencyError",
    "SRTError",
    "SRTWrapper",
    "Settings",
    "attach",
    "detach",
    "dispersion",
    "mean_views_used",
    "srt_enabled",
    "views",
    "views_used",
]
