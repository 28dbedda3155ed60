"""What every drawing function shares: camera, canvas, noise, sun, colours."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .raster import Camera, Canvas, Point
from .textures import Noise

# One list for walls, cars, clothes and signs: colour alone must not give the class away.
COLOURS = np.array(
    [
        (0.80, 0.78, 0.74),
        (0.62, 0.58, 0.52),
        (0.45, 0.45, 0.47),
        (0.24, 0.25, 0.28),
        (0.70, 0.56, 0.42),
        (0.58, 0.33, 0.25),
        (0.75, 0.20, 0.16),
        (0.85, 0.62, 0.20),
        (0.30, 0.42, 0.26),
        (0.42, 0.55, 0.60),
        (0.20, 0.32, 0.58),
        (0.86, 0.84, 0.86),
        (0.50, 0.38, 0.50),
        (0.36, 0.26, 0.20),
    ],
    dtype=np.float32,
)


@dataclass
class World:
    """State of one scene while it is drawn.

    Attributes:
        camera, canvas, noise: where and with what to draw.
        sun: horizontal direction (x, z) from which the light comes, unit length.
        contrast: 0 (overcast) to 1 (hard light).
        kinds: class label of every instance so far; instance k has number k + 1 on the canvas.
    """

    camera: Camera
    canvas: Canvas
    noise: Noise
    sun: Point
    contrast: float
    kinds: list[int]

    def instance(self, label: int) -> int:
        """Open a new instance of a class and return its number."""
        self.kinds.append(label)
        return len(self.kinds)

    def light(self, start: Point, end: Point) -> float:
        """Brightness of an upright face over start-end, whose outside is on the left of it."""
        dx, dz = end[0] - start[0], end[1] - start[1]
        facing = (-dz * self.sun[0] + dx * self.sun[1]) / (np.hypot(dx, dz) + 1e-6)
        return float(0.8 + 0.35 * self.contrast * facing)


def pick(
    rng: np.random.Generator, colours: np.ndarray = COLOURS, spread: float = 0.06
) -> np.ndarray:
    """A colour (3,) from a list (n, 3), a little off; always the same number of random draws."""
    colour = colours[int(rng.integers(len(colours)))]
    return np.clip(colour + rng.uniform(-spread, spread, 3), 0.03, 0.97).astype(np.float32)


def box(centre: Point, length: float, width: float, yaw: float) -> list[tuple[Point, Point]]:
    """The four sides of an upright box, each (start, end) with the outside on its left.

    Args:
        centre: (x, z) in metres.
        length: metres along the yaw direction.
        width: metres across it.
        yaw: angle from the z axis towards x, in radians.
    """
    ux, uz = np.sin(yaw) * length / 2, np.cos(yaw) * length / 2
    vx, vz = np.cos(yaw) * width / 2, -np.sin(yaw) * width / 2
    x, z = centre
    a, b = (x + ux + vx, z + uz + vz), (x + ux - vx, z + uz - vz)
    c, d = (x - ux - vx, z - uz - vz), (x - ux + vx, z - uz + vz)
    # Clockwise seen from above (x right, z up): the outside is on the left.
    return [(b, a), (a, d), (d, c), (c, b)]


def towards_camera(start: Point, end: Point) -> bool:
    """Whether the outside (left) of a face is turned to the camera at the origin."""
    dx, dz = end[0] - start[0], end[1] - start[1]
    # Left normal of (dx, dz) is (-dz, dx); the camera lies at -start from start.
    return bool(dz * start[0] - dx * start[1] > 0)
