"""What `srt show` shows of an image: features, how much views disagree, predictions."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import numpy as np
from torch import Tensor

from ..adapters import describe
from ..errors import ConfigError, nearest
from ..settings import Settings
from ..state import chosen_views
from .basis import Basis
from .before_after import before_after, colours_of
from .colours import Scale, heat, robust_range
from .features import Features, Map
from .marks import marked
from .overlay import key_of
from .panels import Key, Panel
from .placing import cells_in_words, placed, within
from .subject import Inputs, Subject

PANELS = (
    *("image", "tokens", "one", "srt", "dispersion", "similarity"),
    *("before", "after", "changed"),
)
# 16 views: every quarter of a patch, smooth to look at; the product's default is 4.
DEFAULT = Settings(views="phases:4")


@dataclass(frozen=True)
class Look:
    """How to look.

    Attributes:
        settings: of SRT, in features and predictions.
        layer: block to look at, and where SRT is; None = the backbone's last output.
        output: which output of the backbone; see :class:`.features.Features`.
        point: ``(y, x)`` in pixels of the image whose feature all others are compared with; see
            ``whole`` of :class:`Show`.
        panels: what to show, some of :data:`PANELS`; None = all that the model has.
    """

    settings: Settings = DEFAULT
    layer: int | str | None = None
    output: int | str | None = None
    point: tuple[int, int] | None = None
    panels: Sequence[str] | None = None

    def __post_init__(self) -> None:
        for name in self.panels or ():
            if name not in PANELS:
                raise ConfigError(
                    f"Expected panels to name some of {', '.join(PANELS)}, got {name!r}; did you "
                    f"mean {nearest(name, PANELS, 1)}?"
                )
        if self.panels is not None and "similarity" in self.panels and self.point is None:
            raise ConfigError(
                "Expected a point to compare features with for the panel similarity, got none; "
                "give --point Y X."
            )


@dataclass
class Shown:
    """What there is to see of an image.

    Attributes:
        panels: in the order of :data:`PANELS`, each with its name; pictures have the size of the
            image.
        key: colours of the classes; None where there are none.
        figures: what the pictures say in numbers: ``dispersion``, its mean over the image;
            ``changed``, the share of pixels whose class differs with SRT, of depth the mean
            absolute difference; ``views`` that features took, where a tolerance is set.
    """

    panels: list[tuple[str, Panel]] = field(default_factory=list)
    key: Key | None = None
    figures: dict[str, float] = field(default_factory=dict)


class Show:
    """Pictures of what a model makes of images.

    Args:
        subject: the model.
        look: how to look.
        basis: colours of features; None = fitted by :meth:`fit`.

    Attributes:
        panels: what is shown, some of :data:`PANELS`.

    Raises:
        SRTError: settings, a layer or panels that do not fit the model.
    """

    def __init__(self, subject: Subject, look: Look, basis: Basis | None = None) -> None:
        self.subject = subject
        self.look = look
        self.basis = basis
        self.features = Features(subject.backbone, look.layer, look.output)
        settings = look.settings
        self._seen = replace(
            settings,
            layer=None,
            outputs=None,
            stride=settings.stride or 1,
            dispersion=settings.statistic == "mean"
            and (look.panels is None or "dispersion" in look.panels),
        )
        self._settings = settings if look.layer is None else replace(settings, layer=look.layer)
        # Of colours, by what they show, where pictures are frames.
        self._ranges: dict[str, tuple[float, float]] | None = None
        self.panels = self._chosen()

    def _chosen(self) -> tuple[str, ...]:
        """What is shown: all that the model has, or what is asked for."""
        predicts = self.subject.task is not None
        there = {
            # Without smoothing it is the tokens again.
            "one": self._seen.smooth is not None,
            "similarity": self.look.point is not None,
            "dispersion": self._seen.dispersion,
            **dict.fromkeys(("before", "after"), predicts),
            "changed": predicts and self.subject.task != "instances",
        }
        if self.look.panels is None:
            return tuple(name for name in PANELS if there.get(name, True))
        lacking = [name for name in self.look.panels if not there.get(name, True)]
        if lacking:
            reasons = {
                "one": "without --smooth one view shows the tokens again.",
                "dispersion": "the median has none.",
            }
            if predicts:
                reasons["changed"] = "instances share no pixels to compare; see before and after."
            raise ConfigError(
                f"Expected panels that {self.subject.name} has, got {lacking[0]!r}: "
                + reasons.get(lacking[0], "it predicts nothing.")
            )
        return tuple(self.look.panels)

    @property
    def coloured(self) -> bool:
        """Whether some of the panels need colours that are fitted to tokens."""
        return not {"tokens", "one", "srt", "dispersion"}.isdisjoint(self.panels)

    def fit(self, images: Iterable[np.ndarray], without_background: bool = False) -> Basis:
        """Fit the colours on plain tokens of images, and keep them.

        Args:
            images: ``(H, W, 3)`` uint8 RGB.
            without_background: colours for what the first component tells from the background.
        """
        grids = (self._tokens(image) for image in images)
        self.basis = Basis.fit(grids, without_background=without_background)
        return self.basis

    def _tokens(self, image: np.ndarray) -> Tensor:
        """Plain tokens ``(1, D, h, w)`` that show the image, without those of padding."""
        given = self.subject.inputs(image)
        found = self.features.plain(given.images)
        return within(found.values, found.stride, given)

    @contextmanager
    def steady(self) -> Iterator[None]:
        """While active, dispersion and depth have the colours that they have in the first image."""
        self._ranges = {}
        try:
            yield
        finally:
            self._ranges = None

    def whole_key(self) -> Key | None:
        """The legend of all classes of a model that tells classes, None for others."""
        if self.subject.task != "classes" or not self.subject.classes:
            return None
        if not {"before", "after"} & set(self.panels):
            return None
        names = list(self.subject.classes)
        return key_of(np.arange(len(names))[None], names, colours_of(self.subject, len(names)))

    def __call__(self, image: np.ndarray, whole: tuple[int, int] | None = None) -> Shown:
        """What there is to see of an image.

        Args:
            image: ``(H, W, 3)`` uint8 RGB.
            whole: height and width that the point is in, where the image was made smaller since;
                None = those of the image.

        Raises:
            ConfigError: a point outside.
        """
        names = self.panels
        point = self._point(image, whole)
        if self.basis is None and self.coloured:
            self.fit([image])
        shown = Shown()
        given = self.subject.inputs(image)
        size = (image.shape[0], image.shape[1])
        made: dict[str, list[Panel]] = {}
        if "image" in names:
            made["image"] = [Panel(image if point is None else marked(image, point), "image")]
        if "tokens" in names:
            found = self.features.plain(given.images, self.basis)
            made["tokens"] = [self._coloured("plain tokens", found, given, size)]
        if "one" in names:
            single = self._seen.but(level=None, views=[(0, 0)], dispersion=False, tolerance=None)
            found = self.features.ensembled(given.images, single, self.basis)
            made["one"] = [self._coloured("smoothed, 1 view", found, given, size)]
        if "srt" in names or "dispersion" in names:
            found = self.features.ensembled(given.images, self._seen, self.basis)
            made["srt"] = [self._coloured(f"SRT, {self.views}", found, given, size)]
            if self._seen.tolerance is not None:
                used = shown.figures["views"] = found.views_used[0]
                panel = made["srt"][0]
                made["srt"] = [replace(panel, note=f"{views_in_words(used)} here; {panel.note}")]
            if found.dispersion is not None:
                made["dispersion"] = [self._dispersion(found, given, size, shown)]
        if "similarity" in names and point is not None:
            made["similarity"] = self._similar(given, size, point)
        if {"before", "after", "changed"} & set(names):
            made.update(self._predictions(image, shown))
        shown.panels = [(name, panel) for name in names for panel in made.get(name, [])]
        return shown

    @property
    def views(self) -> str:
        """How many views, in words."""
        patch = describe(self.subject.backbone).patch or self.features.tokens.patch
        most = "" if self._seen.tolerance is None else "up to "
        return most + views_in_words(len(chosen_views(self._seen, patch, quiet=True)))

    def _coloured(self, title: str, found: Map, given: Inputs, size: tuple[int, int]) -> Panel:
        assert self.basis is not None
        front = None if found.foreground is None else found.foreground[0]
        picture = self.basis.colours(found.values[0], front)
        return Panel(
            placed(picture, found.stride, given, size), title, cells_in_words(found, given, size)
        )

    def _dispersion(self, found: Map, given: Inputs, size: tuple[int, int], shown: Shown) -> Panel:
        assert found.dispersion is not None
        values = found.dispersion[0, 0]
        # Padding disagrees with the image beside it, and is not shown.
        inside = within(values, found.token_stride, given).numpy()
        ranges = {} if self._ranges is None else self._ranges
        low, high = ranges.setdefault("dispersion", robust_range(inside))
        shown.figures["dispersion"] = float(inside.mean())
        picture = placed(heat(values.numpy(), low, high), found.token_stride, given, size)
        return Panel(picture, "dispersion", scale=Scale(low, high))

    def _point(self, image: np.ndarray, whole: tuple[int, int] | None) -> tuple[int, int] | None:
        """Where the point is in the image."""
        if self.look.point is None:
            return None
        height, width = whole or image.shape[:2]
        y, x = self.look.point
        if not (0 <= y < height and 0 <= x < width):
            raise ConfigError(
                f"Expected the point to lie in the image of {height} x {width} pixels, got "
                f"({y}, {x}): row first, from the top left."
            )
        return y * image.shape[0] // height, x * image.shape[1] // width

    def _similar(self, given: Inputs, size: tuple[int, int], spot: tuple[int, int]) -> list[Panel]:
        top, left, height, width = given.shown
        y, x = spot
        # In pixels of what the backbone gets.
        point = (top + y * height // size[0], left + x * width // size[1])
        from .similarity import cosine_to_point

        panels = []
        for title, settings in (("plain", None), (f"SRT, {self.views}", self._seen)):
            found = cosine_to_point(self.features, given.images, settings, point)
            picture = heat(found.values[0, 0].numpy(), 0.0, 1.0, "viridis")
            there = marked(placed(picture, found.stride, given, size), spot)
            panels.append(Panel(there, f"similarity, {title}", scale=Scale(0, 1, "viridis")))
        return panels

    def _predictions(self, image: np.ndarray, shown: Shown) -> dict[str, list[Panel]]:
        before = self.subject.predict(image)
        after = self.subject.predict(image, self._settings)
        found = before_after(self.subject, image, before, after, self.views, self._ranges)
        shown.key = found.key
        shown.figures.update(found.figures)
        return {name: [panel] for name, panel in found.panels.items()}


def views_in_words(count: int) -> str:
    """``"1 view"``, ``"4 views"``."""
    return f"{count} view" + ("s" if count != 1 else "")
