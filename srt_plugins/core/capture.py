"""Reading and replacing what intermediate blocks return, with forward hooks.

Views stop at the last block that is asked for; the continued pass skips the blocks whose results
are known and runs only what comes after them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, Callable

from torch import Tensor, nn

from ..errors import CaptureError
from .patch import overridden


@dataclass(frozen=True)
class Block:
    """What a block returned: its tokens, in the tuple that they came in, or a list of their own."""

    tokens: Any
    rest: tuple | None = None
    listed: bool = False

    def but(self, tokens: Any) -> Any:
        """The same with other tokens; a skipped block of lists hands on the list it is given."""
        if self.listed:
            return tokens if isinstance(tokens, list) else [tokens]
        return tokens if self.rest is None else (tokens, *self.rest)


class _Stop(Exception):
    """Leaves a forward once everything that is wanted has been captured."""


def capture(
    root: nn.Module,
    paths: Sequence[str],
    run: Callable[[], Any],
    passed: Sequence[str] = (),
    attentions: bool = False,
) -> dict[str, Block]:
    """Run ``run`` until the last of ``paths`` has returned, and give what each of them returned.

    Args:
        root: module that the paths start from.
        paths: module paths in the order in which they run; the forward stops after the last.
        run: calls the forward that passes through them.
        passed: paths before the last whose tokens are not kept, only what comes with them.
        attentions: tensors behind the tokens are attention maps that outputs only collect; they
            are not kept.

    Raises:
        CaptureError: a block did not run, as under a compiled forward that ignores hooks, or
            returned more tensors than its tokens.
    """
    found: dict[str, Block] = {}
    stop = _Stop()

    def keep(path: str) -> Callable[..., None]:
        def hook(_module: nn.Module, _args: Any, output: Any) -> None:
            # DINOv3's blocks take and give a list of batches, one per image size.
            listed = isinstance(output, list) and len(output) == 1
            several = listed or (isinstance(output, tuple) and output)
            tokens, *rest = output if several else (output,)
            if attentions:
                rest = [None if isinstance(part, Tensor) else part for part in rest]
            if not isinstance(tokens, Tensor) or _holds_tensor(rest):
                raise CaptureError(
                    f"Expected block {path!r} to return tokens and no other tensor, got "
                    f"{_listed(output)}; ask the model for no attention maps, or choose another "
                    "layer."
                )
            kept = None if path in passed else tokens
            found[path] = Block(kept, tuple(rest) if isinstance(output, tuple) else None, listed)
            if path == paths[-1]:
                raise stop

        return hook

    with ExitStack() as stack:
        for path in (*passed, *paths):
            module = _block(root, path)
            stack.enter_context(_uncompiled(module))
            # Before other hooks: some libraries collect hidden states in hooks of their own.
            handle = module.register_forward_hook(keep(path), prepend=True)
            stack.callback(handle.remove)
        try:
            run()
        except _Stop as reached:
            if reached is not stop:
                raise
    missing = [p for p in paths if p not in found]
    if missing:
        raise CaptureError(
            f"Expected the forward to pass through {missing}, but it did not: either the model "
            "never calls these blocks, or it was compiled as a whole and ignores hooks. Compile "
            "after wrapping, or choose another layer."
        )
    return found


def _block(root: nn.Module, path: str) -> nn.Module:
    try:
        return root.get_submodule(path)
    except AttributeError as error:
        raise CaptureError(
            f"Expected {type(root).__name__} to hold the block {path!r} that it had when it was "
            "wrapped, but it is gone; detach the model, and wrap it again as it is now."
        ) from error


def _holds_tensor(value: Any) -> bool:
    if isinstance(value, (tuple, list)):
        return any(_holds_tensor(part) for part in value)
    return isinstance(value, Tensor)


def _listed(output: Any) -> str:
    parts = output if isinstance(output, (tuple, list)) else (output,)
    return f"{type(output).__name__} of {[type(part).__name__ for part in parts]}"


@contextmanager
def replaced(
    root: nn.Module,
    values: Mapping[str, Any],
    skipped: Mapping[str, Callable[[Any], Any]] | None = None,
) -> Iterator[None]:
    """While active, the blocks in ``values`` return those without being computed, and the blocks
    in ``skipped`` return their first argument, put through the function given.

    ``skipped`` must come before a block in ``values``, so that what they pass on is never used.
    """
    with ExitStack() as stack:
        for path, made in (skipped or {}).items():
            stack.enter_context(
                _forward(root.get_submodule(path), lambda x, *_, _made=made, **__: _made(x))
            )
        for path, value in values.items():
            module = root.get_submodule(path)
            stack.enter_context(_forward(module, lambda *_, _value=value, **__: _value))
        yield


@contextmanager
def _forward(module: nn.Module, forward: Callable[..., Any]) -> Iterator[None]:
    """Set ``module.forward`` on the instance, and put back what was there."""
    with overridden(module, "forward", forward), _uncompiled(module):
        yield


def _uncompiled(module: nn.Module) -> AbstractContextManager[None]:
    """Run a block eagerly: the code of ``module.compile()`` ignores hooks added after it ran."""
    return overridden(module, "_compiled_call_impl", None)
