"""Images of every kind as RGB, and the files that paths stand for."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import ConfigError, MediaError, nearest
from .needs import pillow
from .pixels import eight_bit, rgb_array, turned
from .video import VIDEOS

IMAGES = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".apng", ".webp", ".bmp", ".gif", ".tif", ".tiff"),
    *(".ppm", ".pgm", ".pbm", ".pnm", ".jp2", ".avif", ".tga", ".ico"),
)
"""Endings of the files of a folder that are taken for images."""

MOST_PIXELS = 2**29
"""Images of more pixels (1.5 GiB as RGB) are refused; phone cameras have up to 200 million."""

# EXIF orientation -> the arguments of `turned`.
_ORIENTATIONS = {
    2: (False, False, True),
    3: (False, True, True),
    4: (False, True, False),
    5: (True, False, False),
    6: (True, False, True),
    7: (True, True, True),
    8: (True, True, False),
}
_AS_IT_IS = (False, False, False)
_ORIENTATION = 0x0112
_ALPHA = ("RGBA", "RGBa", "LA", "La", "PA")
_AGAIN = "copy or download it again"
# What files that are no images often are: first bytes, what that is, the next step.
_SIGNATURES = (
    (b"version https://git-lfs", "a Git LFS pointer", "run git lfs pull"),
    (b"<!doctype html", "a web page, perhaps of a failed download", "download it again"),
    (b"<html", "a web page, perhaps of a failed download", "download it again"),
    (b"<?xml", "text (XML or SVG)", "convert it to PNG"),
    (b"<svg", "an SVG drawing", "convert it to PNG"),
    (b"%pdf", "a PDF", "convert its pages to PNG"),
    (b"\x93numpy", "a NumPy file", "convert it to PNG"),
)
_HEIF = (b"heic", b"heix", b"hevc", b"heim", b"heis", b"mif1", b"msf1")
_LIMIT = threading.Lock()


def read_image(source: Any) -> np.ndarray:
    """An image as ``(H, W, 3)`` uint8 RGB, as a viewer shows it.

    EXIF orientation is applied, transparency is over white, and of several frames or pages the
    first is read. CMYK is converted without colour profiles. Grey of more than eight bits becomes
    eight: 16-bit values are divided by 257 and rounded, so 65535 is white. 32-bit integers within
    0..65535 are taken for 16-bit; floats within 0..1 are times 255, and within 0..255 as they are;
    other ranges are stretched from least to most. What is not finite is black.

    Args:
        source: a path, the bytes of a file, a binary file object, a ``PIL.Image.Image``, or an
            array ``(H, W)``, ``(H, W, 1)``, ``(H, W, 3)`` or ``(H, W, 4)`` of bool, integers or
            floats with the rules above.

    Raises:
        MediaError: it is not there, no image, damaged, or of more than ``MOST_PIXELS``.
        ConfigError: an object or array that cannot be an image.
    """
    Image = pillow()
    if isinstance(source, np.ndarray):
        return rgb_array(source)
    if isinstance(source, Image.Image):
        return _decoded(source, "the image")
    if isinstance(source, (bytes, bytearray, memoryview)):
        return _read(BytesIO(source), "the image")
    if hasattr(source, "read"):
        return _read(BytesIO(source.read()), str(getattr(source, "name", "the image")))
    if not isinstance(source, (str, Path)):
        raise ConfigError(
            "Expected an image as a path, bytes, a binary file, a NumPy array or a PIL image, got "
            f"{type(source).__name__}."
        )
    path = Path(source)
    _check_readable(path)
    try:
        with path.open("rb") as file:
            return _read(file, str(path))
    except OSError as error:
        raise MediaError(
            f"Expected an image that can be read, got {path}: {error.strerror or error}; see its "
            "permissions and the disk."
        ) from error


def expand(paths: str | Path | Iterable[str | Path]) -> list[Path]:
    """The files that paths stand for: a folder's images and videos by name, files as they are.

    Subfolders and hidden files of a folder are left out.

    Raises:
        MediaError: something that is not there, or a folder with neither images nor videos.
    """
    given = [Path(p) for p in ([paths] if isinstance(paths, (str, Path)) else paths)]
    missing = [path for path in given if not path.exists()]
    if missing or not given:
        found = [str(path) for path in given if path.exists()]
        raise MediaError(
            "Expected images, videos or folders of them, got "
            + ("nothing." if not given else f"{_listed(missing)}, not there; ")
            + ("" if not given else _near(missing[0]))
            + (f" Found: {_listed(found)}." if found else "")
        )
    files: list[Path] = []
    for path in given:
        files += _of_folder(path) if path.is_dir() else [path]
    return files


def _of_folder(folder: Path) -> list[Path]:
    inside = sorted((p for p in folder.iterdir() if p.name[0] != "."), key=lambda p: p.name)
    files = [p for p in inside if p.suffix.lower() in (*IMAGES, *VIDEOS) and p.is_file()]
    if not files:
        kinds = Counter("folders" if p.is_dir() else p.suffix or "no ending" for p in inside)
        held = ", ".join(f"{n} × {kind}" for kind, n in kinds.most_common(5)) or "nothing"
        inner = next((p for p in inside if p.is_dir()), None)
        raise MediaError(
            f"Expected {folder} to hold images ({', '.join(IMAGES[:5])}, …) or videos "
            f"({', '.join(VIDEOS[:3])}, …), got {held}"
            + (f"; subfolders are not searched: give {inner}, say." if inner else ".")
        )
    return files


def _listed(names: Iterable[Any], most: int = 5) -> str:
    shown = [str(name) for name in names]
    more = f" and {len(shown) - most} more" if len(shown) > most else ""
    return ", ".join(shown[:most]) + more


def _near(path: Path) -> str:
    """What there is instead of ``path``, as a sentence."""
    above = path.parent
    while not above.is_dir():
        above = above.parent
    names = sorted(p.name for p in above.iterdir() if p.name[0] != ".") if above.is_dir() else []
    if not names:
        return f"{above} is empty."
    wanted = path.name if above == path.parent else path.relative_to(above).parts[0]
    return f"{above} holds {nearest(wanted, names)}."


def _check_readable(path: Path) -> None:
    if path.is_dir():
        raise MediaError(f"Expected an image, got the folder {path}; give a file in it.")
    if not path.exists():
        raise MediaError(f"Expected an image, got {path}, which does not exist; {_near(path)}")


@contextmanager
def _no_limit(Image: Any) -> Iterator[None]:
    # Pillow warns of images over its limit and refuses twice that; ours is checked before decoding.
    with _LIMIT:
        before, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            yield
        finally:
            Image.MAX_IMAGE_PIXELS = before


def _read(file: Any, name: str) -> np.ndarray:
    Image = pillow()
    start = file.read(64)
    file.seek(0)
    if not start:
        raise MediaError(f"Expected an image, got {name}, which is empty; {_AGAIN}.")
    try:
        with _no_limit(Image):
            image = Image.open(file)
    except Image.UnidentifiedImageError as error:
        raise MediaError(f"Expected an image, got {name}, which is {_kind(start)}.") from error
    except Exception as error:  # decoders raise anything on damaged headers
        raise _damaged(name, error) from error
    with image:
        return _decoded(image, name)


def _kind(start: bytes) -> str:
    lower = start.lower().lstrip()
    for signature, kind, step in _SIGNATURES:
        if lower.startswith(signature):
            return f"{kind}; {step}"
    if start[4:8] == b"ftyp":
        if start[8:12] in _HEIF:
            return "HEIC, which Pillow does not read; convert it to JPEG"
        return "a video; use srt_plugins.visualize.video.frames"
    return f"of no kind that Pillow reads or has a damaged start; convert it to PNG, or {_AGAIN}"


def _damaged(name: str, error: Exception) -> MediaError:
    reason = str(error) or type(error).__name__
    return MediaError(f"Expected a whole image, got {name}, which is damaged: {reason}; {_AGAIN}.")


def _decoded(image: Any, name: str) -> np.ndarray:
    width, height = image.size
    if width * height > MOST_PIXELS:
        raise MediaError(
            f"Expected an image of at most {MOST_PIXELS} pixels, got {name} of {width} x {height}; "
            "make it smaller or cut it into parts."
        )
    if image.format == "EPS":
        # Pillow would run Ghostscript on it.
        raise MediaError(f"Expected pixels, got {name}, which is PostScript; convert it to PNG.")
    try:
        image.load()
    except Exception as error:  # decoders raise anything on damaged data
        raise _damaged(name, error) from error
    try:
        pixels = _rgb(image)
    except ValueError as error:
        raise MediaError(
            f"Expected an image that Pillow makes RGB, got {name} of mode {image.mode} ({error}); "
            "convert it to PNG."
        ) from error
    return turned(pixels, *_ORIENTATIONS.get(_orientation(image), _AS_IT_IS))


def _orientation(image: Any) -> int:
    # After loading: TIFFs have been turned by then, and their tag is gone.
    try:
        return int(image.getexif().get(_ORIENTATION, 1))
    except Exception:  # a damaged EXIF block is no reason to refuse an image
        return 1


def _rgb(image: Any) -> np.ndarray:
    if image.mode == "F" or image.mode[0] == "I":
        grey = np.asarray(image)
        eight, clear = eight_bit(grey), image.info.get("transparency")
        if isinstance(clear, int):
            eight = np.where(grey == clear, np.uint8(255), eight)
        return np.repeat(eight[..., None], 3, axis=-1)
    if image.mode in _ALPHA or "transparency" in image.info:
        # Pillow knows no direct way from premultiplied grey.
        image = image.convert("LA") if image.mode == "La" else image
        image = image.convert("RGBA")
        white = pillow().new("RGBA", image.size, (255, 255, 255, 255))
        image = pillow().alpha_composite(white, image)
    return np.array(image.convert("RGB"))
