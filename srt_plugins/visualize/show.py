"""What `srt show` shows of an image: features, how much views disagree, predictions."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from ..errors import ConfigError, nearest
from ..settings import Settings
from . import overlay
from .basis import Basis
from .colours import heat, palette, robust_range
from .features import Features, Map
from .panels import Panel, resize_nearest, resize_smooth
from .similarity import cosine_to_point
from .subject import Inputs, Prediction, Subject

PANELS = ("image", "tokens", "srt", "dispersion", "similarity", "before", "after", "changed")
# 16 views: every quarter of a patch, smooth to look at; the product's default is 4.
DEFAULT = Settings(views="phases:4")


@dataclass(frozen=True)
class Look:
    """How to look.

    Attributes:
        settings: of SRT, in features and predictions.
        layer: block to look at, and where SRT is; None = the backbone's last output.
        output: which output of the backbone, counted among its token grids.
        point: ``(y, x)`` in pixels of the image whose feature all others are compared with.
        panels: what to show, some of :data:`PANELS`; None = all that the model has.
    """

    settings: Settings = DEFAULT
    layer: int | str | None = None
    output: int = -1
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


class Show:
    """Pictures of what a model makes of images.

    Args:
        subject: the model.
        look: how to look.
        basis: colours of features; None = fitted by :meth:`fit`.

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
            dispersion=settings.statistic == "mean",
        )
        self._settings = settings if look.layer is None else replace(settings, layer=look.layer)
        self._palette = subject.palette

    @property
    def panels(self) -> tuple[str, ...]:
        """What is shown."""
        predicts = self.subject.task is not None
        there = {
            "similarity": self.look.point is not None,
            "dispersion": self._seen.dispersion,
            **dict.fromkeys(("before", "after", "changed"), predicts),
        }
        if self.look.panels is None:
            return tuple(name for name in PANELS if there.get(name, True))
        lacking = [name for name in self.look.panels if not there.get(name, True)]
        if lacking:
            raise ConfigError(
                f"Expected panels that {self.subject.name} has, got {lacking[0]!r}: "
                + ("it predicts nothing." if not predicts else "the median has no dispersion.")
            )
        return tuple(self.look.panels)

    def fit(self, images: Iterable[np.ndarray], without_background: bool = False) -> Basis:
        """Fit the colours on plain tokens of images, and keep them.

        Args:
            images: ``(H, W, 3)`` uint8 RGB.
            without_background: colours for what the first component tells from the background.
        """
        grids = (self._plain(self.subject.inputs(image)).values for image in images)
        self.basis = Basis.fit(grids, without_background=without_background)
        return self.basis

    def __call__(self, image: np.ndarray) -> list[Panel]:
        """The panels of an image, ``(H, W, 3)`` uint8 RGB, each of its size."""
        names = self.panels
        if self.basis is None:
            self.fit([image])
        made: dict[str, list[Panel]] = {}
        given = self.subject.inputs(image)
        size = image.shape[:2]
        if "image" in names:
            made["image"] = [self._image(image)]
        if "tokens" in names:
            made["tokens"] = [self._coloured("plain tokens", self._plain(given), given, size)]
        if "srt" in names or "dispersion" in names:
            found = self.features.ensembled(given.images, self._seen, self.basis)
            made["srt"] = [self._coloured(f"SRT, {self.views}", found, given, size)]
            if found.dispersion is not None:
                made["dispersion"] = [self._dispersion(found, given, size)]
        if "similarity" in names:
            made["similarity"] = self._similar(given, size)
        if {"before", "after", "changed"} & set(names):
            made.update(self._predictions(image))
        return [panel for name in names for panel in made.get(name, [])]

    @property
    def views(self) -> str:
        """How many views, in words."""
        count = self.features.view_count(self._seen)
        return f"{count} view" + ("s" if count != 1 else "")

    def _plain(self, given: Inputs) -> Map:
        return self.features.plain(given.images)

    def _image(self, image: np.ndarray) -> Panel:
        if self.look.point is None:
            return Panel(image, "image")
        return Panel(overlay.marked(image, self.look.point), "image")

    def _coloured(self, title: str, found: Map, given: Inputs, size: tuple[int, int]) -> Panel:
        basis = self.basis
        assert basis is not None
        raw = found.values
        projected = raw if raw.shape[1] == len(basis.low) else basis.project(raw)
        picture = basis.colours(projected[0])
        return Panel(_placed(picture, given, size), title, _cells(found))

    def _dispersion(self, found: Map, given: Inputs, size: tuple[int, int]) -> Panel:
        assert found.dispersion is not None
        values = found.dispersion[0, 0].numpy()
        low, high = robust_range(values)
        picture = _placed(heat(values, low, high), given, size)
        return Panel(picture, "dispersion over views", f"{low:.3g} (dark) to {high:.3g}")

    def _similar(self, given: Inputs, size: tuple[int, int]) -> list[Panel]:
        assert self.look.point is not None
        top, left, height, width = given.shown
        y, x = self.look.point
        if not (0 <= y < size[0] and 0 <= x < size[1]):
            raise ConfigError(
                f"Expected the point to lie in the image of {size[0]} x {size[1]} pixels, got "
                f"({y}, {x}): row first, from the top left."
            )
        # In pixels of what the backbone gets.
        point = (top + y * height // size[0], left + x * width // size[1])
        panels = []
        for title, settings in (("plain", None), (f"SRT, {self.views}", self._seen)):
            found = cosine_to_point(self.features, given.images, settings, point)
            picture = heat(found.values[0, 0].numpy(), 0.0, 1.0, "viridis")
            placed = overlay.marked(_placed(picture, given, size), self.look.point)
            panels.append(Panel(placed, f"similarity, {title}", "cosine 0 (dark) to 1"))
        return panels

    def _predictions(self, image: np.ndarray) -> dict[str, list[Panel]]:
        before = self.subject.predict(image)
        after = self.subject.predict(image, self._settings)
        draw = {"classes": self._classes, "depth": self._depth, "instances": self._instances}
        return draw[str(before.task)](image, before, after)

    def _classes(
        self, image: np.ndarray, before: Prediction, after: Prediction
    ) -> dict[str, list[Panel]]:
        assert before.labels is not None and after.labels is not None
        colours = self._colours(int(max(before.labels.max(), after.labels.max())) + 1)
        names = list(self.subject.classes)
        pictures = [
            overlay.classes(image, one.labels, colours, names=names or None)
            for one in (before, after)
        ]
        changed, share = overlay.changed(image, before.labels, after.labels, palette=colours)
        return {
            "before": [Panel(pictures[0], "prediction, plain")],
            "after": [Panel(pictures[1], f"prediction, SRT, {self.views}")],
            "changed": [Panel(changed, "what changed, as SRT has it", f"{share:.1%} of pixels")],
        }

    def _depth(
        self, image: np.ndarray, before: Prediction, after: Prediction
    ) -> dict[str, list[Panel]]:
        assert before.depth is not None and after.depth is not None
        low, high = robust_range(np.stack([before.depth, after.depth]))
        note = f"{low:.3g} (dark) to {high:.3g}"
        difference, limit = overlay.difference(before.depth, after.depth)
        size = image.shape[:2]
        first, second, third = (
            resize_nearest(picture, size)
            for picture in (
                overlay.depth(before.depth, low, high),
                overlay.depth(after.depth, low, high),
                difference,
            )
        )
        return {
            "before": [Panel(first, "depth, plain", note)],
            "after": [Panel(second, f"depth, SRT, {self.views}", note)],
            "changed": [Panel(third, "SRT minus plain", f"blue -{limit:.3g} to red {limit:.3g}")],
        }

    def _instances(
        self, image: np.ndarray, before: Prediction, after: Prediction
    ) -> dict[str, list[Panel]]:
        assert before.labels is not None and after.labels is not None
        count = int(max([0, *before.labels, *after.labels])) + 1
        colours, names = self._colours(count), list(self.subject.classes)
        pictures = [
            overlay.instances(
                image, one.boxes, one.labels, one.scores, names or None, one.masks, colours
            )
            for one in (before, after)
        ]
        counts = [f"{len(one.labels)} above a score of 0.5" for one in (before, after)]  # type: ignore[arg-type]
        return {
            "before": [Panel(pictures[0], "instances, plain", counts[0])],
            "after": [Panel(pictures[1], f"instances, SRT, {self.views}", counts[1])],
        }

    def _colours(self, count: int) -> np.ndarray:
        if self._palette is None or len(self._palette) < count:
            self._palette = palette(max(count, len(self.subject.classes)))
        return self._palette


def _placed(picture: np.ndarray, given: Inputs, size: tuple[int, int]) -> np.ndarray:
    """A picture of what the backbone got, without padding, in the size of the image.

    Args:
        picture: ``(h, w, 3)``, of all of ``given.images``.
        given: what the backbone got.
        size: ``(H, W)`` of the image, pixels.
    """
    whole = resize_nearest(picture, tuple(given.images.shape[-2:]))
    top, left, height, width = given.shown
    shown = whole[top : top + height, left : left + width]
    return shown if shown.shape[:2] == size else resize_smooth(shown, size)


def _cells(found: Map) -> str:
    y, x = found.stride
    return "every pixel" if (y, x) == (1, 1) else f"cells of {y} x {x} pixels"
