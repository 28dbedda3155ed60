"""The command line itself: parsing, help, exit codes. What `compare` does: tests/evaluation."""

from __future__ import annotations

import argparse
import subprocess
import sys

import pytest

import srt_plugins
from srt_plugins.cli import build_parser, main
from srt_plugins.errors import ConfigError
from srt_plugins.evaluation.keywords import add_srt_options, given_keywords, literal, parse_row


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("3", 3),
        ("phases:3", "phases:3"),
        ("[(0, 0), (8,8)]", [(0, 0), (8, 8)]),
        ("layers.5", "layers.5"),
        ("None", None),
        ("__import__('os').getcwd()", "__import__('os').getcwd()"),
    ],
)
def test_values_are_literals_or_text(text, value):
    assert literal(text) == value


@pytest.mark.parametrize(
    ("text", "keywords"),
    [
        ("level=3", {"level": 3}),
        ("views=phases:3,smooth=3", {"views": "phases:3", "smooth": 3}),
        (
            "views=[(0,0),(8,8, 2.0)], smooth=[1,2,1],layer=-2",
            {"views": [(0, 0), (8, 8, 2.0)], "smooth": [1, 2, 1], "layer": -2},
        ),
        ("view-batch=auto", {"view_batch": "auto"}),
    ],
)
def test_rows(text, keywords):
    assert parse_row(text) == keywords


@pytest.mark.parametrize("text", ["", "level", "level=", "=3", "level=3,,smooth=3", "lvl=3"])
def test_bad_rows(text):
    with pytest.raises(ConfigError):
        parse_row(text)


def test_every_setting_is_an_option():
    parser = argparse.ArgumentParser()
    add_srt_options(parser)
    assert given_keywords(parser.parse_args([])) == {}
    argv = ["--level", "3", "--views", "grid", "--statistic", "median", "--layer", "layers.2"]
    argv += ["--smooth", "[1, 2, 1]", "--padding", "zeros"]
    assert given_keywords(parser.parse_args([*argv, "--view-batch", "4"])) == {
        "level": 3,
        "views": "grid",
        "statistic": "median",
        "layer": "layers.2",
        "smooth": [1, 2, 1],
        "padding": "zeros",
        "view_batch": 4,
    }
    others = given_keywords(parser.parse_args(["--stride", "4", "--outputs", "[-1]"]))
    assert others == {"stride": 4, "outputs": [-1]}


def test_options_of_settings_are_complete():
    from dataclasses import fields

    parser = argparse.ArgumentParser()
    add_srt_options(parser)
    names = {f.name for f in fields(srt_plugins.Settings)} - {"dispersion", "group"}
    assert names <= set(vars(parser.parse_args([])))


@pytest.mark.parametrize("argv", [[], ["compare"], ["compare", "mmseg"], ["compare", "other"]])
def test_usage(argv, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(argv)
    assert stopped.value.code == 2
    assert "usage: srt" in capsys.readouterr().err


@pytest.mark.parametrize(
    "argv", [["--help"], ["compare", "--help"], ["compare", "mmseg", "--help"]]
)
def test_help(argv, capsys):
    with pytest.raises(SystemExit) as stopped:
        build_parser().parse_args(argv)
    assert stopped.value.code == 0
    text = capsys.readouterr().out
    assert ("examples:" in text) == ("mmseg" in argv)


def test_as_a_module():
    done = subprocess.run(
        [sys.executable, "-m", "srt_plugins", "--version"], capture_output=True, text=True
    )
    assert done.returncode == 0
    assert done.stdout.strip() == f"srt-plugins {srt_plugins.__version__}"


def test_other_failures_are_one_line_too(capsys, monkeypatch):
    def fail(args, argv):
        raise KeyError("two\nlines")

    parser = build_parser()
    arguments = argparse.Namespace(run=fail)
    monkeypatch.setattr(parser, "parse_args", lambda argv: arguments)
    monkeypatch.setattr("srt_plugins.cli.build_parser", lambda: parser)
    assert main([]) == 1
    error = capsys.readouterr().err
    assert error.startswith("srt: error: KeyError:") and error.count("\n") == 1
    with pytest.raises(KeyError):
        main(["--debug"])
