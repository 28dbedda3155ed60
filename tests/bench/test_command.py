"""``srt bench`` as it is called, on models that are tiny."""

from __future__ import annotations

import copy
import json

import pytest
import torch

from srt_plugins import SRTWrapper, bench
from srt_plugins.bench.models import check_model
from srt_plugins.bench.rows import PIXEL_MEAN, TOKEN_MEAN, rows
from srt_plugins.cli import main
from srt_plugins.errors import ConfigError

timm = pytest.importorskip("timm")
TINY = {"embed_dim": 32, "depth": 4, "num_heads": 2}


@pytest.fixture(scope="module")
def backbone():
    torch.manual_seed(0)
    made = timm.create_model(
        "vit_tiny_patch16_224", features_only=True, out_indices=(-1,), img_size=(48, 64), **TINY
    )
    return made.eval()


@pytest.fixture(scope="module")
def done(backbone):
    """A measurement, and what its progress was told."""
    plan, told = bench.Plan((4, 9), repeats=1, view_batch=2), []
    torch.manual_seed(0)
    images = torch.randn(1, 3, 48, 64)
    made = bench.measure("tiny", backbone, images, plan, lambda what, views: told.append(views))
    return made, plan, told


def test_every_row_is_measured(done):
    made, plan, _ = done
    assert [(r.name, r.views) for r in made.rows] == [(r.name, r.views) for r in rows((4, 9), 4)]
    for row in made.rows:
        assert row.seconds.low > 0
        assert row.seconds.count == row.ratio.count == plan.repeats
        assert not row.failed
    assert {a.views for a in made.aggregations} == {4, 9}
    assert made.counts() == [4, 9]
    assert (made.patch, made.tokens, made.channels) == (16, (3, 4), 32)


def test_ratios_are_seconds_over_as_many_plain_views(done):
    made, *_ = done
    for row in made.rows:
        plain = made.plain[row.views]
        assert row.seconds.low / (row.views * plain.high) <= row.ratio.high
        assert row.seconds.high / (row.views * plain.low) >= row.ratio.low


def test_long_rows_are_repeated_less_on_a_cpu():
    plan = bench.Plan((4, 16, 49), repeats=3)
    cpu, gpu = torch.device("cpu"), torch.device("cuda")
    made = {(r.name, r.views): r for r in rows(plan.counts, 12)}
    repeats = {key: plan.repeats_of(row, cpu) for key, row in made.items()}
    assert [repeats[PIXEL_MEAN, n] for n in plan.counts] == [3, 1, 1]
    assert [repeats[TOKEN_MEAN, n] for n in plan.counts] == [3, 3, 3]
    assert {plan.repeats_of(row, gpu) for row in made.values()} == {3}


def test_memory_holds_what_must_be_there(done):
    made, *_ = done
    pixels = made.row(PIXEL_MEAN, 4)
    assert pixels.peak >= 48 * 64 * 32 * 4
    mean = made.row(TOKEN_MEAN, 4)
    assert mean.extra == mean.peak - made.forward_peaks[2]
    image, tokens = 48 * 64 * 3 * 4, 13 * 32 * 4
    for images, peak in made.forward_peaks.items():
        assert peak >= images * (image + tokens)
    assert made.row(TOKEN_MEAN, 9).peak is not None
    assert made.row(PIXEL_MEAN, 9).peak is None  # a run of its own that nothing judges


def test_views_per_forward_are_those_that_were_run(done):
    made, *_ = done
    found = {(r.kind, r.views > 1): r.chunk for r in made.rows}
    assert found == {("srt", False): 1, ("srt", True): 2, ("naive", True): 1}


def test_progress_comes_to_the_end(done, backbone):
    _, plan, told = done
    assert sum(told) == plan.total_views(4, torch.device("cpu"))


def test_the_backbone_stays_plain_beside_wrapped_shells(done, backbone):
    """Rows are wrapped on shells over the same weights; they compute what a wrapped copy does."""
    assert "_srt" not in vars(backbone)
    images = torch.randn(1, 3, 48, 64)
    with torch.no_grad():
        plain = backbone(images)[0]
        shell = SRTWrapper(copy.copy(backbone), layer=1)(images)[0]
        whole = SRTWrapper(copy.deepcopy(backbone), layer=1)(images)[0]
        assert torch.equal(shell, whole)
        assert torch.equal(backbone(images)[0], plain)
        assert not torch.allclose(shell, plain)


def test_a_backbone_without_a_map_is_refused():
    whole = timm.create_model("vit_tiny_patch16_224", img_size=48, **TINY).eval()
    with pytest.raises(ConfigError, match="first output is a map"):
        bench.measure("whole", whole, torch.zeros(1, 3, 48, 48), bench.Plan((4,)))


@pytest.mark.parametrize(
    ("name", "size", "found"),
    [
        ("vit_small", (368, 480), "vit_small_patch16_224"),
        ("vit_small", (518, 518), "vit_small_patch14_dinov2"),
        ("vit_large", (1024, 1024), "vit_large_patch16_224"),
        ("vit_base_patch8_224", (100, 100), "vit_base_patch8_224"),
    ],
)
def test_short_names_follow_the_size(name, size, found):
    assert check_model(name, size) == found


def test_command(tmp_path, capsys):
    argv = ["bench", "--device", "cpu", "--model", "test_vit", "--size", "32", "48"]
    argv += ["--views", "2", "--repeats", "1", "--process-time", "--out", str(tmp_path / "out")]
    threads = torch.get_num_threads()
    assert main([*argv, "--threads", "1"]) == 0
    assert torch.get_num_threads() == threads
    text = (tmp_path / "out" / "bench.md").read_text()
    assert text in capsys.readouterr().out
    assert "Times: seconds that the cores spent on this process" in text
    record = json.loads((tmp_path / "out" / "bench.json").read_text())
    assert record["command"].startswith("srt bench --device cpu")
    assert record["versions"]["timm"] == timm.__version__
    (made,) = record["measurements"]
    assert (made["model"], made["size"]) == ("test_vit", [32, 48])
    assert (tmp_path / "out" / "bench.png").stat().st_size > 0
    assert not [path for path in (tmp_path / "out").iterdir() if path.name.startswith(".")]


def test_json_and_nothing_else(done, tmp_path, capsys, monkeypatch):
    """Of a measurement made before."""
    monkeypatch.setattr("srt_plugins.bench.command._measured", lambda *_: done[0])
    argv = ["bench", "--device", "cpu", "--model", "test_vit", "--size", "32", "32"]
    assert main([*argv, "--json", "--out", str(tmp_path)]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown == json.loads((tmp_path / "bench.json").read_text())


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["--model", "vit_smal"], ["--model", "'vit_smal'", "'vit_small'"]),
        (["--model", "resnet50"], ["--model", "'resnet50'", "vit_small"]),
        (["--views", "4", "-1"], ["--views", "-1", "--views 4 16 49"]),
        (["--views", "1"], ["--views", "[1]"]),
        (["--size", "100", "480"], ["--size", "100 480", "--size 96 480"]),
        (["--model", "vit_tiny", "--size", "0", "480"], ["--size", "0 480", "--size 368 480"]),
        (["--repeats", "0"], ["--repeats", "got 0"]),
        (["--threads", "0"], ["--threads", "got 0"]),
        (["--view-batch", "some"], ["view_batch", "'some'"]),
        (["--device", "tpu"], ["device", "'tpu'"]),
    ],
)
def test_mistakes_end_with_the_next_step(argv, words, tmp_path, capsys):
    given = ["bench", *([] if "--device" in argv else ["--device", "cpu"]), *argv]
    assert main([*given, "--out", str(tmp_path / "out")]) == 2
    message = capsys.readouterr().err
    assert all(word in message for word in words), message
    assert message.count("\n") == 1
    assert not (tmp_path / "out").exists() or not list((tmp_path / "out").iterdir())
