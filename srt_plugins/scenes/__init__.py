"""Procedural scenes: pictures with exact labels, depth and instances, without any download.

``Scenes("val")[0]`` is a `Scene` with ``image``, ``labels``, ``depth``, ``boxes``, ``masks`` and
``classes``. Needs NumPy only.
"""

from .classes import CLASSES, IGNORE_INDEX, PALETTE, THING_CLASSES
from .dataset import SPLIT_SEEDS, Scenes
from .render import Scene, render

__all__ = [
    "CLASSES",
    "IGNORE_INDEX",
    "PALETTE",
    "SPLIT_SEEDS",
    "THING_CLASSES",
    "Scene",
    "Scenes",
    "render",
]
