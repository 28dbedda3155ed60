"""A video of frames."""

from __future__ import annotations

from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import ConfigError
from ..evaluation.files import replacing
from .needs import pyav

# In the order of preference; MPEG-4 part 2 is in every build, but no browser plays it.
_ENCODERS = ("libx264", "libopenh264", "mpeg4")


def write_video(path: str | Path, frames: Iterable[np.ndarray], fps: float) -> int:
    """Write an MP4 that browsers play (H.264 where FFmpeg has it) and give its number of frames.

    The file is whole or not there, whatever ``frames`` raises. The first frame gives the size: odd
    heights and widths get one more row or column, a copy of the last, and later frames of another
    size are cut, or filled up with white, at the bottom and on the right.

    Args:
        path: ends in ``.mp4``.
        frames: ``(H, W, 3)`` uint8 RGB.
        fps: frames per second.

    Raises:
        ConfigError: no frames, frames that are no RGB, or a path or rate that cannot be written.
    """
    av = pyav()
    path = Path(path)
    if path.suffix.lower() != ".mp4":
        raise ConfigError(f"Expected the video's path to end in .mp4, got {path}.")
    if not path.parent.is_dir():
        raise ConfigError(f"Expected {path.parent} to be a folder for {path.name}; make it first.")
    if not (isinstance(fps, (int, float, Fraction)) and 1e-4 <= fps <= 1000):
        raise ConfigError(f"Expected fps to be a number within 0.0001..1000, got {fps!r}.")
    rate = Fraction(fps).limit_denominator(65535)
    options = {"movflags": "+faststart"}
    with replacing(path) as part:
        try:
            with av.open(str(part), "w", format="mp4", options=options) as container:
                return _encode(container, frames, rate, path)
        except av.FFmpegError as error:
            reason = getattr(error, "strerror", None) or error
            raise ConfigError(
                f"Expected to write {path}, got an error of FFmpeg's ({reason}); see the disk, the "
                "rate, and the size of the frames (H.264: at most 16384 pixels a side)."
            ) from error


def _encode(container: Any, frames: Iterable[np.ndarray], rate: Fraction, path: Path) -> int:
    stream, size, count = None, (0, 0), 0
    for frame in frames:
        _check_frame(frame, count)
        if stream is None:
            size = frame.shape[0], frame.shape[1]
            stream = _encoder(container, size[0] + size[0] % 2, size[1] + size[1] % 2, rate)
        picture = pyav().VideoFrame.from_ndarray(_even(_fitted(frame, size)), format="rgb24")
        picture = picture.reformat(format="yuv420p", dst_colorspace="itu709")
        picture.pts, picture.time_base = count, 1 / rate
        container.mux(stream.encode(picture))
        count += 1
    if stream is None:
        raise ConfigError(f"Expected frames for {path}, got none; nothing was written.")
    container.mux(stream.encode(None))
    return count


def _check_frame(frame: Any, count: int) -> None:
    good = isinstance(frame, np.ndarray) and frame.dtype == np.uint8 and frame.ndim == 3
    if not good or frame.shape[2] != 3 or not frame.size:
        given = f"{frame.dtype} {frame.shape}" if isinstance(frame, np.ndarray) else type(frame)
        raise ConfigError(f"Expected frames (H, W, 3) of uint8, got {given} as frame {count}.")


def _fitted(frame: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    # A caption of one line more must not end a video that took hours.
    if frame.shape[:2] == size:
        return frame
    page = np.full((*size, 3), 255, np.uint8)
    there = frame[: size[0], : size[1]]
    page[: there.shape[0], : there.shape[1]] = there
    return page


def _even(frame: np.ndarray) -> np.ndarray:
    """With even height and width, which 4:2:0 needs."""
    height, width, _ = frame.shape
    padded = np.pad(frame, ((0, height % 2), (0, width % 2), (0, 0)), "edge")
    return np.ascontiguousarray(padded)


def _encoder(container: Any, height: int, width: int, rate: Fraction) -> Any:
    av = pyav()
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
