"""Runs pages in a server process that the tests of a session share."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def outcomes(tmp_path_factory):
    """Runs a page when it is first asked for: what came of each block by its line, and the log."""
    folder, known = tmp_path_factory.mktemp("pages"), {}
    server = subprocess.Popen(
        [sys.executable, "-m", "tests.docs.server", str(folder)],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=(folder / "server.txt").open("w"),
        text=True,
    )

    def of(page: Path) -> tuple[dict[int, dict], str]:
        if page not in known:
            print(page, file=server.stdin, flush=True)
            answer = server.stdout.readline().strip()
            assert answer, (folder / "server.txt").read_text()
            lines = Path(answer).read_text().splitlines()
            log = Path(answer).with_name("log.txt").read_text()
            known[page] = ({found["line"]: found for found in map(json.loads, lines)}, log)
        return known[page]

    yield of
    server.stdin.close()
    server.wait(timeout=10)
