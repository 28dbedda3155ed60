"""What a wrapped backbone carries: settings, facts about it, and the views that follow."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from torch import Tensor

from .adapters.base import Adapter
from .core.cells import output_cell
from .core.views import Views, resolve
from .errors import ConfigError
from .settings import Settings

# Phases per axis of the default views with a tolerance: the default four come first.
ADAPTIVE_PHASES = 4


@dataclass
class State:
    """What a wrapped backbone carries beside its own attributes.

    Attributes:
        settings: current settings.
        adapter: facts about the backbone.
        enabled: False passes every call straight through.
        needs_weights: True until weights were loaded into a backbone that a config built.
        dispersion: spread over views of the last forward, one ``(B, 1, h, w)`` map per ensembled
            grid (root mean square over channels of the standard deviation over views).
        views_used: views that the last forward ran, one number per image.
        images_run: images of all forwards, and views_run: their views.
    """

    settings: Settings
    adapter: Adapter
    enabled: bool = True
    needs_weights: bool = False
    dispersion: tuple[Tensor, ...] = ()
    views_used: tuple[int, ...] = ()
    images_run: int = 0
    views_run: int = 0
    warned: set[str] = field(default_factory=set)
    _resolved: tuple[Settings, Views] | None = None

    def views(self) -> Views:
        """The views of the current settings, resolved once for each settings object."""
        if self._resolved is None or self._resolved[0] is not self.settings:
            views = chosen_views(self.settings, self.adapter.patch or 1, quiet=True)
            self._resolved = (self.settings, views)
        return self._resolved[1]

    def ran(self, views_used: Sequence[int]) -> None:
        """Count a forward that ran so many views of each image."""
        self.views_used = tuple(views_used)
        self.images_run += len(views_used)
        self.views_run += sum(views_used)

    @property
    def mean_views_used(self) -> float:
        """Views per image over all forwards that were counted; NaN where there were none."""
        return self.views_run / self.images_run if self.images_run else math.nan


def chosen_views(settings: Settings, patch: int, quiet: bool = False) -> Views:
    """The views of some settings for a patch size in pixels, checked against the statistic."""
    asked = settings.views
    if asked is None and settings.level is None and settings.tolerance is not None:
        asked = f"phases:{max(2, min(ADAPTIVE_PHASES, patch))}"
    views = resolve(asked, settings.level, patch, quiet=quiet)
    views = (views.alternated() if settings.flip else views).first(settings.max_views)
    if settings.statistic == "median" and len(set(views.weights)) > 1:
        raise ConfigError(
            "Expected views of equal weight with statistic='median', which takes no weights, got "
            f"{views.weights}; leave the weights out or use statistic='mean'."
        )
    return views


def check(settings: Settings, adapter: Adapter) -> None:
    """Everything that can be known before a forward, so that nothing is wrapped in vain.

    Raises:
        ConfigError: see the keyword that it names.
    """
    if settings.layer is not None:
        adapter.block_index(settings.layer)
    if adapter.patch is not None:
        chosen_views(settings, adapter.patch)
    strides = adapter.by_size.strides if adapter.by_size else adapter.strides or ()
    for stride in set(strides) - {0}:
        output_cell(stride, settings.stride)
