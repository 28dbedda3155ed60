"""A point marked in a picture."""

from __future__ import annotations

import numpy as np


def marked(picture: np.ndarray, point: tuple[int, int]) -> np.ndarray:
    """The picture with a ring around a point.

    Args:
        picture: ``(H, W, 3)`` uint8.
        point: ``(y, x)`` in pixels.
    """
    from PIL import Image, ImageDraw

    radius = max(4, round(min(picture.shape[:2]) / 40))
    image = Image.fromarray(picture)
    draw = ImageDraw.Draw(image)
    y, x = point
    wide = max(2, radius // 3)
    # Black around white is seen on any ground.
    for grown, colour, width in ((1, (0, 0, 0), wide + 2), (0, (255, 255, 255), wide)):
        r = radius + grown
        draw.ellipse((x - r, y - r, x + r, y + r), outline=colour, width=width)
    return np.asarray(image)
