"""Things that grow, drive and walk: trees, cars, people."""

from __future__ import annotations

import numpy as np

from .classes import LABEL
from .raster import Face, Point, horizontal_face, vertical_face
from .textures import comb, tinted
from .world import COLOURS, World, box, pick, towards_camera

LEAVES = np.array(
    [
        (0.20, 0.36, 0.14),
        (0.28, 0.42, 0.18),
        (0.38, 0.46, 0.20),
        (0.55, 0.42, 0.16),
        (0.58, 0.30, 0.14),
        (0.22, 0.30, 0.22),
    ],
    dtype=np.float32,
)


def paint_tree(world: World, rng: np.random.Generator, at: Point, tall: float) -> None:
    """A trunk and an irregular crown with gaps; broad-leaved, conifer or bush."""
    kind, colour, salt = int(rng.integers(3)), pick(rng, LEAVES), float(rng.uniform(0, 50))
    bark, half = pick(rng, COLOURS[[2, 3, 4, 13]]), tall * float(rng.uniform(0.25, 0.42))
    blobs = rng.uniform(-1, 1, (6, 2)) * (0.45, 0.5)
    radii, ragged = rng.uniform(0.28, 0.5, 6), float(rng.uniform(0.35, 0.7))
    trunk = tall * (0.02 if kind == 2 else float(rng.uniform(0.03, 0.06)))
    if kind == 2:
        tall *= 0.4
    number, (x, z) = world.instance(LABEL["tree"]), at
    face = vertical_face(world.camera, (x - half, z), (x + half, z), 0.0, tall)
    if face is None or world.canvas.hidden(face):
        return
    a = (face.s / half - 1)[None, :]
    foot = 0.0 if kind == 2 else 0.22
    b = ((face.h / tall - foot) / (1 - foot)) * 2 - 1
    rough = world.noise(face.h, face.s + salt, tall * 0.35)
    fine = world.noise(face.h, face.s + salt, tall * 0.9, rough=True)
    if kind == 1:
        zigzag = 0.12 * np.mod(b * 3.5, 1.0)
        inside = 0.52 * (1 - b) - zigzag - np.abs(a)
    else:
        inside = np.full(face.h.shape, -9.0, dtype=np.float32)
        for (cx, cy), radius in zip(blobs, radii):
            spread = 1 - ((a - cx) ** 2 + (b - cy) ** 2) / radius**2
            np.maximum(inside, spread, out=inside, casting="same_kind")
    crown = (inside + ragged * (rough - 0.5) + 0.5 * (fine - 0.5) > 0.05) & (b > -1)
    stem = (np.abs(a * half) < np.maximum(trunk, 0.5 * z / world.camera.focal)) & (b < 0.2)
    # Lit from the sun's side and from above.
    light = 0.72 + 0.2 * world.contrast * world.sun[0] * a + 0.15 * b
    light = light * (0.45 + 0.6 * rough + 0.6 * (fine - 0.2))
    rgb = tinted(colour, np.clip(light, 0.15, 1.5))
    wood = tinted(bark, 0.6 + 0.5 * fine)
    np.copyto(rgb, wood, where=(stem & ~crown)[..., None])
    world.canvas.paint(face, rgb, LABEL["tree"], number, mask=crown | stem)


def paint_car(world: World, rng: np.random.Generator, at: Point, yaw: float) -> None:
    """A car, van or lorry-like box on wheels, heading along `yaw`."""
    length, width = float(rng.uniform(3.6, 5.2)), float(rng.uniform(1.65, 2.0))
    waist, tall = float(rng.uniform(0.85, 1.05)), float(rng.uniform(1.4, 1.95))
    colour, glass, shift = (
        pick(rng),
        pick(rng, COLOURS[[2, 3, 10]]),
        float(rng.uniform(-0.12, 0.05)),
    )
    cabin, blank = float(rng.uniform(0.5, 0.75)), rng.random() < 0.15
    if blank:  # a van: closed sides, and as tall in front as behind
        tall, cabin, shift = tall + 0.6, 0.95, 0.0
    number, canvas, camera = world.instance(LABEL["car"]), world.canvas, world.camera
    for side, (start, end) in enumerate(box(at, length, width, yaw)):
        if not towards_camera(start, end):
            continue
        face = vertical_face(camera, start, end, 0.0, waist)
        if face is not None:
            light = world.light(start, end)
            rgb, mask = _lower(world, face, side, (length, width), colour * np.float32(light))
            canvas.paint(face, rgb, LABEL["car"], number, mask)
    centre = (at[0] + np.sin(yaw) * length * shift, at[1] + np.cos(yaw) * length * shift)
    for start, end in box(centre, length * cabin, width * 0.86, yaw):
        if not towards_camera(start, end):
            continue
        face = vertical_face(camera, start, end, waist - 0.02, tall)
        if face is None:
            continue
        span = float(np.hypot(end[0] - start[0], end[1] - start[1]))
        body = (face.h > tall - 0.1) | comb(face.s, span / 2, 0.07)[None, :]
        body = body | (blank & (face.h < tall - 0.8))
        sheen = 0.55 + 0.7 * world.noise(face.h, face.s + at[0], 4.0)
        rgb = tinted(glass, sheen)
        np.copyto(rgb, colour * np.float32(world.light(start, end)), where=body[..., None])
        canvas.paint(face, rgb, LABEL["car"], number)
    for height, half, reach, middle in (
        (waist, width / 2, length / 2, at),
        (tall, width * 0.43, length * cabin / 2, centre),
    ):
        dx, dz = np.sin(yaw) * reach, np.cos(yaw) * reach
        back, front = (middle[0] - dx, middle[1] - dz), (middle[0] + dx, middle[1] + dz)
        top = horizontal_face(camera, back, front, half, height)
        if top is not None:
            canvas.paint(top, colour * np.float32(1.1), LABEL["car"], number)


def _lower(
    world: World, face: Face, side: int, size: tuple[float, float], colour: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Colours (R, C, 3) and solid part (R, C) of a car's lower half: wheels, lights, doors.

    Sides 0 and 2 are front and rear; `size` is (length, width) in metres.
    """
    (length, width), s, h = size, face.s[None, :], face.h
    rgb = tinted(colour, 0.8 + 0.25 * h + 0.1 * world.noise(h, s, 3.0))
    if side % 2:
        wheel = np.minimum(
            np.hypot(s - 0.19 * length, h - 0.32), np.hypot(s - 0.81 * length, h - 0.32)
        )
        rgb = np.where((wheel < 0.38)[..., None], np.float32(0.08), rgb)
        rgb = np.where((wheel < 0.18)[..., None], np.float32(0.55), rgb)
        seam = (np.abs(s - 0.5 * length) < 0.025) & (h > 0.3)
        rgb = np.where(seam[..., None], rgb * np.float32(0.5), rgb)
        return rgb, (h > 0.22) | (wheel < 0.34)
    lamp = (np.abs(np.abs(s - width / 2) - 0.34 * width) < 0.2) & (np.abs(h - 0.65) < 0.1)
    shine = (0.9, 0.15, 0.1) if side == 2 else (0.95, 0.93, 0.8)
    rgb = np.where(lamp[..., None], np.asarray(shine, dtype=np.float32), rgb)
    plate = (np.abs(s - width / 2) < 0.28) & (np.abs(h - 0.42) < 0.07)
    rgb = np.where(plate[..., None], np.float32(0.8), rgb)
    rgb = np.where((h < 0.22)[..., None], np.float32(0.08), rgb)
    tyre = np.abs(np.abs(s - width / 2) - 0.42 * width) < 0.1
    return rgb, (h > 0.22) | tyre


def paint_person(world: World, rng: np.random.Generator, at: Point) -> None:
    """A standing or walking figure."""
    tall, stride, turn = rng.uniform(1.5, 1.95), rng.uniform(0.02, 0.2), rng.uniform(0.75, 1.1)
    shirt, legs, skin = pick(rng), pick(rng), pick(rng, COLOURS[[4, 5, 13, 0]])
    swing, bag = rng.uniform(0.0, 0.12), rng.random() < 0.3
    number, (x, z) = world.instance(LABEL["person"]), at
    face = vertical_face(world.camera, (x - 0.5, z), (x + 0.5, z), 0.0, float(tall))
    if face is None:
        return
    a, b = (face.s - 0.5)[None, :] / turn, face.h / tall
    head = (a / 0.11) ** 2 + ((b - 0.925) / 0.075) ** 2 < 1
    torso = (np.abs(a) < 0.14 + 0.1 * (b - 0.48)) & (b > 0.47) & (b < 0.85)
    arm = np.abs(np.abs(a) - 0.2 - swing * (0.85 - b) * 2) < 0.05
    arm &= (b > 0.45) & (b < 0.83)
    leg = (np.abs(np.abs(a) - 0.06 - stride * (0.5 - b)) < 0.06) & (b < 0.5)
    carried = bag & (np.abs(a - 0.24) < 0.1) & (np.abs(b - 0.45) < 0.09)
    light = 0.75 + 0.3 * world.noise(face.h, face.s + x, 2.0) + 0.3 * world.sun[0] * a
    rgb = tinted(legs, light)
    np.copyto(rgb, tinted(shirt, light), where=((torso | arm) & ~leg)[..., None])
    np.copyto(rgb, tinted(skin, light), where=(head & (b < 0.96))[..., None])
    np.copyto(rgb, tinted(legs, light * 0.4), where=(head & (b >= 0.96))[..., None])
    mask = head | torso | arm | leg | carried
    world.canvas.paint(face, rgb, LABEL["person"], number, mask=mask)
