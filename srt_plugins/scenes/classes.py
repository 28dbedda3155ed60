"""The classes of the procedural scenes, their colours and which of them are countable."""

from __future__ import annotations

CLASSES: tuple[str, ...] = (
    "sky",
    "road",
    "terrain",
    "building",
    "tree",
    "fence",
    "pole",
    "sign",
    "car",
    "person",
)
"""Class names; the position is the label value."""

PALETTE: tuple[tuple[int, int, int], ...] = (
    (110, 170, 230),
    (115, 85, 135),
    (190, 175, 110),
    (160, 90, 75),
    (50, 130, 60),
    (235, 150, 190),
    (250, 225, 60),
    (245, 130, 30),
    (40, 60, 200),
    (220, 30, 60),
)
"""RGB colour of each class for pictures of label maps."""

THING_CLASSES: tuple[str, ...] = ("tree", "sign", "car", "person")
"""Classes whose objects are listed one by one as instances; the others are stuff."""

IGNORE_INDEX = 255
"""Label value of unlabelled pixels. Rendered scenes have none; padding may add some."""

LABEL: dict[str, int] = {name: i for i, name in enumerate(CLASSES)}
"""Label value by class name."""
