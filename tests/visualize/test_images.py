"""Images of every kind, against pixels worked out by hand."""

from __future__ import annotations

import contextlib
import io
import struct
import sys
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from srt_plugins.errors import ConfigError, MediaError, MissingDependencyError
from srt_plugins.visualize import images
from srt_plugins.visualize.images import expand, read_image


def _colours(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def _saved(path: Path, image: Image.Image, **options: object) -> Path:
    image.save(path, **options)
    return path


# EXIF 2.3, tag 0x0112: where the stored row 0 and the stored column 0 are seen.
_SEEN = {
    1: ("top", "left"),
    2: ("top", "right"),
    3: ("bottom", "right"),
    4: ("bottom", "left"),
    5: ("left", "top"),
    6: ("right", "top"),
    7: ("right", "bottom"),
    8: ("left", "bottom"),
}


def _as_seen(stored: np.ndarray, orientation: int) -> np.ndarray:
    row_side, column_side = _SEEN[orientation]
    height, width = stored.shape[:2]
    upright = row_side in ("top", "bottom")
    seen = np.zeros((height, width, 3) if upright else (width, height, 3), np.uint8)
    for r in range(height):
        for c in range(width):
            away_from_row0, away_from_column0 = r, c
            place = {row_side: away_from_row0, column_side: away_from_column0}
            y = place["top"] if "top" in place else seen.shape[0] - 1 - place["bottom"]
            x = place["left"] if "left" in place else seen.shape[1] - 1 - place["right"]
            seen[y, x] = stored[r, c]
    return seen


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("ending", [".png", ".tiff", ".webp"])
def test_exif_orientation(tmp_path: Path, orientation: int, ending: str) -> None:
    stored = _colours(4, 7)
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"lossless": True} if ending == ".webp" else {}
    path = _saved(tmp_path / f"a{ending}", Image.fromarray(stored), exif=exif, **options)
    assert np.array_equal(read_image(path), _as_seen(stored, orientation))


def test_exif_orientation_of_a_jpeg_and_of_16_bit_grey(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    stored = np.zeros((16, 32, 3), np.uint8)
    stored[:, :16] = 255
    path = _saved(tmp_path / "a.jpg", Image.fromarray(stored), exif=exif, quality=95)
    seen = read_image(path)
    assert seen.shape == (32, 16, 3) and seen[:14].min() > 240 and seen[18:].max() < 15
    grey = np.arange(6, dtype=np.uint16).reshape(2, 3) * 257
    path = _saved(tmp_path / "b.png", Image.fromarray(grey), exif=exif)
    assert read_image(path)[..., 0].tolist() == [[3, 0], [4, 1], [5, 2]]


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
def test_a_damaged_exif_block_is_no_reason_to_refuse(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    Image.fromarray(_colours(8, 8)).save(path, exif=b"Exif\0\0II*\0\xff\xff\xff\xff nonsense")
    assert read_image(path).shape == (8, 8, 3)
    exif = Image.Exif()
    exif[0x0112] = 77
    stored = _colours(3, 5)
    assert np.array_equal(
        read_image(_saved(tmp_path / "b.png", Image.fromarray(stored), exif=exif)), stored
    )


def _over_white(colour: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    share = alpha[..., None] / 255
    return colour * share + 255 * (1 - share)


def test_transparency_is_over_white(tmp_path: Path) -> None:
    colour, alpha = _colours(9, 11), _colours(9, 11, 1)[..., 0]
    alpha[0, :2] = 0, 255
    rgba = np.dstack([colour, alpha])
    want = _over_white(colour, alpha)
    for ending in (".png", ".tiff"):
        got = read_image(_saved(tmp_path / f"a{ending}", Image.fromarray(rgba)))
        assert np.abs(got - want).max() <= 1
    assert np.abs(read_image(rgba) - want).max() <= 1
    la = np.dstack([colour[..., 0], alpha])
    got = read_image(_saved(tmp_path / "b.png", Image.fromarray(la)))
    grey = np.repeat(colour[..., :1], 3, axis=2)
    assert np.abs(got - _over_white(grey, alpha)).max() <= 1


def test_transparency_of_palettes_and_of_one_colour(tmp_path: Path) -> None:
    image = Image.new("P", (3, 1))
    image.putpalette([10, 20, 30, 200, 100, 0, 1, 2, 3])
    image.putdata([0, 1, 2])
    got = read_image(_saved(tmp_path / "a.png", image, transparency=bytes([255, 0, 51])))
    assert got[0, 0].tolist() == [10, 20, 30] and got[0, 1].tolist() == [255] * 3
    # 51 / 255 is a fifth.
    assert np.abs(got[0, 2] - np.array([0.2 * v + 204 for v in (1, 2, 3)])).max() <= 1
    got = read_image(_saved(tmp_path / "b.gif", image, transparency=1))
    assert got[0].tolist() == [[10, 20, 30], [255, 255, 255], [1, 2, 3]]
    rgb = np.array([[[1, 2, 3], [4, 5, 6]]], np.uint8)
    got = read_image(_saved(tmp_path / "c.png", Image.fromarray(rgb), transparency=(4, 5, 6)))
    assert got.tolist() == [[[1, 2, 3], [255, 255, 255]]]
    grey = np.array([[7, 8]], np.uint8)
    got = read_image(_saved(tmp_path / "d.png", Image.fromarray(grey), transparency=7))
    assert got[0, :, 0].tolist() == [255, 8]


def test_cmyk(tmp_path: Path) -> None:
    inks = np.array([[[0, 0, 0, 0], [255, 0, 0, 0], [0, 255, 0, 0], [0, 0, 255, 128]]], np.uint8)
    want = [[(255 - i) * (255 - k) / 255 for i in ink] for *ink, k in inks[0].astype(int).tolist()]
    image = Image.frombytes("CMYK", (4, 1), inks.tobytes())
    got = read_image(_saved(tmp_path / "a.tiff", image))
    assert np.abs(got[0] - np.array(want)).max() <= 1
    # Each colour fills whole blocks; Adobe's JPEGs hold the inks inverted.
    large = image.resize((64, 16), Image.Resampling.NEAREST)
    path = _saved(tmp_path / "a.jpg", large, quality=100, subsampling=0)
    assert b"Adobe" in path.read_bytes()[:64]
    assert np.abs(read_image(path)[8, 8::16] - np.array(want)).max() <= 3


def _png(width: int, height: int, depth: int, kind: int, rows: bytes, *more: bytes) -> bytes:
    """A PNG from its chunks, without an image library."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        )

    head = struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, 0)
    extra = b"".join(chunk(m[:4], m[4:]) for m in more)
    data = chunk(b"IDAT", zlib.compress(rows, 1))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + extra + data + chunk(b"IEND", b"")


_DEEP = [0, 1, 128, 129, 257, 385, 386, 32767, 32768, 40000, 65406, 65407, 65535]
# Halves cannot occur: 257 is odd.
_SHALLOW = [int(v / 257 + 0.5) for v in _DEEP]


def test_16_bit_grey_is_divided_by_257(tmp_path: Path) -> None:
    rows = b"\0" + struct.pack(f">{len(_DEEP)}H", *_DEEP)
    got = read_image(_png(len(_DEEP), 1, 16, 0, rows))
    assert got[0].tolist() == [[v] * 3 for v in _SHALLOW]
    # The same with one value transparent.
    got = read_image(_png(len(_DEEP), 1, 16, 0, rows, b"tRNS" + struct.pack(">H", 40000)))
    assert got[0, :, 1].tolist() == [255 if d == 40000 else s for d, s in zip(_DEEP, _SHALLOW)]
    deep = np.array([_DEEP], np.uint16)
    for order in ("<", ">"):
        swapped = deep.astype(f"{order}u2")
        mode = "I;16" if order == "<" else "I;16B"
        image = Image.frombytes(mode, (len(_DEEP), 1), swapped.tobytes())
        path = _saved(tmp_path / "a.tiff", image)
        assert read_image(path)[0, :, 2].tolist() == _SHALLOW
        assert read_image(swapped)[0, :, 0].tolist() == _SHALLOW
    path = _saved(tmp_path / "b.tiff", Image.fromarray(deep.astype(np.int32)))
    assert read_image(path)[0, :, 0].tolist() == _SHALLOW


def test_16_bit_colour_is_not_clipped() -> None:
    pixels = [0, 20000, 65535, 256 * 77, 256 * 13, 256 * 200]
    got = read_image(_png(2, 1, 16, 2, b"\0" + struct.pack(">6H", *pixels)))
    assert np.abs(got.reshape(-1) - np.array(pixels) / 257).max() <= 1


@pytest.mark.parametrize(
    ("values", "want"),
    [
        ([0.0, 0.25, 1.0], [0, 64, 255]),
        ([0.0, 100.4, 255.0], [0, 100, 255]),
        ([-1.0, 0.0, 3.0], [0, 64, 255]),
        ([0.0, 500.0, 1000.0], [0, 128, 255]),
        ([float("nan"), 0.5, float("inf")], [0, 128, 0]),
        ([float("nan")] * 3, [0, 0, 0]),
        ([-7.0, -7.0, -7.0], [0, 0, 0]),
    ],
)
def test_floats(tmp_path: Path, values: list[float], want: list[int]) -> None:
    plane = np.array([values], np.float32)
    path = _saved(tmp_path / "a.tiff", Image.fromarray(plane))
    for source in (path, plane, plane.astype(np.float64)):
        assert read_image(source)[0].tolist() == [[v] * 3 for v in want]


def test_32_bit_integers_beyond_16_are_stretched(tmp_path: Path) -> None:
    values = np.array([[-100, 0, 100_000, 399_900]], np.int32)
    got = read_image(_saved(tmp_path / "a.tiff", Image.fromarray(values)))
    # Steps of 400 000 / 255.
    assert got[0, :, 0].tolist() == [0, 0, 64, 255]


def test_one_bit_grey_palette_and_other_spaces(tmp_path: Path) -> None:
    bits = np.array([[1, 0, 1], [0, 0, 1]], bool)
    got = read_image(_saved(tmp_path / "a.png", Image.fromarray(bits)))
    assert np.array_equal(got, np.repeat(bits[..., None] * np.uint8(255), 3, axis=2))
    assert np.array_equal(read_image(bits), got)
    grey = np.arange(6, dtype=np.uint8).reshape(2, 3) * 40
    assert np.array_equal(
        read_image(_saved(tmp_path / "b.bmp", Image.fromarray(grey)))[..., 2], grey
    )
    assert np.array_equal(read_image(grey[..., None])[..., 1], grey)
    ycc = Image.new("YCbCr", (2, 2), (128, 128, 128))
    assert np.abs(read_image(ycc).astype(int) - 128).max() <= 1


def test_lab_is_right_or_refused(tmp_path: Path) -> None:
    # Older Pillows have no way from LAB to RGB. L* of 50 is an sRGB grey of 119.
    image = Image.frombytes("LAB", (1, 1), bytes([128, 0, 0]))
    path = _saved(tmp_path / "a.tiff", image)
    try:
        got = read_image(path)
    except MediaError as error:
        assert "a.tiff of mode LAB" in str(error) and "convert it to PNG" in str(error)
    else:
        assert np.abs(got.astype(int) - 119).max() <= 2


@pytest.mark.parametrize("ending", [".gif", ".png", ".tiff", ".webp"])
def test_the_first_of_several_frames(tmp_path: Path, ending: str) -> None:
    frames = [Image.new("RGB", (5, 4), colour) for colour in ((250, 0, 0), (0, 0, 250))]
    options = {"lossless": True} if ending == ".webp" else {}
    path = tmp_path / f"a{ending}"
    frames[0].save(path, save_all=True, append_images=frames[1:], **options)
    assert getattr(Image.open(path), "n_frames", 1) == 2
    assert (read_image(path) == np.array([250, 0, 0])).all()


def test_one_pixel_and_108_megapixels(tmp_path: Path) -> None:
    assert read_image(_png(1, 1, 8, 2, b"\0\1\2\3")).tolist() == [[[1, 2, 3]]]
    # One bit a pixel keeps the file small: 9000 rows of 12000 pixels, the last byte set.
    row = b"\0" + b"\0" * 1499 + b"\1"
    path = tmp_path / "large.png"
    path.write_bytes(_png(12000, 9000, 1, 0, row * 9000))
    before = Image.MAX_IMAGE_PIXELS
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pixels = read_image(path)
    assert Image.MAX_IMAGE_PIXELS == before == 89478485
    assert pixels.shape == (9000, 12000, 3)
    assert pixels[8999, 11998:, 0].tolist() == [0, 255] and not pixels[4000, :11999].any()


def test_more_pixels_than_memory_are_refused_before_decoding() -> None:
    bomb = _png(60000, 60000, 1, 0, b"")
    with pytest.raises(
        MediaError, match="at most 536870912 pixels, got the image of 60000 x 60000"
    ):
        read_image(bomb)
    assert Image.MAX_IMAGE_PIXELS == 89478485


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
@pytest.mark.parametrize("ending", [".jpg", ".png", ".webp", ".tiff", ".gif", ".bmp"])
def test_files_cut_short_are_refused(tmp_path: Path, ending: str) -> None:
    whole = _saved(tmp_path / f"whole{ending}", Image.fromarray(_colours(40, 50))).read_bytes()
    path = tmp_path / f"cut{ending}"
    for share in (0.002, 0.01, 0.05, 0.2, 0.5, 0.8, 0.95):
        path.write_bytes(whole[: max(1, int(len(whole) * share))])
        with pytest.raises(MediaError, match=f"cut{ending}.*download it again"):
            read_image(path)


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
def test_damaged_bytes_never_raise_anything_else(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for ending in ("jpeg", "png", "webp", "tiff", "gif", "bmp", "jpeg2000"):
        buffer = io.BytesIO()
        Image.fromarray(_colours(24, 24)).save(buffer, ending)
        for _ in range(40):
            data = bytearray(buffer.getvalue())
            for place in rng.integers(0, min(len(data), 200), 4):
                data[place] = rng.integers(256)
            with contextlib.suppress(MediaError):
                assert read_image(bytes(data)).dtype == np.uint8


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "empty; copy or download it again"),
        (b"hello", "no kind that Pillow reads"),
        (b"version https://git-lfs.github.com/spec/v1\noid", "Git LFS pointer; run git lfs pull"),
        (b"\n<!DOCTYPE html><title>404", "a web page.*download it again"),
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "HEIC.*convert it to JPEG"),
        (b"\0\0\0\x18ftypisom\0\0\2\0isomiso2", "a video"),
        (b"%PDF-1.7\n", "a PDF; convert"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n", "PostScript"),
    ],
)
def test_files_that_are_no_images(tmp_path: Path, content: bytes, words: str) -> None:
    path = tmp_path / "a.jpg"
    path.write_bytes(content)
    with pytest.raises(MediaError, match=rf"a\.jpg, which is .*{words}"):
        read_image(path)


def test_paths_that_are_no_files(tmp_path: Path) -> None:
    with pytest.raises(MediaError, match="the folder"):
        read_image(tmp_path)
    (tmp_path / "street.png").touch()
    with pytest.raises(MediaError, match=r"stret\.png, which does not exist.*'street\.png'"):
        read_image(tmp_path / "stret.png")
    with pytest.raises(MediaError, match=r"does not exist.*holds 'street\.png'"):
        read_image(tmp_path / "no" / "such" / "a.png")
    with pytest.raises(ConfigError, match="got int"):
        read_image(3)


def test_sources_other_than_paths(tmp_path: Path) -> None:
    stored = _colours(5, 6)
    path = _saved(tmp_path / "a.png", Image.fromarray(stored))
    with path.open("rb") as file:
        sources = [str(path), path.read_bytes(), file, io.BytesIO(path.read_bytes())]
        sources += [Image.fromarray(stored), stored]
        for source in sources:
            assert np.array_equal(read_image(source), stored)
    for source in (stored, path):
        # What is read can be drawn into, and is no view of what was given.
        read_image(source)[:] = 0
    assert stored.any()
    for wrong in (np.zeros((2, 2, 2)), np.zeros((0, 4, 3)), np.zeros(3), np.array([["a"]])):
        with pytest.raises(ConfigError, match="Expected an image"):
            read_image(wrong)


def test_expand(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    (folder / "sub.png").mkdir(parents=True)
    for name in ("b.JPG", "a.png", "c.mp4", ".hidden.png", "notes.txt"):
        (folder / name).touch()
    other = tmp_path / "anything.xyz"
    other.touch()
    names = [p.name for p in expand([folder, other, str(folder / "c.mp4")])]
    assert names == ["a.png", "b.JPG", "c.mp4", "anything.xyz", "c.mp4"]
    assert expand(other) == [other]


def test_expand_says_what_is_missing_and_what_is_there(tmp_path: Path) -> None:
    there = tmp_path / "there.png"
    there.touch()
    with pytest.raises(MediaError, match=r"theer\.png, not there; .*'there\.png'.* Found: .*there"):
        expand([there, tmp_path / "theer.png"])
    with pytest.raises(MediaError, match="got nothing"):
        expand([])
    for empty, held in ((tmp_path / "none", "got nothing"), (tmp_path / "outer", "1 × folders")):
        empty.mkdir()
        if "folders" in held:
            (empty / "inner").mkdir()
        with pytest.raises(MediaError, match=held):
            expand(empty)


def test_all_endings_of_images_are_lower_case_and_apart_from_those_of_videos() -> None:
    assert not set(images.IMAGES) & set(images.VIDEOS)
    assert all(e == e.lower() and e[0] == "." for e in (*images.IMAGES, *images.VIDEOS))


def test_without_pillow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(MissingDependencyError, match=r"Pillow.*pip install 'srt-plugins\[show\]'"):
        read_image(_colours(2, 2))
