"""Sky, ground with a road, hills, and the shadows on the ground."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from .classes import LABEL
from .raster import vertical_face
from .textures import comb, tinted
from .world import World, pick

FAR = 300.0
"""Depth in metres at which the ground ends."""

SKIES = np.array(
    [
        (0.36, 0.55, 0.86),
        (0.55, 0.68, 0.85),
        (0.70, 0.72, 0.76),
        (0.50, 0.52, 0.58),
        (0.40, 0.42, 0.62),
    ],
    dtype=np.float32,
)
HAZES = np.array(
    [(0.82, 0.86, 0.92), (0.88, 0.80, 0.70), (0.80, 0.80, 0.80), (0.92, 0.70, 0.55)],
    dtype=np.float32,
)
TERRAINS = np.array(
    [
        (0.32, 0.45, 0.20),
        (0.45, 0.50, 0.26),
        (0.62, 0.54, 0.38),
        (0.46, 0.36, 0.26),
        (0.55, 0.54, 0.52),
        (0.82, 0.83, 0.86),
    ],
    dtype=np.float32,
)
ROADS = np.array(
    [
        (0.34, 0.34, 0.36),
        (0.44, 0.44, 0.45),
        (0.26, 0.26, 0.29),
        (0.52, 0.49, 0.46),
        (0.52, 0.42, 0.32),
    ],
    dtype=np.float32,
)


@dataclass
class Road:
    """Centre line x = offset + slope z + bend z^2 and half width, in metres."""

    offset: float
    slope: float
    bend: float
    half: float

    def x(self, z: Any) -> Any:
        """Centre of the road at depth z (a number or an array)."""
        return self.offset + self.slope * z + self.bend * z * z

    def yaw(self, z: float) -> float:
        """Direction of the road at depth z, radians from the z axis towards x."""
        return float(np.arctan(self.slope + 2 * self.bend * z))


def paint_sky(world: World, rng: np.random.Generator) -> np.ndarray:
    """Fill the picture with sky and clouds; returns the haze colour (3,) at the horizon."""
    top, haze = pick(rng, SKIES), pick(rng, HAZES)
    cover, period, drift = rng.uniform(0.35, 0.95), rng.uniform(1.0, 3.0), rng.uniform(0, 9, 2)
    camera = world.camera
    up = np.clip(-camera.y, 0.0, None)[:, None]
    share = np.exp(-up * 3.0)[..., None]
    sky = top * (1 - share) + haze * share
    # Clouds lie on a plane above: their texture is seen at 1 / elevation.
    reach = 0.5 / (up + 0.25)
    cloud = world.noise(reach * 2 + drift[0], camera.x * reach + drift[1], period)
    amount = np.clip((cloud - cover) * 4, 0, 1)[..., None]
    shade = (0.75 + 0.5 * cloud)[..., None]
    world.canvas.rgb[:] = sky * (1 - amount) + np.clip(haze * shade, 0, 1) * amount
    world.canvas.label[:] = LABEL["sky"]
    return haze


def paint_ground(world: World, rng: np.random.Generator, road: Road | None) -> None:
    """Ground plane up to FAR metres: terrain, with a road and pavements if there is one."""
    camera, canvas, noise = world.camera, world.canvas, world.noise
    soil, second, asphalt = pick(rng, TERRAINS), pick(rng, TERRAINS), pick(rng, ROADS)
    pavement, marking = pick(rng, ROADS), pick(rng, np.array([(0.9, 0.9, 0.88), (0.9, 0.8, 0.4)]))
    walk = rng.uniform(1.0, 3.0) if rng.random() < 0.5 else 0.0
    marked, dash, tone = rng.random() < 0.65, rng.uniform(3, 8), rng.uniform(0.2, 0.5, 2)
    furrow, strength = rng.uniform(0.7, 2.5), rng.choice([0.0, 0.0, 0.12])

    rows = slice(int(np.searchsorted(camera.y, camera.height / FAR)), camera.size[0])
    if rows.start >= rows.stop:
        return
    z = (camera.height / camera.y[rows])[:, None]
    x = camera.x * z
    # Detail finer than a pixel is faded out, or far ground would flicker.
    fine = np.clip(14.0 / z, 0, 1)
    grain = (noise(z, x, 2.3, rough=True) - 0.5) * fine
    patches = noise(z, x, 37.0)
    light = 1 + tone[0] * (patches - 0.5) + 1.6 * tone[1] * grain
    light += strength * np.sin(x * (2 * np.pi / furrow)) * np.clip(20.0 / z, 0, 1)
    mix = np.clip((noise(z + 11, x + 5, 23.0) - 0.45) * 5, 0, 1)[..., None]
    rgb = light[..., None] * (soil * (1 - mix) + second * mix)
    label = np.full(x.shape, LABEL["terrain"], dtype=np.uint8)
    if road is not None:
        across = x - road.x(z)
        beside = np.abs(across)
        if walk:
            joint = 0.04 + z / camera.focal
            slabs = comb(z, 1.0, joint) | comb(across, 1.0, joint)
            tiles = (1 + 0.5 * grain) * np.where(slabs, 1 - 0.3 * fine, 1)
            np.copyto(rgb, tinted(pavement, tiles), where=(beside < road.half + walk)[..., None])
        on = beside < road.half
        surface = tinted(asphalt, 0.9 + 0.5 * tone[1] * grain + 0.25 * (patches - 0.5))
        if marked:
            line = comb(across, 1e3, 0.09) & (np.mod(z, 2 * dash) < dash)
            line |= np.abs(beside - road.half + 0.35) < 0.07
            np.copyto(surface, marking * np.float32(0.9), where=line[..., None])
        np.copyto(rgb, surface, where=on[..., None])
        label[on] = LABEL["road"]
    canvas.rgb[rows] = rgb
    canvas.label[rows] = label
    canvas.depth[rows] = z


def paint_shadow(
    world: World, x: float, z: float, half_x: float, half_z: float, strength: float
) -> None:
    """Darken an ellipse of ground around (x, z), half axes in metres, before objects are drawn."""
    camera = world.camera
    near = max(z - half_z, 0.6)
    if z + half_z <= near:
        return
    rows = camera.rows(camera.height / (z + half_z), camera.height / near)
    cols = camera.columns((x - half_x) / (near if x < half_x else z + half_z), (x + half_x) / near)
    if rows.start >= rows.stop or cols.start >= cols.stop:
        return
    depth = (camera.height / camera.y[rows])[:, None]
    reach = ((camera.x[cols] * depth - x) / half_x) ** 2 + ((depth - z) / half_z) ** 2
    dark = 1 - strength * np.clip(1.6 * (1 - reach), 0, 1)
    world.canvas.rgb[rows, cols] *= dark[..., None]


def paint_backdrop(world: World, rng: np.random.Generator) -> None:
    """Hills (terrain) or a far line of trees along the horizon, on part of the scenes."""
    for label, share in ((LABEL["terrain"], 0.45), (LABEL["tree"], 0.45)):
        present, z = rng.random() < share, float(rng.uniform(80, 250))
        tall, period, at = z * rng.uniform(0.03, 0.13), rng.uniform(1.5, 5) * z, rng.uniform(0, 1e3)
        colour = pick(rng, TERRAINS[:4])
        if not present:
            continue
        face = vertical_face(world.camera, (-3 * z, z), (3 * z, z), 0.0, 1.7 * tall)
        if face is None:
            continue
        ridge = world.noise(np.float32(at), face.s, period)
        if label == LABEL["tree"]:
            ridge = 0.6 * ridge + 0.8 * world.noise(np.float32(at), face.s, period / 8)
            colour = colour * np.array((0.75, 0.85, 0.75), dtype=np.float32)
        light = 0.75 + 0.5 * world.noise(face.h, face.s, z / 3, rough=label == LABEL["tree"])
        mask = face.h < tall * ridge
        world.canvas.paint(face, tinted(colour, light), label, mask=mask)
