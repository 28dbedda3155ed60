"""Stochastic Resonance Transformer ensembling at test time, for models that you already have.

``SRTWrapper(backbone)`` makes a frozen ViT backbone run on a few translated copies of its input,
puts the feature maps back in place and averages them (Lao et al., ICML 2024, arXiv 2310.03967).
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .errors import (
    AdapterError,
    CaptureError,
    CheckpointError,
    ConfigError,
    MediaError,
    MissingDependencyError,
    SRTError,
)

# Imported when they are asked for: with torch, `srt --help` would take seconds.
if TYPE_CHECKING:
    from .core import views
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


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    place = {"views": "core", "Settings": "settings"}.get(name, "wrapper")
    if name == "views":
        import_module(".core.views", __name__)
    found = globals()[name] = getattr(import_module(f".{place}", __name__), name)
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
