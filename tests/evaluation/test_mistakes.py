"""What a user gets wrong: one line on stderr with the next step, exit code 2, no output."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import UserDict

import pytest
import torch

from srt_plugins.cli import main
from srt_plugins.errors import CheckpointError, ConfigError
from srt_plugins.evaluation import compare_mmseg
from srt_plugins.evaluation.checkpoint import load_weights, read_weights


@pytest.fixture
def refused(tiny, tmp_path, capsys):
    """Runs the command, expects exit code 2, gives the one line on stderr."""

    def run(*options, config=None, checkpoint=None, code=2):
        out = tmp_path / "out"
        argv = ["compare", "mmseg", config or tiny.config, checkpoint or tiny.checkpoint]
        argv += ["--out", str(out), "--device", "cpu", *options]
        assert main(argv) == code
        captured = capsys.readouterr()
        lines = captured.err.strip().splitlines()
        assert len(lines) == 1 and lines[0].startswith("srt: error: "), captured.err
        assert captured.out == ""
        assert not out.exists() or os.listdir(out) == []
        return lines[0]

    return run


def test_missing_files(refused, tiny):
    assert f"did you mean '{tiny.root / 'tiny.py'}'?" in refused(config=str(tiny.root / "tiyn.py"))
    assert "which is a folder" in refused(checkpoint=str(tiny.root))
    assert "config to be a file, got gone.py" in refused(config="gone.py")
    assert "checkpoint to be a file, got gone.pth" in refused(checkpoint="gone.pth")


def test_a_checkpoint_that_needs_code(refused, tiny, tmp_path):
    weights = read_weights(tiny.checkpoint)
    path = tmp_path / "code.pth"
    torch.save({"state_dict": weights, "message_hub": UserDict(a=1)}, path)
    assert "(collections.UserDict)" in refused(checkpoint=str(path))
    assert read_weights(path, trust=True).keys() == weights.keys()


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", b"PK\x03\x04 broken"])
def test_not_a_checkpoint(refused, tmp_path, content):
    path = tmp_path / "text.pth"
    path.write_bytes(content)
    message = refused(checkpoint=str(path))
    assert "is not a checkpoint" in message and "--trust" not in message


def test_a_checkpoint_without_weights(refused, tmp_path):
    torch.save([1, 2], tmp_path / "list.pth")
    assert "state_dict, got list" in refused(checkpoint=str(tmp_path / "list.pth"))


def test_a_checkpoint_of_another_model(refused, tmp_path, tiny):
    torch.save({"encoder.weight": torch.ones(1)}, tmp_path / "other.pth")
    message = refused(checkpoint=str(tmp_path / "other.pth"))
    assert "'encoder.weight'" in message and "'backbone." in message
    weights = read_weights(tiny.checkpoint)
    weights["backbone.cls_token"] = torch.ones(1, 1, 99)
    torch.save(weights, tmp_path / "wide.pth")
    message = refused(checkpoint=str(tmp_path / "wide.pth"))
    assert "backbone.cls_token" in message and "99" in message


def test_keys_that_do_not_meet_are_told(tiny, tmp_path):
    weights = {"module." + k: v for k, v in read_weights(tiny.checkpoint).items()}
    del weights["module.backbone.cls_token"]
    weights["module.extra"] = torch.ones(1)
    torch.save({"state_dict": weights}, tmp_path / "some.pth")
    found = compare_mmseg(
        tiny.config,
        tmp_path / "some.pth",
        [{}],
        limit=1,
        skip=["controls", "oe", "flip", "larger"],
        device="cpu",
    )
    (note,) = found.notes
    assert "1 missing" in note and "backbone.cls_token" in note and "'extra'" in note
    assert found.to_dict()["missing_keys"] == ["backbone.cls_token"]


def test_all_keys_meet(tiny):
    model = tiny.build(tiny.config)
    report = load_weights(model, tiny.checkpoint)
    assert report.warning() is None
    for name, value in read_weights(tiny.checkpoint).items():
        assert torch.equal(model.state_dict()[name], value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--views", "fases"], "Expected views to be"),
        (["--level", "2.5"], "whole number of pixels"),
        (["--level", "8"], "below one patch (8 pixels)"),
        (["--smooth", "4"], "odd kernel length"),
        (["--stride", "3"], "divide the patch stride 8"),
        (["--layer", "7"], "layer between -2 and 1"),
        (["--outputs", "[5]"], "outputs to name some of [0, 1]"),
        (["--row", "levle=3"], "did you mean 'level'"),
        (["--row", "3"], "name=value pairs"),
        (["--limit", "0"], "limit to be at least 1"),
        (["--device", "abacus"], "device to be one such as"),
        (["--cfg-options", "model"], "KEY=VALUE"),
        (["--cfg-options", "model.type=Segmentator"], "Segmentator is not in the mmseg"),
        (["--cfg-options", "test_dataloader.dataset.data_root=gone"], "data paths"),
        (["--cfg-options", "test_evaluator=None"], "test_evaluator is missing"),
        (["--cfg-options", "test_evaluator.type=DepthMetric"], "DepthEstimator with DepthMetric"),
        (["--cfg-options", "test_evaluator.format_only=True"], "with labels"),
    ],
)
def test_bad_settings(refused, options, message):
    assert message in refused(*options)


def test_nothing_but_ours_is_printed(tiny, tmp_path, capfd, monkeypatch):
    """No logs, deprecations or notices of the frameworks, not even of how a config is read."""
    monkeypatch.setenv("TINY_EPOCH", "3")
    config = tiny.write("env", "epoch = '{{$TINY_EPOCH:1}}'")
    argv = ["compare", "mmseg", config, tiny.checkpoint, "--out", str(tmp_path), "--device", "cpu"]
    assert main([*argv, "--limit", "2", "--skip", "controls", "oe", "flip", "larger"]) == 0
    captured = capfd.readouterr()
    assert captured.err == ""
    lines = captured.out.splitlines()
    assert lines[0].startswith("2 images") and lines[-1] == str(tmp_path / "compare.png")


def test_a_config_that_is_none(refused, tmp_path):
    (tmp_path / "broken.py").write_text("model = dict(")
    assert "is not a config" in refused(config=str(tmp_path / "broken.py"))


def test_out_is_a_file(tiny, tmp_path, capsys):
    (tmp_path / "file").touch()
    argv = ["compare", "mmseg", tiny.config, tiny.checkpoint, "--out", str(tmp_path / "file")]
    assert main(argv) == 2
    assert "--out to be a folder" in capsys.readouterr().err


def test_debug_shows_the_traceback(tiny):
    with pytest.raises(ConfigError):
        main(["--debug", "compare", "mmseg", "gone.py", tiny.checkpoint])
    with pytest.raises(ConfigError):
        main(["compare", "mmseg", "gone.py", tiny.checkpoint, "--debug"])


def test_from_python(tiny):
    with pytest.raises(ConfigError, match="at least one SRT row"):
        compare_mmseg(tiny.config, tiny.checkpoint, [])
    with pytest.raises(ConfigError, match="did you mean 'oe'"):
        compare_mmseg(tiny.config, tiny.checkpoint, skip=["eo"])
    with pytest.raises(ConfigError, match="Settings or a dict of keywords, got int"):
        compare_mmseg(tiny.config, tiny.checkpoint, [3])
    with pytest.raises(ConfigError, match="path or a Config, got dict"):
        compare_mmseg({}, tiny.checkpoint)
    with pytest.raises(ConfigError, match="padding to be one of"):
        compare_mmseg(tiny.config, tiny.checkpoint, complete="mirror", device="cpu")
    with pytest.raises(CheckpointError):
        compare_mmseg(tiny.config, tiny.config, device="cpu")


def test_without_mmsegmentation(tiny):
    """A Python that cannot find mmseg, as where it is not installed."""
    code = (
        "import sys; sys.modules['mmseg'] = None\n"
        "from srt_plugins.cli import main\n"
        f"sys.exit(main(['compare', 'mmseg', {tiny.config!r}, {tiny.checkpoint!r}, '--out', "
        f"{str(tiny.root / 'nothing')!r}]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 2, done.stderr
    assert done.stderr.strip().splitlines() == [
        "srt: error: Comparing MMSegmentation models needs mmseg, which is not installed: pip "
        "install 'srt-plugins[mmseg]' and one of mmcv-lite==2.1.0, mmcv==2.1.0."
    ]
