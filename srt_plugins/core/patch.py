"""Overriding an attribute of one object for a while."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def overridden(target: Any, name: str, value: Any) -> Iterator[None]:
    """Set ``target.name`` on the instance, and put back what was there, also after an error."""
    own = vars(target)
    had, before = name in own, own.get(name)
    own[name] = value
    try:
        yield
    finally:
        if had:
            own[name] = before
        else:
            del own[name]
