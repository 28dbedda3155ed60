"""``srt demo`` as it is typed, and how its page is guarded."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request

import pytest

from srt_plugins.cli import main
from tests.demo.conftest import BACKBONE


def free_port():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def test_help_imports_neither_torch_nor_gradio():
    code = (
        "import sys; from srt_plugins.cli import main; code = main(['demo', '--help']); "
        "print([m for m in ('torch', 'gradio', 'numpy') if m in sys.modules], code)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == "[] 0", done.stderr
    assert "--model WORD" in done.stdout and "--port" in done.stdout


@pytest.mark.parametrize(
    ("words", "text"),
    [
        ([], "required: --model"),
        (["--model", "timm/a", "--port", "99999"], "--port between 1 and 65535, got 99999"),
        (["--model", "timm/a", "--size", "3"], "--size to be at least 16"),
        (["--model", "x", "--checkpoint", "w.pth"], "one timm model with --checkpoint"),
        (["--model", "x", "--options", "a=b"], "one model with a config with --options"),
        (["--model", "x", "--target", "net"], "one detectron2 model with --target"),
    ],
)
def test_mistakes_are_one_line(capsys, words, text):
    pytest.importorskip("gradio")
    assert main(["demo", *words]) == 2
    told = capsys.readouterr().err
    assert text in told and told.count("\n") == 1


def test_what_is_missing_is_named(capsys, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert main(["demo", "--model", *BACKBONE]) == 2
    assert "pip install 'srt-plugins[demo]'" in capsys.readouterr().err


def test_the_command_serves_this_machine_alone_until_it_is_interrupted(weights):
    pytest.importorskip("gradio")
    port = free_port()
    words = ["demo", "--model", *BACKBONE, "--checkpoint", weights, "--port", str(port)]
    # A proxy that is not there: nothing may be asked of it.
    environment = {**os.environ, "http_proxy": "http://127.0.0.1:9", "COVERAGE_PROCESS_START": ""}
    process = subprocess.Popen(
        [sys.executable, "-m", "srt_plugins", *words, "--no-browser"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        # What a shell runs in the background ignores Ctrl-C, and so would its children.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    try:
        line = process.stdout.readline()
        assert line == f"SRT demo at http://127.0.0.1:{port}/ (Ctrl-C ends it)\n"
        answer = fetch(port)
        assert answer.status == 200 and b"SRT demo" in answer.read()
        assert "default-src 'self'" in answer.headers["content-security-policy"]
        with pytest.raises(urllib.error.HTTPError, match="400"):
            fetch(port, host="elsewhere.example")
        taken = main([*words, "--no-browser"])
        assert taken == 2
    finally:
        process.send_signal(signal.SIGINT)
        try:
            _, told = process.communicate(timeout=30)
        finally:
            process.kill()
    assert process.returncode == 0 and "Traceback" not in told, told


def fetch(port, host=None):
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    headers = {"Host": host} if host else {}
    return opener.open(urllib.request.Request(f"http://127.0.0.1:{port}/", headers=headers))
