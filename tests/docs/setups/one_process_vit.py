"""What ``vit`` binds; a world of one process."""

from __future__ import annotations

from tests.docs import world
from tests.docs.setups import vit


def setup(names: dict) -> None:
    """Set and bind them."""
    world.of_one_process()
    vit.setup(names)
