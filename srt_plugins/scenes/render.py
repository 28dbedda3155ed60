"""Seeded renderer of small street and landscape scenes with exact labels, depth and instances."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..errors import ConfigError
from .ground import Road, paint_backdrop, paint_ground, paint_shadow, paint_sky
from .objects import paint_car, paint_person, paint_tree
from .raster import Camera, Canvas
from .structures import paint_building, paint_fence, paint_pole, paint_sign
from .textures import Noise
from .world import World

MIN_INSTANCE_PIXELS = 12
"""Objects with fewer visible pixels are not listed as instances (their labels stay)."""


@dataclass(frozen=True)
class Scene:
    """One rendered picture and everything known about it.

    Attributes:
        image: (H, W, 3) uint8 RGB.
        labels: (H, W) uint8, positions in `CLASSES`.
        depth: (H, W) float32, metres along the view axis; 0 where there is none (sky).
        boxes: (N, 4) float32 x0, y0, x1, y1 in pixels: each mask's tight box, x1 and y1 exclusive.
        masks: (N, H, W) bool, visible pixels of each instance.
        classes: (N,) int64, label of each instance; one of `THING_CLASSES`.
    """

    image: np.ndarray
    labels: np.ndarray
    depth: np.ndarray
    boxes: np.ndarray
    masks: np.ndarray
    classes: np.ndarray


def render(seed: int, index: int, size: tuple[int, int] = (256, 256)) -> Scene:
    """Render scene `index` of the series `seed`.

    The same arguments give the same bytes. The same seed and index at another size of the same
    aspect show the same scene at another resolution.

    Args:
        seed: series; 0 to 2**32 - 1.
        index: position in the series; 0 to 2**32 - 1.
        size: (H, W) in pixels, each at least 32.

    Raises:
        ConfigError: an argument is out of range.
    """
    for name, value in (("seed", seed), ("index", index)):
        if not 0 <= value < 2**32:
            raise ConfigError(f"Expected `{name}` in 0 .. 2**32 - 1, but got {value}.")
    if len(size) != 2 or min(size) < 32:
        raise ConfigError(f"Expected `size` as (H, W), each at least 32 pixels, but got {size}.")
    streams = np.random.SeedSequence((int(seed), int(index))).spawn(3)
    layout, texture, sensor = (np.random.Generator(np.random.PCG64(s)) for s in streams)

    size = (int(size[0]), int(size[1]))
    focal = layout.uniform(0.8, 1.3) * float(np.sqrt(size[0] * size[1]))
    camera = Camera(size, layout.uniform(1.2, 3.2), focal, size[0] * layout.uniform(0.32, 0.58))
    angle = layout.uniform(0, 2 * np.pi)
    sun = (float(np.cos(angle)), float(np.sin(angle)))
    world = World(camera, Canvas(size), Noise(texture), sun, layout.uniform(0, 1), [])
    haze = _paint(world, layout)
    image = _expose(world, layout, sensor, haze)
    canvas = world.canvas
    depth = np.where(np.isfinite(canvas.depth), canvas.depth, np.float32(0))
    return Scene(image, canvas.label, depth, *_instances(canvas.instance, world.kinds))


def _paint(world: World, rng: np.random.Generator) -> np.ndarray:
    """Lay out and draw everything; returns the haze colour."""
    haze = paint_sky(world, rng)
    street = rng.random() < 0.75
    road = Road(
        rng.uniform(-4, 4),
        rng.uniform(-0.35, 0.35),
        rng.uniform(-0.004, 0.004),
        rng.uniform(2.2, 6),
    )
    paint_ground(world, rng, road if street else None)
    paint_backdrop(world, rng)

    def beside(low: float, high: float, gap: float) -> tuple[float, float, float]:
        z = float(low + (high - low) * rng.random() ** 1.5)
        side = 1.0 if rng.random() < 0.5 else -1.0
        return float(road.x(z) + side * (road.half + gap)), z, side

    dark = 0.25 + 0.4 * world.contrast
    cars, people, trees = [], [], []
    for _ in range(int(rng.integers(0, 7) if street else rng.integers(0, 3))):
        x, z, side = beside(5, 45, -rng.uniform(1.2, 2.0))
        swerve = rng.normal() * 0.06 if rng.random() < 0.8 else rng.uniform(0, np.pi)
        cars.append(((x, z), road.yaw(z) + swerve + (np.pi if rng.random() < 0.5 else 0)))
        paint_shadow(world, x, z, 1.6, 2.8, dark + 0.2)
    for _ in range(int(rng.integers(0, 9))):
        x, z, side = beside(4.5, 28, rng.uniform(-2.5, 3.5))
        people.append((x, z))
        paint_shadow(world, x, z, 0.5, 0.5, dark)
    for _ in range(int(rng.integers(0, 10) if street else rng.integers(5, 15))):
        x, z, side = beside(7, 70, rng.uniform(1.5, 14))
        trees.append(((x, z), float(rng.uniform(2.5, 11))))
        paint_shadow(world, x + 1.5 * world.sun[0], z, 2.5, 1.5, 0.8 * dark)

    for side in (-1.0, 1.0):
        z, built = rng.uniform(4, 30), rng.random() < (0.75 if street else 0.2)
        gap, density = rng.uniform(2.5, 9), rng.uniform(0.4, 1)
        while z < 110 and built:
            length, width = rng.uniform(6, 20), rng.uniform(6, 14)
            middle = float(z + length / 2)
            x = float(road.x(middle) + side * (road.half + gap + width / 2))
            if rng.random() < density:
                paint_building(world, rng, (x, middle), length, width, road.yaw(middle))
            z += length + rng.uniform(0, 6)
        start, fence = rng.uniform(2, 25), rng.random() < 0.5
        end, off = start + rng.uniform(6, 30), road.half + rng.uniform(0.3, 3.0)
        a, b = road.x(start) + side * off, road.x(end) + side * off
        if fence:
            paint_fence(world, rng, (float(a), float(start)), (float(b), float(end)))
        z, step, off = rng.uniform(4, 12), rng.uniform(9, 25), road.half + rng.uniform(0.4, 1.5)
        tall, lamp, poles = rng.uniform(3.5, 9), rng.random() < 0.6, rng.random() < 0.65
        while z < 70 and poles:
            paint_pole(world, rng, (float(road.x(z) + side * off), float(z)), float(tall), lamp)
            z += step
    if rng.random() < 0.25:
        x, z = rng.uniform(-12, 6), rng.uniform(5, 25)
        paint_fence(world, rng, (x, z), (x + rng.uniform(4, 15), z + rng.uniform(-1.5, 4)))
    for _ in range(int(rng.integers(0, 5))):
        x, z, side = beside(4.5, 25, rng.uniform(0.3, 1.5))
        paint_sign(world, rng, (x, z))
    for at, tall in trees:
        paint_tree(world, rng, at, tall)
    for at, yaw in cars:
        paint_car(world, rng, at, yaw)
    for at in people:
        paint_person(world, rng, at)
    return haze


def _expose(
    world: World, layout: np.random.Generator, sensor: np.random.Generator, haze: np.ndarray
) -> np.ndarray:
    """Haze, colour cast, exposure, blur and sensor noise; (H, W, 3) uint8."""
    reach = float(np.exp(layout.uniform(np.log(60), np.log(900))))
    cast, gain = layout.uniform(0.78, 1.2, 3), layout.uniform(0.55, 1.2)
    gamma, grain = layout.uniform(0.75, 1.3), layout.uniform(0.004, 0.035)
    blur = layout.uniform(0.0, 0.3)
    canvas = world.canvas
    clear = np.exp(np.where(np.isfinite(canvas.depth), canvas.depth, 0) * np.float32(-1 / reach))
    rgb = canvas.rgb * clear[..., None] + haze * (1 - clear)[..., None]
    rgb = np.clip(rgb * (cast * gain).astype(np.float32), 0, 1) ** np.float32(gamma)
    for axis in (0, 1):
        ahead, back = np.roll(rgb, -1, axis), np.roll(rgb, 1, axis)
        edge = (slice(None),) * axis
        ahead[(*edge, -1)], back[(*edge, 0)] = rgb[(*edge, -1)], rgb[(*edge, 0)]
        rgb = np.float32(1 - 2 * blur) * rgb + np.float32(blur) * (ahead + back)
    noise = sensor.standard_normal(rgb.shape, dtype=np.float32)
    rgb = rgb + np.float32(grain) * noise * (0.4 + rgb)
    return (np.clip(rgb, 0, 1) * 255 + 0.5).astype(np.uint8)


def _instances(numbers: np.ndarray, kinds: list[int]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Boxes, masks and classes of the instances that are visible enough."""
    counts = np.bincount(numbers.ravel(), minlength=len(kinds) + 1)
    kept = [k for k in range(1, len(kinds) + 1) if counts[k] >= MIN_INSTANCE_PIXELS]
    masks = np.zeros((len(kept), *numbers.shape), dtype=bool)
    boxes = np.zeros((len(kept), 4), dtype=np.float32)
    for i, k in enumerate(kept):
        masks[i] = numbers == k
        ys, xs = np.flatnonzero(masks[i].any(1)), np.flatnonzero(masks[i].any(0))
        boxes[i] = xs[0], ys[0], xs[-1] + 1, ys[-1] + 1
    return boxes, masks, np.array([kinds[k - 1] for k in kept], dtype=np.int64)
