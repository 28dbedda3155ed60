"""Videos that are read and written, against frames that PyAV stored without loss."""

from __future__ import annotations

import struct
import sys
import warnings
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from srt_plugins.errors import ConfigError, MediaError, MissingDependencyError
from srt_plugins.visualize import encode
from srt_plugins.visualize.video import describe, frames, is_video, write_video


def _moving(count: int, height: int, width: int) -> list[np.ndarray]:
    """Noise that a lossy code would change, and of which no two frames are alike."""
    rng = np.random.default_rng(height * width)
    return [rng.integers(0, 256, (height, width, 3), np.uint8) for _ in range(count)]


def _stored(path: Path, pictures: list[np.ndarray], rate: int = 10, **options: str) -> Path:
    """Frames in a code without loss, each by itself."""
    code, pixels = ("ffv1", "bgr0") if path.suffix == ".mkv" else ("png", "rgb24")
    with av.open(str(path), "w", options=options) as container:
        stream = container.add_stream(code, rate=rate, options={"g": "1"})
        stream.height, stream.width = pictures[0].shape[:2]
        stream.pix_fmt = pixels
        for picture in pictures:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode(None))
    return path


def _same(got: list[np.ndarray], want: list[np.ndarray]) -> bool:
    return len(got) == len(want) and all(map(np.array_equal, got, want))


@pytest.mark.parametrize("ending", [".mov", ".mkv", ".avi"])
@pytest.mark.parametrize("size", [(32, 48), (17, 23), (1, 1)])
def test_frames_to_the_bit(tmp_path: Path, ending: str, size: tuple[int, int]) -> None:
    pictures = _moving(7, *size)
    path = _stored(tmp_path / f"a{ending}", pictures)
    assert _same(list(frames(path)), pictures)
    assert _same(list(frames(path, every=3)), pictures[::3])
    assert _same(list(frames(path, every=2, limit=2)), [pictures[0], pictures[2]])
    assert _same(list(frames(path, limit=99)), pictures)
    clip = describe(path)
    assert clip.size == size and clip.fps == 10 and clip.count == 7


@pytest.mark.parametrize("every", [0, -1, 1.5, True])
def test_every_and_limit_are_checked_before_anything_is_read(every: object) -> None:
    with pytest.raises(ConfigError, match="every to be an integer of at least 1"):
        frames("no such file", every=every)
    with pytest.raises(ConfigError, match="limit"):
        frames("no such file", limit=0)


# The eight ways to show a picture: matrices (a, b, c, d) of QuickTime's track header, by which the
# point (x, y) is shown at (a x + c y, b x + d y).
_MATRICES = [(a, 0, 0, d) for a in (1, -1) for d in (1, -1)]
_MATRICES += [(0, b, c, 0) for b in (1, -1) for c in (1, -1)]


def _as_shown(picture: np.ndarray, matrix: tuple[int, ...]) -> np.ndarray:
    a, b, c, d = matrix
    points = {}
    for y in range(picture.shape[0]):
        for x in range(picture.shape[1]):
            points[a * x + c * y, b * x + d * y] = picture[y, x]
    left, top = min(p[0] for p in points), min(p[1] for p in points)
    size = max(p[1] for p in points) - top + 1, max(p[0] for p in points) - left + 1
    shown = np.zeros((*size, 3), np.uint8)
    for (x, y), colour in points.items():
        shown[y - top, x - left] = colour
    return shown


@pytest.mark.parametrize("matrix", _MATRICES)
def test_rotation_and_mirroring_in_the_file(tmp_path: Path, matrix: tuple[int, ...]) -> None:
    pictures = _moving(2, 6, 10)
    path = _stored(tmp_path / "a.mov", pictures)
    data = bytearray(path.read_bytes())
    place = data.index(b"tkhd") + 4 + 40
    a, b, c, d = (v * 65536 for v in matrix)
    data[place : place + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    path.write_bytes(data)
    assert _same(list(frames(path)), [_as_shown(p, matrix) for p in pictures])
    assert describe(path).size == _as_shown(pictures[0], matrix).shape[:2]


@pytest.mark.parametrize("ending", [".mov", ".mkv", ".avi"])
def test_a_video_that_ends_early_gives_what_there_is_and_warns_once(
    tmp_path: Path, ending: str
) -> None:
    pictures = _moving(20, 50, 50)
    # The index of a .mov first, as files are that are meant to be sent.
    options = {"movflags": "+faststart"} if ending == ".mov" else {}
    data = _stored(tmp_path / f"a{ending}", pictures, **options).read_bytes()
    cut = tmp_path / f"cut{ending}"
    for share in (0.3, 0.77):
        cut.write_bytes(data[: int(len(data) * share)])
        with pytest.warns(UserWarning, match=rf"cut{ending} ends early or is damaged") as caught:
            got = list(frames(cut))
        assert len(caught) == 1
        # One frame may be half there, and is shown as far as it goes.
        assert abs(len(got) - 20 * share) <= 2
        assert _same(got[:-1], pictures[: len(got) - 1])
    # Nobody asked for more than there is.
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert _same(list(frames(cut, limit=5)), pictures[:5])


def test_a_damaged_frame_is_left_out(tmp_path: Path) -> None:
    pictures = _moving(9, 24, 24)
    data = bytearray(_stored(tmp_path / "a.mov", pictures).read_bytes())
    places = [i for i in range(len(data)) if data[i : i + 8] == b"\x89PNG\r\n\x1a\n"]
    assert len(places) == 9
    data[places[4] : places[4] + 60] = b"\0" * 60
    path = tmp_path / "b.mov"
    path.write_bytes(data)
    with pytest.warns(UserWarning, match=r"b\.mov ends early or is damaged: 8 of 9 frames"):
        got = list(frames(path))
    assert _same(got, pictures[:4] + pictures[5:])


def test_a_file_without_an_index_or_of_another_kind(tmp_path: Path) -> None:
    whole = _stored(tmp_path / "a.mov", _moving(5, 16, 16)).read_bytes()
    path = tmp_path / "b.mov"
    path.write_bytes(whole[: len(whole) // 2])
    for content in (whole[: len(whole) // 2], b"hello", b"\0" * 5000):
        path.write_bytes(content)
        for read in (describe, frames):
            with pytest.raises(MediaError, match=r"b\.mov, which .*convert it, .* ffmpeg"):
                read(path)
    path.write_bytes(b"")
    with pytest.raises(MediaError, match=r"b\.mov, which is empty"):
        frames(path)
    with pytest.raises(MediaError, match="which does not exist"):
        frames(tmp_path / "none.mp4")
    with pytest.raises(MediaError, match="which is a folder"):
        describe(tmp_path)


def test_sound_alone_and_a_stream_without_frames(tmp_path: Path) -> None:
    path = tmp_path / "a.mkv"
    with av.open(str(path), "w") as container:
        sound = container.add_stream("pcm_s16le", rate=8000)
        samples = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), "s16", "mono")
        samples.sample_rate = 8000
        container.mux(sound.encode(samples))
    with pytest.raises(MediaError, match="holds no pictures"):
        frames(path)
    path = tmp_path / "b.avi"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("png", rate=5)
        stream.height, stream.width, stream.pix_fmt = 8, 8, "rgb24"
        container.start_encoding()
    with pytest.raises(MediaError, match=r"b\.avi, of which none could be read"):
        next(frames(path))


def test_frames_of_other_sizes_are_scaled_to_the_first(tmp_path: Path) -> None:
    small, large = np.full((8, 12, 3), 40, np.uint8), np.full((32, 24, 3), 200, np.uint8)
    path = tmp_path / "a.avi"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("png", rate=5)
        stream.height, stream.width, stream.pix_fmt = 8, 12, "rgb24"
        for i, picture in enumerate((small, large, small)):
            coder = av.CodecContext.create("png", "w")
            coder.height, coder.width = picture.shape[:2]
            coder.pix_fmt, coder.time_base = "rgb24", Fraction(1, 5)
            for packet in coder.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")):
                packet.stream, packet.pts, packet.dts = stream, i, i
                container.mux(packet)
    got = list(frames(path))
    assert [g.shape for g in got] == [(8, 12, 3)] * 3
    assert [int(g.mean()) for g in got] == [40, 200, 40]


@pytest.mark.parametrize("size", [(16, 24), (17, 24), (16, 25), (1, 1)])
def test_a_written_video_has_even_sizes_and_the_colours_that_went_in(
    tmp_path: Path, size: tuple[int, int]
) -> None:
    colours = [(200, 30, 40), (20, 180, 60), (30, 60, 220), (250, 250, 250), (0, 0, 0)]
    pictures = [np.full((*size, 3), colour, np.uint8) for colour in colours]
    path = tmp_path / "a.mp4"
    assert write_video(path, iter(pictures), 29.97) == 5
    even = size[0] + size[0] % 2, size[1] + size[1] % 2
    clip = describe(path)
    assert (clip.size, clip.count) == (even, 5) and clip.fps == pytest.approx(29.97, abs=1e-3)
    for got, colour in zip(frames(path), colours):
        assert np.abs(got - np.array(colour, int)).max() <= 6
    with av.open(str(path)) as container:
        context = container.streams.video[0].codec_context
        assert context.name == "h264" and context.pix_fmt == "yuv420p"
        # BT.709 in limited range: what a browser is to make of it is said.
        assert (context.colorspace, context.color_range) == (1, 1)
    # The index is in front, so that a page can play it while it loads.
    data = path.read_bytes()
    assert data.index(b"moov") < data.index(b"mdat")


def test_the_padding_is_a_copy_of_the_edge(tmp_path: Path) -> None:
    picture = np.zeros((33, 33, 3), np.uint8)
    picture[-4:] = picture[:, -4:] = 255
    write_video(tmp_path / "a.mp4", [picture], 5)
    got = next(frames(tmp_path / "a.mp4"))
    assert got.shape == (34, 34, 3) and got[-1].min() > 240 and got[:, -1].min() > 240


def test_later_frames_are_cut_or_filled_up_to_the_size_of_the_first(tmp_path: Path) -> None:
    dark = [np.full((h, w, 3), 50, np.uint8) for h, w in ((32, 32), (16, 32), (64, 48))]
    write_video(tmp_path / "a.mp4", dark, 5)
    got = list(frames(tmp_path / "a.mp4"))
    assert [g.shape for g in got] == [(32, 32, 3)] * 3
    assert got[1][:14].max() < 60 and got[1][18:].min() > 245 and got[2].max() < 60


def test_without_h264_another_code_is_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.mp4"
    monkeypatch.setattr(encode, "_ENCODERS", ("no_such_encoder", "mpeg4"))
    write_video(path, [np.full((16, 16, 3), 90, np.uint8)] * 3, 5)
    with av.open(str(path)) as container:
        assert container.streams.video[0].codec_context.name == "mpeg4"
    assert [abs(int(f.mean()) - 90) <= 6 for f in frames(path)] == [True] * 3
    monkeypatch.setattr(encode, "_ENCODERS", ("no_such_encoder",))
    with pytest.raises(ConfigError, match="no_such_encoder"):
        write_video(path, [np.zeros((16, 16, 3), np.uint8)], 5)


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError, MediaError])
@pytest.mark.parametrize("after", [0, 90])
def test_a_video_is_whole_or_not_there(
    tmp_path: Path, error: type[BaseException], after: int
) -> None:
    def pictures() -> Iterator[np.ndarray]:
        for _ in range(after):
            yield np.zeros((16, 16, 3), np.uint8)
        # After more frames than the encoder looks ahead, some of them are in a file.
        assert not after or any(p.stat().st_size > 3 for p in tmp_path.glob(".*"))
        raise error("stop")

    path = tmp_path / "a.mp4"
    with pytest.raises(error, match="stop"):
        write_video(path, pictures(), 5)
    assert not list(tmp_path.iterdir())
    path.write_bytes(b"old")
    with pytest.raises(error, match="stop"):
        write_video(path, pictures(), 5)
    assert [p.name for p in tmp_path.iterdir()] == ["a.mp4"] and path.read_bytes() == b"old"


def test_what_cannot_be_written(tmp_path: Path) -> None:
    picture = np.zeros((8, 8, 3), np.uint8)
    path = tmp_path / "a.mp4"
    with pytest.raises(ConfigError, match="got none"):
        write_video(path, [], 5)
    for wrong in (picture[..., 0], picture.astype(float), picture[:0], None):
        with pytest.raises(ConfigError, match="as frame 1"):
            write_video(path, [picture, wrong], 5)
    with pytest.raises(ConfigError, match=r"\.mp4, got .*a\.gif"):
        write_video(tmp_path / "a.gif", [picture], 5)
    with pytest.raises(ConfigError, match="none to be a folder"):
        write_video(tmp_path / "none" / "a.mp4", [picture], 5)
    with pytest.raises(ConfigError, match="at most 16384 pixels"):
        write_video(path, [np.zeros((2, 17000, 3), np.uint8)], 5)
    for fps in (0, -1, float("nan"), float("inf"), 1e6, "5"):
        with pytest.raises(ConfigError, match="fps"):
            write_video(path, [picture], fps)
    assert not list(tmp_path.iterdir())


def test_is_video(tmp_path: Path) -> None:
    for name, want in (("a.mp4", True), ("A.MOV", True), ("a.png", False), ("a", False)):
        assert is_video(tmp_path / name) is want
    for ending in (".mov", ".mkv", ".avi"):
        path = _stored(tmp_path / f"a{ending}", _moving(1, 4, 4))
        bare = tmp_path / f"bare_{ending[1:]}"
        bare.write_bytes(path.read_bytes())
        assert is_video(bare)
    bare.write_bytes(b"\x89PNG\r\n\x1a\n")
    assert not is_video(bare)


def test_without_pyav(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "av", None)
    for call in (lambda: frames("a.mp4"), lambda: write_video(tmp_path / "a.mp4", [], 5)):
        with pytest.raises(MissingDependencyError, match=r"pip install 'srt-plugins\[show\]'"):
            call()
