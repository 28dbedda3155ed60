"""What a wrapped backbone carries: settings, facts about it, and the views that follow."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor

from .adapters.base import Adapter
from .core.accumulator import output_cell
from .core.views import Views, resolve
from .errors import ConfigError
from .settings import Settings


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
    """

    settings: Settings
    adapter: Adapter
    enabled: bool = True
    needs_weights: bool = False
    dispersion: tuple[Tensor, ...] = ()
    warned: set[str] = field(default_factory=set)
    _resolved: tuple[Settings, Views] | None = None

    def views(self) -> Views:
        """The views of the current settings, resolved once for each settings object."""
        if self._resolved is None or self._resolved[0] is not self.settings:
            views = chosen_views(self.settings, self.adapter.patch or 1, quiet=True)
            self._resolved = (self.settings, views)
        return self._resolved[1]


def chosen_views(settings: Settings, patch: int, quiet: bool = False) -> Views:
    """The views of some settings for a patch size in pixels, checked against the statistic."""
    views = resolve(settings.views, settings.level, patch, quiet=quiet).first(settings.max_views)
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
