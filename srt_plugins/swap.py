"""The class swap behind SRT: one module's class becomes a subclass of its own class, so parameter
names, state-dict keys, attributes and ``isinstance`` stay what they were.
"""

from __future__ import annotations

import dataclasses
import functools
import threading
import types
from typing import Any, cast

import torch
from torch import nn

from . import forward as _forward
from .errors import CheckpointError, ConfigError
from .state import State


class SRTModule:
    """Mixin of every wrapped backbone.

    Modifications: ``forward``, or the methods that the adapter names, ensemble over views in eval
    mode and pass straight through in training mode; pickling and deep copies keep the wrapping;
    loading a checkpoint that matches nothing into a backbone built from a config raises.
    """

    # None on instances that the wrapped class made of itself (slices, custom copies): plain. No
    # annotation: transformers evaluates those of its models, and Python 3.9 cannot this one.
    _srt = cast("State | None", None)
    training: bool

    def _get_name(self) -> str:
        return f"SRT{type(self).__name__}"  # as printed; the class keeps its name

    def __reduce_ex__(self, protocol: Any) -> Any:
        make, args, *rest = cast(Any, super().__reduce_ex__(max(2, int(protocol))))
        if make.__name__ == "__newobj__":  # copyreg's: the class is its first argument
            args = (plain_class(type(self)), *args[1:])
        if rest and isinstance(rest[0], dict):
            rest[0] = {key: value for key, value in rest[0].items() if key != "_srt"}
        return (_rebuild, (make, args, self._srt), *rest)

    def _load_from_state_dict(self, state_dict: dict, prefix: str, *args: Any, **kw: Any) -> None:
        state = self._srt
        if state is not None and state.needs_weights:
            own = [prefix + key for key in cast(nn.Module, self).state_dict()]
            if not any(key in state_dict for key in own):
                given = ", ".join(repr(k) for k in list(state_dict)[:3]) or "none under that prefix"
                raise CheckpointError(
                    f"Expected the checkpoint to hold weights of {type(self).__name__}, such as "
                    f"{own[0]!r}; its keys here are {given}. SRT would ensemble random weights: "
                    "check the prefix of the keys, or build the model without SRT."
                )
            state.needs_weights = False
        super()._load_from_state_dict(state_dict, prefix, *args, **kw)  # type: ignore[misc]


# Modules whose views are running, of each thread: what they call of themselves is plain.
_running = threading.local()


@torch.compiler.disable
def _ensembled(module: nn.Module, plain: Any, args: tuple, kwargs: dict) -> Any:
    # Outside of compiled graphs: the engine is a loop over views, and hooks must be seen.
    if getattr(torch.compiler, "is_compiling", bool)():  # torch.export does not stop before this
        raise ConfigError(
            f"Expected {type(module).__name__} without SRT for torch.export, got it with SRT; "
            "export it in `with srt_enabled(model, enabled=False)`, or detach it first."
        )
    running = vars(_running).setdefault("modules", set())
    if id(module) in running:
        return plain(*args, **kwargs)
    running.add(id(module))
    try:
        return _forward.run(module, module._srt, plain, args, kwargs)  # type: ignore[arg-type]
    finally:
        running.discard(id(module))


@functools.cache
def srt_class(cls: Any, entries: tuple[str, ...] = ("forward",)) -> type:
    """The subclass of ``cls`` whose ``entries``, methods that take images, ensemble."""

    def ensembling(name: str) -> Any:
        method = getattr(cls, name)

        @functools.wraps(method)
        def call(self: Any, *args: Any, **kwargs: Any) -> Any:
            plain = functools.partial(method, self)
            if self.training or self._srt is None or not self._srt.enabled:
                return plain(*args, **kwargs)
            return _ensembled(self, plain, args, kwargs)

        return call

    # Under its own name: transformers looks up what a class can return, and writes into configs
    # how to build it, by name.
    names = ("__module__", "__qualname__", "__doc__")
    body = {**{n: ensembling(n) for n in entries}, **{n: getattr(cls, n) for n in names}}
    return type(cls.__name__, (SRTModule, cls), body)


def bound_forward(module: nn.Module) -> functools.partial | None:
    """A ``forward`` set on the instance that calls another of its own methods with arguments, as
    DINOv2's depth models do; None where there is none.
    """
    forward = module.__dict__.get("forward")
    if isinstance(forward, functools.partial) and isinstance(forward.func, types.MethodType):
        return forward if forward.func.__self__ is module else None
    return None


def swap(module: nn.Module, cls: Any) -> None:
    """Make ``module`` an instance of ``cls``, its bound methods too."""
    module.__class__ = cls
    forward = bound_forward(module)
    if forward is not None:
        method = getattr(module, forward.func.__name__)
        module.__dict__["forward"] = functools.partial(method, *forward.args, **forward.keywords)


def plain_class(cls: type) -> type:
    """The class that a wrapped instance had before."""
    return cls.__mro__[cls.__mro__.index(SRTModule) + 1]


def _rebuild(make: Any, args: tuple, state: State | None) -> Any:
    """Make the plain instance as its own class does it, and wrap it."""
    made = make(*args)
    if not isinstance(made, SRTModule):
        entries = state.adapter.entries if state else ("forward",)
        made.__class__ = srt_class(cast(Any, type(made)), entries)
    # A copy of the state, so that a shallow copy of the module has settings of its own.
    made.__dict__["_srt"] = state and dataclasses.replace(state, warned=set(state.warned))
    return made
