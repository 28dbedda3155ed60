"""What is chosen on the page, as settings of SRT."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ..core.views import check_level
from ..errors import ConfigError
from ..settings import Settings
from ..state import chosen_views

# How views are chosen: evenly spread phases of the patch, the paper's full grid, the best so many.
KINDS = ("phases", "grid", "number")
SMOOTHING = {"none": None, "3": 3, "5": 5, "guided": "guided"}
# Layer in the page: the backbone's own last output.
OUTPUTS = "outputs"
# Level that the page offers with the full grid: that of the paper's tables.
PAPERS_LEVEL = 3


@dataclass(frozen=True)
class Choice:
    """What is chosen on the page.

    Attributes:
        views: one of :data:`KINDS`.
        level: largest translation in pixels; for phases and numbers, half a patch or more means
            the whole patch, and 0 always switches views off.
        per_axis: phases per axis.
        count: number of views, for ``"number"``.
        layer: :data:`OUTPUTS` or the index of a block.
        smooth: one of :data:`SMOOTHING`.
        flip: mirror every second view.
    """

    views: str = "phases"
    level: Any = None
    per_axis: Any = 2
    count: Any = 4
    layer: str = OUTPUTS
    smooth: str = "none"
    flip: bool = False

    @property
    def block(self) -> int | None:
        """Index of the block, None for the outputs."""
        return None if self.layer == OUTPUTS else int(self.layer)

    def keywords(self, patch: int) -> dict[str, Any]:
        """The chosen settings as the keywords that ask for them, defaults left out.

        Args:
            patch: period of the token grid, pixels.

        Raises:
            ConfigError: a level or a number that cannot be.
        """
        found: dict[str, Any] = {}
        level = check_level(_whole("level", self.level))
        if self.views == "grid" or level < patch // 2 or level == 0:
            found["level"] = level
        if level and self.views == "phases":
            found["views"] = "phases" if self.per_axis == 2 else f"phases:{_of(self, 'per_axis')}"
        elif level and self.views == "number":
            found["views"] = _of(self, "count")
        if self.block is not None:
            found["layer"] = self.block
        if SMOOTHING[self.smooth] is not None:
            found["smooth"] = SMOOTHING[self.smooth]
        if self.flip:
            found["flip"] = True
        return found

    def settings(self, patch: int) -> Settings:
        """The chosen settings, without the layer, which belongs to what is looked at.

        Raises:
            ConfigError: a level or a number that cannot be with this patch.
        """
        keywords = self.keywords(patch)
        keywords.pop("layer", None)
        settings = Settings.of(**keywords)
        chosen_views(settings, patch, quiet=True)
        return settings

    def view_count(self, patch: int) -> int:
        """How many views that is.

        Raises:
            ConfigError: as :meth:`settings`.
        """
        return len(chosen_views(self.settings(patch), patch, quiet=True))


def _of(choice: Choice, name: str) -> int:
    value = _whole({"count": "number of views", "per_axis": "phases"}[name], getattr(choice, name))
    if value < 1:
        raise ConfigError(f"Expected a {name} of at least 1, got {value}.")
    return value


def _whole(name: str, value: Any) -> int:
    """A number of a page's field, which may be empty or a float."""
    if value is None or isinstance(value, bool) or int(value) != value:
        raise ConfigError(
            f"Expected {name} to be a whole number, got {'nothing' if value is None else value}."
        )
    return int(value)
