"""Turning SRT on for a live module, by a class swap.

The instance's class becomes a subclass of its own class, so parameter names, state-dict keys,
attributes and ``isinstance`` stay what they were, and undoing it puts the class back.
"""

from __future__ import annotations

import dataclasses
import functools
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TypeVar, cast

import torch
from torch import Tensor, nn

from . import forward as _forward
from .adapters import describe, find_backbone, find_target
from .errors import CheckpointError, ConfigError
from .settings import Settings
from .state import State, check

Module = TypeVar("Module", bound=nn.Module)

_CONTAINERS = (
    nn.DataParallel,
    nn.parallel.DistributedDataParallel,
    torch.jit.ScriptModule,
    # Copies and recompiles itself through classes of its own.
    torch.fx.GraphModule,
)


class SRTModule:
    """Mixin of every wrapped backbone.

    Modifications: ``forward`` ensembles over views in eval mode and passes straight through in
    training mode; pickling and deep copies keep the wrapping; loading a checkpoint that matches
    nothing into a backbone built from a config raises.
    """

    # None on instances that the wrapped class made of itself (slices, custom copies): plain.
    _srt: State | None = None
    training: bool

    def __reduce_ex__(self, protocol: Any) -> Any:
        make, args, *rest = cast(Any, super().__reduce_ex__(max(2, int(protocol))))
        if make.__name__ == "__newobj__":  # copyreg's: the class is its first argument
            args = (_plain_class(type(self)), *args[1:])
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


@torch.compiler.disable
def _ensembled(module: nn.Module, plain: Any, args: tuple, kwargs: dict) -> Any:
    # Outside of compiled graphs: the engine is a loop over views, and hooks must be seen.
    return _forward.run(module, module._srt, plain, args, kwargs)  # type: ignore[arg-type]


@functools.cache
def _srt_class(cls: Any) -> type:
    """The subclass of ``cls`` whose ``forward`` ensembles."""

    @functools.wraps(cls.forward)
    def forward(self: Any, *args: Any, **kwargs: Any) -> Any:
        plain = functools.partial(cls.forward, self)
        if self.training or self._srt is None or not self._srt.enabled:
            return plain(*args, **kwargs)
        return _ensembled(self, plain, args, kwargs)

    body = {"forward": forward, "__module__": __name__, "__doc__": cls.__doc__}
    return type(f"SRT{cls.__name__}", (SRTModule, cls), body)


def _plain_class(cls: type) -> type:
    return cls.__mro__[cls.__mro__.index(SRTModule) + 1]


def _rebuild(make: Any, args: tuple, state: State | None) -> Any:
    """Make the plain instance as its own class does it, and wrap it."""
    made = make(*args)
    if not isinstance(made, SRTModule):
        made.__class__ = _srt_class(cast(Any, type(made)))
    # A copy of the state, so that a shallow copy of the module has settings of its own.
    made.__dict__["_srt"] = state and dataclasses.replace(state, warned=set(state.warned))
    return made


def SRTWrapper(backbone: Module, **keywords: Any) -> Module:
    """Ensemble a frozen backbone over translated views in eval mode (Lao et al., ICML 2024).

    ``SRTWrapper(backbone)`` alone uses four views, the half-patch phases; ``level=L`` alone is the
    paper's full grid of ``(2 * L + 1) ** 2`` views.

    Args:
        backbone: any module that maps images ``(B, C, H, W)`` to feature maps.
        **keywords: see :class:`srt_plugins.Settings`.

    Returns:
        The same module, now of a subclass of its class. Wrapping it again changes the settings.

    Raises:
        ConfigError: an unknown keyword or a bad value; the module is then untouched.
    """
    settings = Settings.of(**keywords)
    if not isinstance(backbone, nn.Module):
        raise ConfigError(f"Expected backbone to be a torch module, got {type(backbone).__name__}.")
    if isinstance(backbone, _CONTAINERS) or "_orig_mod" in backbone._modules:
        raise ConfigError(
            f"Expected a plain backbone module, got {type(backbone).__name__}. Wrap the backbone "
            "first, then compile or distribute the model; put a traced graph into a module whose "
            "forward calls it, and wrap that."
        )
    if "forward" in backbone.__dict__:
        raise ConfigError(
            f"Expected {type(backbone).__name__}.forward to be its class's own, but this instance "
            "carries a patched forward that would hide SRT; remove the patch first."
        )
    if isinstance(backbone, SRTModule) and backbone._srt is not None:
        check(settings, backbone._srt.adapter)
        backbone._srt.settings = settings
        return backbone
    inside = [name for name, m in backbone.named_modules() if m in wrapped(backbone)]
    if inside:
        raise ConfigError(
            f"Expected a backbone without wrapped parts, got {type(backbone).__name__} with SRT on "
            f"{inside}: it would run views of views. Detach those first."
        )
    adapter = describe(backbone)
    check(settings, adapter)
    state = State(settings, adapter)
    backbone.__class__ = _srt_class(cast(Any, type(backbone)))
    backbone.__dict__["_srt"] = state
    _forget_compiled()
    return backbone


def attach(model: Module, target: str | None = None, **keywords: Any) -> Module:
    """Find the backbone inside a model and wrap it in place; returns the model.

    Args:
        model: a whole model, also inside DDP, EMA or test-time-augmentation containers.
        target: part of the backbone to ensemble instead of the whole, as a module path below it
            (``"net"`` of a ViTDet pyramid, ``"bottom_up"`` of an FPN).
        **keywords: see :class:`srt_plugins.Settings`.

    Raises:
        AdapterError: no backbone found. ConfigError: a bad keyword, or a target that the backbone
            lacks. The model is then untouched.
    """
    chosen = find_target(find_backbone(model), target)
    if any(m is not chosen for m in wrapped(model)):
        raise ConfigError(
            f"Expected SRT on one part of a model, got target={target!r} for one that has it on "
            f"{[n for n, m in model.named_modules() if m in wrapped(model)]}; detach the model "
            "first."
        )
    SRTWrapper(chosen, **keywords)
    return model


def detach(model: Module) -> Module:
    """Unwrap every wrapped backbone in a model, in place; returns the model.

    Raises:
        ConfigError: something changed a backbone's class after it was wrapped; nothing is undone.
    """
    found = wrapped(model)
    for module in found:
        if type(module) is not _srt_class(cast(Any, _plain_class(type(module)))):
            raise ConfigError(
                f"Expected the class that wrapping gave, got {type(module).__name__}: something "
                "(a parametrization, FSDP) changed the class of the wrapped backbone afterwards; "
                "undo that first."
            )
    for module in found:
        module.__class__ = _plain_class(type(module))
        del module.__dict__["_srt"]
        _forget_compiled()
    return model


@contextmanager
def srt_enabled(model: Module, enabled: bool = True, **keywords: Any) -> Iterator[Module]:
    """SRT only here: with the given settings, or off with ``enabled=False``.

    Keywords replace those of an already wrapped model; on an unwrapped one they are those of
    :func:`attach`. What was there before is restored, also after an error.
    """
    before = [(m, m._srt.settings, m._srt.enabled) for m in wrapped(model)]
    if not before and enabled:
        attach(model, **keywords)
        try:
            yield model
        finally:
            detach(model)
        return
    Settings.of(**keywords)
    changed = [settings.but(**keywords) for _, settings, _ in before]
    for (module, _, _), settings in zip(before, changed):
        check(settings, module._srt.adapter)
    try:
        for (module, _, _), settings in zip(before, changed):
            module._srt.settings, module._srt.enabled = settings, enabled
        yield model
    finally:
        for module, settings, was in before:
            if isinstance(module, SRTModule) and module._srt is not None:
                module._srt.settings, module._srt.enabled = settings, was


def wrapped(model: nn.Module) -> list[Any]:
    """Every wrapped backbone in a model."""
    return [m for m in model.modules() if isinstance(m, SRTModule) and m._srt is not None]


def dispersion(model: nn.Module) -> tuple[Tensor, ...]:
    """How much the views of the last forward disagree (needs ``dispersion=True``).

    Returns:
        One ``(B, 1, h, w)`` map per ensembled grid, coarse where the grid is: the root mean square
        over channels of the standard deviation over views.

    Raises:
        ConfigError: the model is not wrapped, or dispersion was not asked for or not yet computed.
    """
    found = [m for m in wrapped(model) if m._srt.dispersion]
    if not found:
        raise ConfigError(
            "Expected a model wrapped with dispersion=True that has run in eval mode; attach with "
            "dispersion=True and run a forward first."
        )
    return found[0]._srt.dispersion


def _forget_compiled() -> None:
    """Drop compiled code that was traced through the other class."""
    if "torch._dynamo" in sys.modules:
        torch.compiler.reset()
