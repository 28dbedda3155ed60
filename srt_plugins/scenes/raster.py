"""Camera, canvas with a depth buffer, and the two kinds of faces that scenes are built from.

World coordinates are metres: x to the right, z forward, h up from the ground, with the camera at
x = z = 0 and h = `Camera.height`, looking along z without tilt. Depth is z, not ray length.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

NEAR = 0.6
"""Nothing closer to the camera than this many metres is drawn."""

Point = tuple[float, float]


class Camera:
    """Pinhole camera over flat ground.

    Args:
        size: (H, W) in pixels.
        height: metres above the ground.
        focal: focal length in pixels.
        horizon: row of the horizon, in pixels.
    """

    def __init__(self, size: tuple[int, int], height: float, focal: float, horizon: float) -> None:
        self.size = size
        self.height = height
        self.focal = focal
        self.horizon = horizon
        self.x = ((np.arange(size[1]) + 0.5 - size[1] / 2) / focal).astype(np.float32)
        self.y = ((np.arange(size[0]) + 0.5 - horizon) / focal).astype(np.float32)

    def rows(self, low: float, high: float) -> slice:
        """Rows whose rays have y (downwards, per metre of depth) in [low, high]."""
        return slice(*np.searchsorted(self.y, (low, high)))

    def columns(self, low: float, high: float) -> slice:
        """Columns whose rays have x (per metre of depth) in [low, high]."""
        return slice(*np.searchsorted(self.x, (low, high)))


@dataclass
class Face:
    """The part of a flat face that is in the picture, as a window of R rows and C columns.

    Attributes:
        rows, cols: where the window lies.
        s: metres along the face, (C,) on vertical faces, (R, C) on horizontal ones.
        h: vertical faces: metres above the ground, (R, C); horizontal ones: metres across, (R, C).
        z: depth in metres, broadcastable to (R, C).
        inside: pixels that the face covers, (R, C) bool.
    """

    rows: slice
    cols: slice
    s: np.ndarray
    h: np.ndarray
    z: np.ndarray
    inside: np.ndarray


def vertical_face(
    camera: Camera, start: Point, end: Point, bottom: float, top: float
) -> Face | None:
    """An upright rectangle over the ground segment start-end (x, z), from `bottom` to `top` metres.

    Returns:
        Its window, or None if no pixel centre falls on it.
    """
    (x0, z0), (x1, z1) = start, end
    dx, dz = x1 - x0, z1 - z0
    if max(z0, z1) <= NEAR:
        return None
    cols = slice(0, camera.size[1])
    if min(z0, z1) > NEAR:
        cols = camera.columns(min(x0 / z0, x1 / z1), max(x0 / z0, x1 / z1))
    ray = camera.x[cols]
    # Where the ray x = ray * z meets the segment's line; edge-on faces divide by zero and drop out.
    with np.errstate(divide="ignore", invalid="ignore"):
        t = (x0 - ray * z0) / (ray * dz - dx)
        z = z0 + t * dz
        hit = (t >= 0) & (t <= 1) & (z > NEAR)
    if not hit.any():
        return None
    first, last = np.flatnonzero(hit)[[0, -1]]
    cols = slice(cols.start + int(first), cols.start + int(last) + 1)
    seen = slice(first, last + 1)
    hit = hit[seen]
    t = np.where(hit, t[seen], 0).astype(np.float32)
    z = np.where(hit, z[seen], 1e6).astype(np.float32)
    nearest = float(z.min())
    farthest = float(z[hit].max())
    up, down = camera.height - top, camera.height - bottom
    rows = camera.rows(min(up / nearest, up / farthest), max(down / nearest, down / farthest))
    if rows.start >= rows.stop:
        return None
    h = camera.height - camera.y[rows, None] * z
    inside = hit & (h >= bottom) & (h <= top)
    return Face(rows, cols, t * np.float32(np.hypot(dx, dz)), h, z, inside)


def horizontal_face(
    camera: Camera, start: Point, end: Point, half: float, height: float
) -> Face | None:
    """A flat rectangle at `height` metres, `half` metres to both sides of the segment start-end.

    Returns:
        Its window, or None if it is out of sight (also when the camera is below it).
    """
    drop = camera.height - height
    far = max(start[1], end[1]) + half
    near = max(min(start[1], end[1]) - half, NEAR)
    if drop <= 0.02 or far <= near:
        return None
    rows = camera.rows(drop / far, drop / near)
    if rows.start >= rows.stop:
        return None
    z = (drop / camera.y[rows])[:, None]
    left, right = min(start[0], end[0]) - half, max(start[0], end[0]) + half
    cols = camera.columns(min(left / near, left / far), max(right / near, right / far))
    x = camera.x[cols] * z
    length = float(np.hypot(end[0] - start[0], end[1] - start[1]))
    ux, uz = (end[0] - start[0]) / length, (end[1] - start[1]) / length
    s = (x - start[0]) * ux + (z - start[1]) * uz
    across = (x - start[0]) * uz - (z - start[1]) * ux
    inside = (s >= 0) & (s <= length) & (np.abs(across) <= half)
    return Face(rows, cols, s, across, z, inside) if inside.any() else None


class Canvas:
    """Colour, depth, label and instance of every pixel; the nearest surface wins.

    Attributes:
        rgb: (H, W, 3) float32, 0 to 1 before light and exposure.
        depth: (H, W) float32 metres, infinite where nothing was painted.
        label: (H, W) uint8.
        instance: (H, W) int16, 0 where the pixel belongs to no instance.
    """

    def __init__(self, size: tuple[int, int]) -> None:
        self.rgb = np.zeros((*size, 3), dtype=np.float32)
        self.depth = np.full(size, np.inf, dtype=np.float32)
        self.label = np.zeros(size, dtype=np.uint8)
        self.instance = np.zeros(size, dtype=np.int16)

    def hidden(self, face: Face) -> bool:
        """Whether something nearer already covers the whole face."""
        return not (face.inside & (face.z < self.depth[face.rows, face.cols])).any()

    def paint(
        self,
        face: Face,
        rgb: np.ndarray,
        label: int,
        instance: int = 0,
        mask: np.ndarray | None = None,
    ) -> None:
        """Write a face where it is nearer than what is there.

        Args:
            face: window to write to.
            rgb: (R, C, 3) or broadcastable.
            label: class of the face.
            instance: its instance number, 0 for none.
            mask: (R, C) bool, the solid part of the face; all of it if None.
        """
        at = (face.rows, face.cols)
        visible = face.inside & (face.z < self.depth[at])
        if mask is not None:
            visible &= mask
        np.copyto(self.depth[at], face.z, where=visible)
        np.copyto(self.rgb[at], rgb, where=visible[..., None], casting="same_kind")
        self.label[at][visible] = label
        self.instance[at][visible] = instance
