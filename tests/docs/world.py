"""A world of one process, as torchrun's environment has it."""

from __future__ import annotations

import os
import socket

import torch


def of_one_process() -> None:
    """Set the environment up, and end the group that a block before has made."""
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    rank = dict(RANK="0", LOCAL_RANK="0", WORLD_SIZE="1")
    os.environ.update(rank, MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
