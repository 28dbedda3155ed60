"""Nested outputs (tensors in tuples, lists, dicts) as flat lists and back; sizes in configs, and
what a forward is made of.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from typing import Any, Callable, Union

from torch import Tensor, nn

from srt_plugins.errors import AdapterError

Path = tuple[Union[int, str], ...]


def tensors(output: Any) -> list[tuple[Path, Tensor]]:
    """Every tensor of a nested output with its path, in order."""
    return list(_walk(output, ()))


def _walk(output: Any, path: Path) -> Iterator[tuple[Path, Tensor]]:
    if isinstance(output, Tensor):
        yield path, output
    elif isinstance(output, Mapping):
        for key, value in output.items():
            yield from _walk(value, (*path, key))
    elif isinstance(output, (tuple, list)):
        for i, value in enumerate(output):
            yield from _walk(value, (*path, i))
    elif any(isinstance(value, Tensor) for value in getattr(output, "__dict__", {}).values()):
        raise AdapterError(
            f"Expected tensors in tuples, lists and dicts, got a {type(output).__name__} that "
            "holds tensors of its own; wrap a module that returns them plainly."
        )


def replace(output: Any, new: Callable[[Path, Tensor], Tensor], path: Path = ()) -> Any:
    """The same structure, types included, with every tensor as ``new(path, tensor)``."""
    if isinstance(output, Tensor):
        return new(path, output)
    if isinstance(output, Mapping):
        made: Any = copy.copy(output)
        for key, value in output.items():
            made[key] = replace(value, new, (*path, key))
        return made
    if isinstance(output, (tuple, list)):
        values = [replace(v, new, (*path, i)) for i, v in enumerate(output)]
        return type(output)(*values) if hasattr(output, "_fields") else type(output)(values)
    return output


def summary(output: Any) -> str:
    """One line on what an output holds, for error messages."""
    found = tensors(output)
    if not found:
        return f"{type(output).__name__} without tensors"
    return "; ".join(
        f"{'output' + ''.join(f'[{p!r}]' for p in path)}: {tuple(t.shape)} {t.dtype}"
        for path, t in found
    )


def forward_of(module: nn.Module) -> tuple[type, tuple[str, ...]]:
    """The class whose ``forward`` a module has, and the names that its code mentions."""
    definer = next(cls for cls in type(module).__mro__ if "forward" in vars(cls))
    code = getattr(vars(definer)["forward"], "__code__", None)
    return definer, () if code is None else code.co_names


def side(value: Any) -> int:
    """The side of a square, given by one number or by two.

    Raises:
        TypeError: two different numbers.
    """
    first, *others = value if isinstance(value, (tuple, list)) else (value,)
    if any(other != first for other in others):
        raise TypeError(f"Expected a square, got {value}.")
    return int(first)
