"""Faces against ray casting pixel by pixel in float64; the canvas keeps the nearest surface."""

from __future__ import annotations

import numpy as np
import pytest

from srt_plugins.scenes.raster import NEAR, Camera, Canvas, horizontal_face, vertical_face

SIZE = (40, 60)


def camera() -> Camera:
    return Camera(SIZE, height=1.7, focal=50.0, horizon=17.3)


def rays():
    """(row, column, x per metre of depth, drop per metre of depth) of every pixel centre."""
    for i in range(SIZE[0]):
        for j in range(SIZE[1]):
            yield i, j, (j + 0.5 - 30.0) / 50.0, (i + 0.5 - 17.3) / 50.0


def cast_vertical(start, end, bottom, top):
    """Depth where the ray meets the upright rectangle, inf where it does not."""
    (x0, z0), (x1, z1) = start, end
    depth = np.full(SIZE, np.inf)
    for i, j, rx, ry in rays():
        # z * (rx, 1) = start + t * (end - start), solved for (z, t).
        matrix = np.array([[rx, -(x1 - x0)], [1.0, -(z1 - z0)]])
        if abs(np.linalg.det(matrix)) < 1e-12:
            continue
        z, t = np.linalg.solve(matrix, (x0, z0))
        if z > NEAR and 0 <= t <= 1 and bottom <= 1.7 - ry * z <= top:
            depth[i, j] = z
    return depth


def cast_horizontal(start, end, half, height):
    """The same for the flat rectangle."""
    (x0, z0), (x1, z1) = start, end
    length = np.hypot(x1 - x0, z1 - z0)
    depth = np.full(SIZE, np.inf)
    for i, j, rx, ry in rays():
        if ry <= 0:
            continue
        z = (1.7 - height) / ry
        dx, dz = rx * z - x0, z - z0
        along = (dx * (x1 - x0) + dz * (z1 - z0)) / length
        across = (dx * (z1 - z0) - dz * (x1 - x0)) / length
        if z > NEAR and 0 <= along <= length and abs(across) <= half:
            depth[i, j] = z
    return depth


def painted(face) -> np.ndarray:
    canvas = Canvas(SIZE)
    if face is not None:
        canvas.paint(face, np.ones(3, np.float32), 1)
    return canvas.depth


def check(got, expected):
    # float32 against float64: pixels whose centre lies on an edge may go either way.
    differ = np.isfinite(got) != np.isfinite(expected)
    assert differ.mean() < 0.003
    both = np.isfinite(got) & np.isfinite(expected)
    np.testing.assert_allclose(got[both], expected[both], rtol=1e-3)


VERTICAL = [
    ((-2.0, 6.0), (2.0, 6.0), 0.0, 2.5),
    ((2.0, 9.0), (-3.0, 4.0), 0.0, 3.0),
    ((1.5, 0.2), (3.0, 20.0), 0.3, 1.2),
    ((-1.5, -3.0), (-2.0, 12.0), 0.0, 4.0),
    ((-5.0, 30.0), (4.0, 25.0), 1.0, 9.0),
]


@pytest.mark.parametrize(("start", "end", "bottom", "top"), VERTICAL)
def test_vertical_face_is_where_the_rays_hit_it(start, end, bottom, top):
    expected = cast_vertical(start, end, bottom, top)
    assert np.isfinite(expected).sum() > 20
    check(painted(vertical_face(camera(), start, end, bottom, top)), expected)


@pytest.mark.parametrize(
    ("start", "end", "half", "height"),
    [((0.0, 4.0), (1.0, 9.0), 0.9, 1.0), ((-3.0, 5.0), (2.0, 4.0), 0.8, 0.0)],
)
def test_horizontal_face_is_where_the_rays_hit_it(start, end, half, height):
    expected = cast_horizontal(start, end, half, height)
    assert np.isfinite(expected).sum() > 20
    check(painted(horizontal_face(camera(), start, end, half, height)), expected)


def test_faces_out_of_sight_are_none():
    assert vertical_face(camera(), (-1.0, -5.0), (1.0, -2.0), 0, 2) is None
    assert vertical_face(camera(), (50.0, 5.0), (60.0, 5.0), 0, 2) is None
    assert horizontal_face(camera(), (0.0, 4.0), (0.0, 8.0), 1.0, 2.0) is None  # above the eye


@pytest.mark.parametrize("order", [(0, 1, 2, 3, 4), (4, 3, 2, 1, 0), (2, 0, 4, 1, 3)])
def test_the_nearest_face_owns_the_pixel_in_any_order(order):
    canvas = Canvas(SIZE)
    depths = np.stack([cast_vertical(*v) for v in VERTICAL])
    for k in order:
        face = vertical_face(camera(), *VERTICAL[k])
        canvas.paint(face, np.full(3, k, np.float32), k + 1, instance=k + 1)
    nearest = np.where(np.isfinite(depths).any(0), depths.argmin(0) + 1, 0)
    assert (canvas.label != nearest).mean() < 0.005
    np.testing.assert_array_equal(canvas.instance, canvas.label)
    owned = canvas.label > 0
    np.testing.assert_array_equal(canvas.rgb[owned][:, 0], canvas.label[owned] - 1)


def test_masked_parts_let_what_is_behind_through():
    canvas = Canvas(SIZE)
    face = vertical_face(camera(), (-9.0, 8.0), (9.0, 8.0), 0, 9)
    canvas.paint(face, np.zeros(3, np.float32), 1)
    near = vertical_face(camera(), (-9.0, 3.0), (9.0, 3.0), 0, 9)
    canvas.paint(near, np.ones(3, np.float32), 2, mask=near.h > 1.5)
    assert set(canvas.depth[canvas.label == 1]) == {np.float32(8)}
    assert (canvas.depth[canvas.label == 2] == 3).all() and (canvas.label == 1).any()
