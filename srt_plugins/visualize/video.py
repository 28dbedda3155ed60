"""Frames of a video."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import ConfigError, MediaError
from .encode import write_video
from .needs import pyav
from .pixels import turned

__all__ = ["VIDEOS", "Clip", "describe", "frames", "is_video", "write_video"]

VIDEOS = (
    *(".mp4", ".mov", ".mkv", ".avi", ".webm", ".m4v", ".mpg", ".mpeg", ".ts", ".mts", ".m2ts"),
    *(".wmv", ".flv", ".3gp", ".ogv"),
)
"""Endings of the files that are taken for videos."""

_CONVERT = "convert it, for example with: ffmpeg -i IN -c:v libx264 OUT.mp4"
_MATRIX = "DISPLAYMATRIX"


def is_video(path: str | Path) -> bool:
    """Whether the file is a video, by its ending, or its first bytes if it has none."""
    path = Path(path)
    if path.suffix or not path.is_file():
        return path.suffix.lower() in VIDEOS
    with path.open("rb") as file:
        start = file.read(12)
    mp4 = start[4:8] == b"ftyp" and start[8:12] not in (b"avif", b"heic", b"mif1")
    return mp4 or start[:4] == b"\x1a\x45\xdf\xa3" or start[:4] + start[8:] == b"RIFFAVI "


@dataclass(frozen=True)
class Clip:
    """What a video says of itself.

    Args:
        size: height and width of its frames as shown, in pixels.
        fps: frames per second, 25 where it does not say.
        count: number of frames that it should have; None = not said.
    """

    size: tuple[int, int]
    fps: float
    count: int | None


def describe(path: str | Path) -> Clip:
    """Size, rate and number of frames.

    Raises:
        MediaError: not there, not a video, or none of its frames can be read.
    """
    height, width, _ = next(frames(path, limit=1)).shape
    with _opened(path) as container:
        stream = _stream(container, path)
        return Clip((height, width), float(_rate(stream) or 25), _count(stream))


def frames(path: str | Path, every: int = 1, limit: int | None = None) -> Iterator[np.ndarray]:
    """Frames as ``(H, W, 3)`` uint8 RGB, in the order in which they are shown.

    Rotation and mirroring that the file asks for are applied. All frames have the size of the
    first: where a stream changes its size, later ones are scaled to it. Pixels are taken for
    square. A video that ends early or is damaged gives what can be read and warns once.

    Args:
        path: any video that FFmpeg reads.
        every: frames 0, every, 2 * every, ….
        limit: at most so many; None = all.

    Raises:
        ConfigError: ``every`` or ``limit`` below one.
        MediaError: not there, not a video, or (at the first frame) none of it can be read.
    """
    for name, value in (("every", every), ("limit", limit)):
        if value is not None and (isinstance(value, bool) or int(value) != value or value < 1):
            raise ConfigError(f"Expected {name} to be an integer of at least 1, got {value!r}.")
    with _opened(path) as container:
        _stream(container, path)
    return _frames(Path(path), every, limit)


def _frames(path: Path, every: int, limit: int | None) -> Iterator[np.ndarray]:
    first, given = None, 0
    for i, frame in enumerate(_decoded(path)):
        first = first or (frame.width, frame.height)
        if i % every == 0:
            pixels = frame.to_ndarray(format="rgb24", width=first[0], height=first[1])
            yield _upright(pixels, frame)
            given += 1
            if given == limit:
                return


def _decoded(path: Path) -> Iterator[Any]:
    """Decoded frames; warns at the end if some could not be read."""
    with _opened(path) as container:
        stream = _stream(container, path)
        # Threads of FFmpeg log through Python: closing a video whose frames are not all read waits
        # for them while it holds the interpreter's lock, for ever.
        stream.thread_type = "NONE"
        stream.codec_context.thread_count = 1
        errors: list[Exception] = []
        count, expected = 0, _count(stream)
        for packet in _packets(container, stream, errors):
            for frame in _of_packet(stream, packet, errors):
                count += 1
                yield frame
    if not count:
        reason = f" ({_reason(errors[-1])})" if errors else ""
        raise MediaError(
            f"Expected a video with frames, got {path}, of which none could be read{reason}; "
            f"{_CONVERT}."
        )
    # Rates and edit lists make what a file says inexact by a frame or two.
    if errors or (expected and count < expected - max(2, expected // 50)):
        of = f" of {expected}" if expected and expected > count else ""
        warnings.warn(
            f"{path} ends early or is damaged: {count}{of} frames could be read.", stacklevel=4
        )


def _packets(container: Any, stream: Any, errors: list[Exception]) -> Iterator[Any]:
    """Packets, and None in the end for what the decoder still holds, whatever happens."""
    try:
        # The last packet of PyAV's is empty, and ends the decoder.
        yield from (packet for packet in container.demux(stream) if packet.size)
    except (pyav().FFmpegError, EOFError) as error:
        errors.append(error)
    yield None


def _of_packet(stream: Any, packet: Any, errors: list[Exception]) -> list[Any]:
    try:
        return list(stream.codec_context.decode(packet))
    except (pyav().FFmpegError, EOFError) as error:
        errors.append(error)
        return []


def _opened(path: str | Path) -> Any:
    av = pyav()
    if not Path(path).is_file():
        kind = "is a folder" if Path(path).is_dir() else "does not exist"
        raise MediaError(f"Expected a video, got {path}, which {kind}.")
    if not Path(path).stat().st_size:
        raise MediaError(
            f"Expected a video, got {path}, which is empty; copy or download it again."
        )
    try:
        # A playlist must not fetch anything.
        options = {"protocol_whitelist": "file"}
        return av.open(str(path), metadata_errors="ignore", options=options)
    except (av.FFmpegError, EOFError, OSError, ValueError) as error:
        raise MediaError(
            f"Expected a video, got {path}, which is none that FFmpeg reads, or is cut short "
            f"({_reason(error)}); copy it again or {_CONVERT}."
        ) from error


def _reason(error: Exception | None) -> str:
    return str(getattr(error, "strerror", None) or error)


def _stream(container: Any, path: str | Path) -> Any:
    if not container.streams.video:
        container.close()
        raise MediaError(
            f"Expected a video, got {path}, which holds no pictures (sound alone, or its start is "
            f"damaged); {_CONVERT}."
        )
    return container.streams.video[0]


def _rate(stream: Any) -> Fraction | None:
    return stream.average_rate or stream.guessed_rate or stream.base_rate


def _count(stream: Any) -> int | None:
    """Number of frames by the header, else by duration times rate."""
    if stream.frames > 0:
        return int(stream.frames)
    rate, said = _rate(stream), stream.metadata.get("DURATION", "")
    if not rate:
        return None
    if stream.duration and stream.time_base:
        return round(stream.duration * stream.time_base * rate)
    try:
        hours, minutes, seconds = (float(part) for part in said.split(":"))
    except ValueError:
        return None
    return round((hours * 3600 + minutes * 60 + seconds) * float(rate)) or None


def _upright(pixels: np.ndarray, frame: Any) -> np.ndarray:
    """Turned and mirrored in quarters as the frame's display matrix says."""
    given = frame.side_data.get(_MATRIX)
    if given is None:
        return pixels
    # A point (x, y) is shown at (a x + c y, b x + d y), up to a shift.
    (a, b, _), (c, d, _), _ = np.frombuffer(bytes(given), np.int32).reshape(3, 3).tolist()
    if abs(b) > abs(a):
        return turned(pixels, True, b < 0, c < 0)
    return turned(pixels, False, d < 0, a < 0)
