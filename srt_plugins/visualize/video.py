"""Frames of a video, and a video of frames."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import ConfigError, MediaError, MissingDependencyError
from ..evaluation.files import replacing

VIDEOS = (
    *(".mp4", ".mov", ".mkv", ".avi", ".webm", ".m4v", ".mpg", ".mpeg", ".ts", ".mts", ".m2ts"),
    *(".wmv", ".flv", ".3gp", ".ogv"),
)
"""Endings of the files that are taken for videos."""

# In the order of preference; MPEG-4 part 2 is in every build, but no browser plays it.
_ENCODERS = ("libx264", "libopenh264", "mpeg4")
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
            yield np.ascontiguousarray(_upright(pixels, frame))
            given += 1
            if given == limit:
                return


def _decoded(path: Path) -> Iterator[Any]:
    """Decoded frames; warns at the end if some could not be read."""
    import av

    with _opened(path) as container:
        stream = _stream(container, path)
        stream.thread_type = "AUTO"
        packets, count, errors, last = container.demux(stream), 0, 0, None
        while True:
            try:
                packet = next(packets, None)
                decoded = packet.decode() if packet is not None else []
            except (av.FFmpegError, EOFError) as error:
                errors, last, decoded = errors + 1, error, []
                # An error of the demuxer ends its iterator; one of the decoder is skipped.
                packet = Ellipsis
            for frame in decoded:
                count += 1
                yield frame
            if packet is None:
                break
        expected = _count(stream)
        if not count:
            raise MediaError(
                f"Expected a video with frames, got {path}, of which none could be read"
                f"{f' ({_reason(last)})' if last else ''}; {_CONVERT}."
            )
        # Rates and edit lists make counts inexact by a frame or two.
        if errors or (expected and count < expected - max(2, expected // 50)):
            of = f" of {expected}" if expected and expected >= count else ""
            warnings.warn(
                f"{path} ends early or is damaged: {count}{of} frames could be read.",
                stacklevel=3,
            )


def _av() -> Any:
    try:
        import av
    except ImportError as error:
        raise MissingDependencyError(
            "Videos need PyAV, which is not installed: pip install 'srt-plugins[show]'."
        ) from error
    return av


def _opened(path: str | Path) -> Any:
    av = _av()
    if not Path(path).is_file():
        kind = "is a folder" if Path(path).is_dir() else "does not exist"
        raise MediaError(f"Expected a video, got {path}, which {kind}.")
    if not Path(path).stat().st_size:
        raise MediaError(
            f"Expected a video, got {path}, which is empty; copy or download it again."
        )
    try:
        return av.open(str(path), metadata_errors="ignore")
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
        pixels, a, d = pixels.swapaxes(0, 1), c, b
    return pixels[:: -1 if d < 0 else 1, :: -1 if a < 0 else 1]


def write_video(path: str | Path, frames: Iterable[np.ndarray], fps: float) -> int:
    """Write an MP4 that browsers play (H.264 where FFmpeg has it) and give its number of frames.

    The file is whole or not there, whatever ``frames`` raises. Odd heights and widths get one more
    row or column, a copy of the last.

    Args:
        path: ends in ``.mp4``.
        frames: ``(H, W, 3)`` uint8 RGB, all of one size.
        fps: frames per second.

    Raises:
        ConfigError: no frames, frames that differ in size or are no RGB, or a path or rate that
            cannot be written.
    """
    av = _av()
    path = Path(path)
    if path.suffix.lower() != ".mp4":
        raise ConfigError(f"Expected the video's path to end in .mp4, got {path}.")
    if not path.parent.is_dir():
        raise ConfigError(f"Expected {path.parent} to be a folder for {path.name}; make it first.")
    if not (isinstance(fps, (int, float, Fraction)) and fps > 0 and math.isfinite(fps)):
        raise ConfigError(f"Expected fps to be a number above 0, got {fps!r}.")
    with replacing(path) as part:
        options = {"movflags": "+faststart"}
        with av.open(str(part), "w", format="mp4", options=options) as container:
            count = _encode(container, frames, Fraction(fps).limit_denominator(65535), path)
    return count


def _encode(container: Any, frames: Iterable[np.ndarray], rate: Fraction, path: Path) -> int:
    stream, size, count = None, None, 0
    for frame in frames:
        _check_frame(frame, size, count)
        size = frame.shape
        even = np.pad(frame, ((0, size[0] % 2), (0, size[1] % 2), (0, 0)), "edge")
        if stream is None:
            stream = _encoder(container, even.shape[0], even.shape[1], rate)
        picture = _av().VideoFrame.from_ndarray(np.ascontiguousarray(even), format="rgb24")
        picture = picture.reformat(format="yuv420p", dst_colorspace="itu709")
        picture.pts, picture.time_base = count, 1 / rate
        container.mux(stream.encode(picture))
        count += 1
    if stream is None:
        raise ConfigError(f"Expected frames for {path}, got none; nothing was written.")
    container.mux(stream.encode(None))
    return count


def _check_frame(frame: Any, size: tuple[int, ...] | None, count: int) -> None:
    good = isinstance(frame, np.ndarray) and frame.dtype == np.uint8 and frame.ndim == 3
    if not good or frame.shape[2] != 3 or not frame.size:
        given = f"{frame.dtype} {frame.shape}" if isinstance(frame, np.ndarray) else type(frame)
        raise ConfigError(f"Expected frames (H, W, 3) of uint8, got {given} as frame {count}.")
    if size is not None and frame.shape != size:
        raise ConfigError(
            f"Expected frames of one size, {size[:2]}, got {frame.shape[:2]} as frame {count}; "
            "resize it first."
        )


def _encoder(container: Any, height: int, width: int, rate: Fraction) -> Any:
    av = _av()
    for name in _ENCODERS:
        try:
            av.codec.Codec(name, "w")
        except ValueError:
            continue
        stream = container.add_stream(name, rate=rate)
        break
    else:
        raise ConfigError(
            f"Expected FFmpeg to have an encoder of {', '.join(_ENCODERS)}, got a PyAV without; "
            "install the wheel: pip install --force-reinstall --only-binary av av."
        )
    stream.height, stream.width, stream.pix_fmt = height, width, "yuv420p"
    if name == "libx264":
        stream.options = {"crf": "18"}
    else:
        stream.bit_rate = max(200_000, int(height * width * float(rate) / 5))
    # Tagged BT.709, limited range: players guess otherwise, by the size.
    context = stream.codec_context
    context.colorspace = context.color_primaries = context.color_trc = context.color_range = 1
    return stream
