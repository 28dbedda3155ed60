"""Runs pages, each in a process of its own, forked from one that has the libraries imported.

    python -m tests.docs.server FOLDER

reads a page's path on each line of its input, and answers with the path of a file that has a line
of JSON for every block of the page: its line, its outcome (passed, failed, skipped), the reason.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import signal
import socket
import sys
import traceback
from pathlib import Path

SECONDS = 120  # for one page
ROOT = Path(__file__).parents[2]
# What a page finds where it runs, besides what it writes itself.
_CLONE = ("examples", "mmseg_configs", "d2_configs")
_HERE = ("127.0.0.1", "::1", "localhost")
_LIBRARIES = (
    "torch",
    "torchvision",
    "timm",
    "transformers.pipelines",
    "mmengine.runner",
    "detectron2.modeling",
    "matplotlib",
)


def main(folder: Path) -> None:
    """Serve until the input ends."""
    _offline(folder)
    for library in _LIBRARIES:
        with contextlib.suppress(ImportError):
            importlib.import_module(library)
    from tests.docs import released

    answers = os.fdopen(os.dup(1), "w")
    for number, line in enumerate(sys.stdin):
        page = Path(line.strip())
        released.put(page.read_text(encoding="utf-8"), folder)
        place = folder / f"{number}-{page.stem}"
        (place / "work").mkdir(parents=True)
        for name in _CLONE:
            (place / "work" / name).symlink_to(ROOT / name)
        child = os.fork()
        if child == 0:
            _one(page, place)
        os.waitpid(child, 0)
        print(place / "results.jsonl", file=answers, flush=True)


def _one(page: Path, place: Path) -> None:
    """In the child: run a page, write down what came of it, and end."""
    from tests.docs.run import run

    signal.alarm(SECONDS)
    log = os.open(place / "log.txt", os.O_WRONLY | os.O_CREAT)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.chdir(place / "work")
    try:
        with (place / "results.jsonl").open("w") as file:
            for found in run(page):
                print(json.dumps(found), file=file, flush=True)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)


def _offline(folder: Path) -> None:
    """What would be downloaded comes from caches of our own, or not at all."""
    os.environ.update(
        HF_HOME=str(folder / "huggingface"),
        HF_HUB_OFFLINE="1",
        TORCH_HOME=str(folder / "torch"),
        MPLBACKEND="agg",
        MPLCONFIGDIR=str(folder / "matplotlib"),
    )
    resolve = socket.getaddrinfo

    def only_here(host, *args, **keywords):
        if host not in (None, *_HERE):
            raise socket.gaierror(f"pages are run without network, this asked for {host}")
        return resolve(host, *args, **keywords)

    socket.getaddrinfo = only_here


if __name__ == "__main__":
    main(Path(sys.argv[1]))
