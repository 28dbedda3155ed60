"""Two processes that run a module of this folder, in a folder of their own."""

from __future__ import annotations

import pytest

from tests.distributed.pair import start


@pytest.fixture(scope="session")
def two_processes(tmp_path_factory):
    """``run(module)`` gives what each of the two saved.

    They meet in a file, or, with ``torchrun``, at a free port that torchrun finds; with ``one``
    the module starts the two itself.
    """

    def run(module, how="file"):
        folder = tmp_path_factory.mktemp(module.rpartition(".")[2])
        if how == "file":
            commands = [["-m", module, str(folder), str(rank)] for rank in (0, 1)]
        else:
            launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
            commands = [[*(launcher if how == "torchrun" else []), "-m", module, str(folder)]]
        return start(commands, folder)

    return run
