"""Things that are built: buildings, fences and walls of pickets, poles, signs."""

from __future__ import annotations

import numpy as np

from .classes import LABEL
from .raster import Face, Point, vertical_face
from .textures import comb, hashed, tinted, windows
from .world import COLOURS, World, box, pick, towards_camera


def paint_building(
    world: World, rng: np.random.Generator, centre: Point, length: float, width: float, yaw: float
) -> None:
    """A house or block: window grids, plaster or bricks, flat or gabled roof."""
    storeys, storey = int(rng.integers(1, 6)), float(rng.uniform(2.6, 3.6))
    wall, roof, pane = pick(rng), pick(rng), pick(rng, COLOURS[[2, 3, 9, 10]])
    step = (float(rng.uniform(1.4, 3.8)), storey)
    fill = (float(rng.uniform(0.3, 0.8)), float(rng.uniform(0.35, 0.75)))
    salt, brick, gable = int(rng.integers(1 << 16)), rng.random() < 0.4, rng.random() < 0.45
    tall = storeys * storey + 0.4
    crown = rng.uniform(1.5, 3.5) if gable else rng.uniform(0.2, 0.6)
    for side, (start, end) in enumerate(box(centre, length, width, yaw)):
        if not towards_camera(start, end):
            continue
        face = vertical_face(world.camera, start, end, 0.0, tall + crown)
        if face is None or world.canvas.hidden(face):
            continue
        s, h = face.s, face.h
        light = 0.85 + 0.25 * world.noise(h, s + salt, 9.0)
        light += 0.25 * (world.noise(h, s, 1.7, rough=True) - 0.5) * np.clip(12.0 / face.z, 0, 1)
        if brick:
            fine = np.clip(9.0 / face.z, 0, 1) * 0.25
            light = light * (1 - fine * (comb(h, 0.3, 0.05) | comb(s, 0.6, 0.05)[None, :]))
        rgb = tinted(wall, light)
        panes, cell_s, cell_h = windows(s, h, step, fill)
        shown = hashed(cell_s[None, :], cell_h, salt + side)
        panes &= (h < tall - 0.4) & (shown > 0.12)
        np.copyto(rgb, tinted(pane, 0.45 + 0.9 * shown * shown), where=panes[..., None])
        above = h > tall
        tiles = 0.75 + 0.3 * world.noise(h * 3, s, 3.0, rough=True)
        np.copyto(rgb, tinted(roof, tiles), where=above[..., None])
        mask = None
        if gable and side % 2 == 0:
            span = float(np.hypot(end[0] - start[0], end[1] - start[1]))
            mask = h < tall + crown * (1 - np.abs(2 * s / span - 1))
        world.canvas.paint(face, rgb * world.light(start, end), LABEL["building"], mask=mask)


def paint_fence(world: World, rng: np.random.Generator, start: Point, end: Point) -> None:
    """Rails, pickets or mesh between posts; only the solid parts are painted and labelled."""
    kind, tall = int(rng.integers(3)), float(rng.uniform(0.8, 1.7))
    colour, post = pick(rng), float(rng.uniform(1.5, 3.0))
    rails, thick, gap = int(rng.integers(2, 4)), rng.uniform(0.02, 0.05), rng.uniform(0.16, 0.3)
    face = vertical_face(world.camera, start, end, 0.0, tall)
    if face is None:
        return
    # Nothing thinner than about a pixel, or far fences would break up.
    half = np.maximum(thick, 0.55 * face.z / world.camera.focal)
    mask = comb(face.s, post, half * 1.3)[None, :] | (np.abs(face.h - tall + half) < half)
    if kind == 0:
        mask = mask | comb(face.h, tall / rails, half)
    elif kind == 1:
        mask = mask | comb(face.s, gap, np.minimum(half, gap * 0.3))[None, :]
        mask |= np.abs(face.h - 0.3 * tall) < half
    else:
        fine = np.minimum(half, gap * 0.2) * 0.7
        mask = mask | comb(face.h + face.s, gap * 1.6, fine)
        mask |= comb(face.h - face.s, gap * 1.6, fine)
    light = 0.7 + 0.5 * world.noise(face.h, face.s, 5.0)
    world.canvas.paint(face, tinted(colour, light), LABEL["fence"], mask=mask)


def _upright(world: World, at: Point, width: float, bottom: float, top: float) -> Face | None:
    """A face of at least one pixel's width, square to the view axis."""
    half = max(width, 1.05 * at[1] / world.camera.focal) / 2
    return vertical_face(world.camera, (at[0] - half, at[1]), (at[0] + half, at[1]), bottom, top)


def paint_pole(
    world: World, rng: np.random.Generator, at: Point, tall: float, lamp: bool = False
) -> None:
    """A pole at (x, z), `tall` metres high, with an arm towards the road if it is a lamp."""
    width, colour = float(rng.uniform(0.08, 0.3)), pick(rng, COLOURS[[1, 2, 3, 11, 13]])
    face = _upright(world, at, width, 0.0, tall)
    if face is not None:
        light = 0.65 + 0.6 * (face.s / max(width, 0.1))[None, :] + 0 * face.h
        world.canvas.paint(face, tinted(colour, np.clip(light, 0.5, 1.2)), LABEL["pole"])
    if lamp:
        reach = -1.8 if at[0] > 0 else 1.8
        half = max(0.07, 0.55 * at[1] / world.camera.focal)
        ends = sorted((at[0], at[0] + reach))
        arm = vertical_face(world.camera, (ends[0], at[1]), (ends[1], at[1]), tall - 2 * half, tall)
        if arm is not None:
            world.canvas.paint(arm, colour * np.float32(0.8), LABEL["pole"])


def paint_sign(world: World, rng: np.random.Generator, at: Point) -> None:
    """A traffic sign or, now and then, a large board, on a pole."""
    large, shape = rng.random() < 0.3, int(rng.integers(4))
    size = float(rng.uniform(1.8, 3.4) if large else rng.uniform(0.7, 1.25))
    wide = size * float(rng.uniform(1.2, 1.9) if large else 1.0)
    low = float(rng.uniform(2.2, 3.5) if large else rng.uniform(1.7, 2.4))
    board, border, glyph = pick(rng), pick(rng), pick(rng)
    salt, cells = int(rng.integers(1 << 16)), float(rng.uniform(3, 6))
    paint_pole(world, rng, at, low + 0.5 * size)
    x, z = at[0], at[1] - 0.05
    face = vertical_face(world.camera, (x - wide / 2, z), (x + wide / 2, z), low, low + size)
    if face is None:
        return
    a = (face.s / wide * 2 - 1)[None, :] + 0 * face.h
    b = (face.h - low) / size * 2 - 1
    if large or shape == 0:
        edge = np.maximum(np.abs(a), np.abs(b))
    elif shape == 1:
        edge = np.hypot(a, b)
    elif shape == 2:
        edge = np.maximum(-b, np.abs(a) * 1.1 + b * 0.55 + 0.4)
    else:
        edge = np.abs(a) + np.abs(b)
    rgb = np.where((edge > 0.78)[..., None], border, board)
    drawn = hashed(np.floor(a * cells), np.floor(b * cells), salt) > 0.55
    rgb = np.where((drawn & (edge < 0.55))[..., None], glyph, rgb) * np.float32(1.05)
    number = world.instance(LABEL["sign"])
    world.canvas.paint(face, rgb, LABEL["sign"], number, mask=edge < 1)
