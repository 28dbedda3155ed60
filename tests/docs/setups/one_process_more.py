"""Ends the group of the blocks before, and binds what ``vit`` does."""

from __future__ import annotations

import torch

from tests.docs.setups import vit


def setup(names: dict) -> None:
    """End and bind them."""
    torch.distributed.destroy_process_group()
    vit.setup(names)
