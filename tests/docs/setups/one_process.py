"""``cfg``: the tiny segmentor; torchrun's environment for a world of one process."""

from __future__ import annotations

import os
import socket
from pathlib import Path

from mmengine.config import Config


def setup(names: dict) -> None:
    """Bind and set them."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    rank = dict(RANK="0", LOCAL_RANK="0", WORLD_SIZE="1")
    os.environ.update(rank, MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    names["cfg"] = Config.fromfile(Path(__file__).parents[1] / "bases" / "tiny.py")
    names["cfg"].work_dir = "work"
