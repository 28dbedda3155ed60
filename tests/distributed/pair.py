"""Two real processes for the tests of this folder: started, waited for, ended when they hang."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parents[2]
# Seconds: for a collective that the other process never enters, and for everything.
COLLECTIVE, WHOLE = 60, 180


def start(commands, folder):
    """Run Python command lines in ``folder`` at once; returns what each of two ranks saved there.

    A hang ends with the processes killed and their output in the error, never with a wait.
    """
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    environment["PYTHONPATH"] = os.pathsep.join(
        [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    )
    log = folder / "output.txt"
    end = time.monotonic() + WHOLE
    with log.open("w") as output:
        running = [
            subprocess.Popen(
                [sys.executable, *command],
                cwd=folder,
                env=environment,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            for command in commands
        ]
        try:
            codes = [process.wait(max(0, end - time.monotonic())) for process in running]
        except subprocess.TimeoutExpired:
            codes = [f"none after {WHOLE} s"]
        finally:
            for process in running:
                if process.poll() is None:
                    os.killpg(process.pid, signal.SIGKILL)
                    process.wait()
    if any(codes):
        raise RuntimeError(f"the processes ended with {codes}:\n{log.read_text()[-6000:]}")
    return [torch.load(folder / f"{rank}.pt", weights_only=False) for rank in (0, 1)]


def save(jobs, folder, rank):
    """Run the jobs one after the other and save what each returned or raised."""
    found = {}
    for name, job in jobs.items():
        try:
            found[name] = job()
        except Exception as error:
            found[name] = Raised(type(error).__name__, str(error))
    torch.save(found, Path(folder) / f"{rank}.pt")


class Raised:
    """An exception of another process."""

    def __init__(self, kind, message):
        self.kind, self.message = kind, message

    def __repr__(self):
        return f"{self.kind}: {self.message}"


def of(ranks, name):
    """What a job returned in both processes; fails where it raised in one."""
    found = [rank[name] for rank in ranks]
    failed = [value for value in found if isinstance(value, Raised)]
    assert not failed, failed
    return found
