"""The command line itself: parsing, help, exit codes. What `compare` does: tests/evaluation."""

from __future__ import annotations

import argparse
import io
import os
import subprocess
import sys
import types
import warnings

import pytest

import srt_plugins
from srt_plugins.cli import COMMANDS, main
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


@pytest.fixture
def refused(capsys):
    """Runs a command line that cannot be read; gives its one line on stderr."""

    def run(*argv):
        assert main(argv) == 2
        captured = capsys.readouterr()
        assert captured.out == "" and captured.err.count("\n") == 1
        assert captured.err.startswith("srt: error: ")
        return captured.err

    return run


@pytest.mark.parametrize(
    ("argv", "text"),
    [
        (["compar"], "did you mean 'compare'? srt --help"),
        (["compare"], "required: FRAMEWORK. srt compare --help"),
        (["compare", "mmsegg"], "got 'mmsegg'; did you mean 'mmseg'? srt compare --help"),
        (["compare", "mmseg"], "required: config, checkpoint. srt compare mmseg --help"),
        (["compare", "mmseg", "a", "b", "--limt", "5"], "unknown option --limt; did you mean"),
        (["compare", "mmseg", "a", "b", "c"], "unexpected arguments: c."),
        (["compare", "mmseg", "a", "b", "--skip", "eo"], "one of controls, oe, flip, larger, got"),
        (["tune", "detectron"], "did you mean 'detectron2'?"),
        (["bench", "--views", "x"], "--views: invalid int value: 'x'. srt bench --help"),
        (["--vresion"], "required: COMMAND"),
    ],
)
def test_mistakes_are_one_line(refused, argv, text):
    assert text in refused(*argv)
    assert text in refused("--debug", *argv)  # no traceback of what is read wrong


def test_nothing_gives_the_overview(capsys):
    assert main([]) == 2
    captured = capsys.readouterr()
    assert captured.out == "" and all(name in captured.err for name in (*COMMANDS, "examples:"))


COMMAND_LINES = [
    [],
    ["compare"],
    ["compare", "mmseg"],
    ["compare", "detectron2"],
    ["compare", "transformers"],
    ["tune"],
    ["tune", "mmseg"],
    ["tune", "detectron2"],
    ["tune", "transformers"],
    ["bench"],
    ["show"],
    ["demo"],
]


def test_help_has_examples_and_needs_no_torch():
    """All in one process: what a command imports beside its parser would be seen at the end."""
    code = f"""
import contextlib, io, sys
from srt_plugins.cli import main
for argv in {COMMAND_LINES!r}:
    with contextlib.redirect_stdout(io.StringIO()) as shown:
        assert main([*argv, "--help"]) == 0
    text = shown.getvalue()
    example = " ".join(["  srt", *argv])
    assert "examples:" in text and example in text.partition("examples:")[2], (argv, text)
print([name for name in ("torch", "numpy", "rich", "matplotlib") if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.stdout.strip(), done.stderr) == ("[]", "")


def test_choices_are_those_of_what_runs():
    from srt_plugins.core import translate
    from srt_plugins.evaluation import depth, keywords, rows, transformers_load

    assert keywords.PADDINGS == translate.PADDINGS
    assert keywords.SKIPPABLE == rows.SKIPPABLE
    assert keywords.DTYPES == transformers_load.DTYPES
    assert keywords.ALIGNMENTS == depth.ALIGNMENTS


def test_what_packages_offer_is_there():
    from srt_plugins import bench, evaluation

    for package in (srt_plugins, bench, evaluation):
        for name in package.__all__:
            assert getattr(package, name) is not None
        with pytest.raises(AttributeError, match="no attribute 'gone'"):
            getattr(package, "gone")  # noqa: B009
    # Not the modules of these names.
    assert callable(bench.measure) and callable(evaluation.tune_mmseg)
    assert srt_plugins.views.__name__ == "srt_plugins.core.views"


def test_as_a_module():
    done = subprocess.run(
        [sys.executable, "-m", "srt_plugins", "--version"], capture_output=True, text=True
    )
    assert done.returncode == 0
    assert done.stdout.strip() == f"srt-plugins {srt_plugins.__version__}"


def test_a_reader_that_stops_is_no_error():
    code = "from srt_plugins.cli import main; import sys; sys.exit(main(['--help']))"
    read, write = os.pipe()
    os.close(read)
    env = {k: v for k, v in os.environ.items() if k != "PYTHONUNBUFFERED"}
    done = subprocess.run(
        [sys.executable, "-c", code], stdout=write, stderr=subprocess.PIPE, env=env
    )
    os.close(write)
    assert (done.returncode, done.stderr) == (1, b"")


@pytest.fixture
def command(monkeypatch):
    """Registers a command ``try`` that calls a function."""

    def register(function):
        module = types.ModuleType("srt_command_to_try")

        def add_parser(commands):
            commands.add_parser("try").set_defaults(run=lambda args, argv: function())

        module.add_parser = add_parser
        monkeypatch.setitem(sys.modules, module.__name__, module)
        monkeypatch.setitem(COMMANDS, "try", ("to try", f"{module.__name__}:add_parser"))

    return register


def test_other_failures_are_one_line_too(capsys, command):
    @command
    def fail():
        raise KeyError("two\nlines")

    assert main(["try"]) == 1
    error = capsys.readouterr().err
    assert error.startswith("srt: error: KeyError:") and error.count("\n") == 1
    with pytest.raises(KeyError):
        main(["try", "--debug"])


def test_interrupted(capsys, command):
    @command
    def wait():
        raise KeyboardInterrupt

    assert main(["try"]) == 130
    assert capsys.readouterr().err == "srt: error: interrupted\n"


def test_warnings_are_a_line(command):
    @command
    def warn():
        warnings.warn("something\n is odd", stacklevel=1)
        return 0

    shown = []
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.showwarning = lambda *args: shown.append(warnings.formatwarning(*args))
        assert main(["try"]) == 0
    assert shown == ["srt: warning: something is odd\n"]


def test_a_terminal_without_unicode(command, monkeypatch):
    out = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", out)
    command(lambda: print("2 × 3") or 0)
    assert main(["try"]) == 0
    assert out.buffer.getvalue() == b"2 ? 3\n"
