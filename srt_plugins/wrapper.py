"""Turning SRT on and off for live modules."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TypeVar, cast

import torch
from torch import Tensor, nn

from .adapters import describe, find_backbone, find_target
from .errors import ConfigError
from .settings import Settings
from .state import State, check
from .swap import SRTModule, plain_class, srt_class

Module = TypeVar("Module", bound=nn.Module)

_CONTAINERS = (
    nn.DataParallel,
    nn.parallel.DistributedDataParallel,
    torch.jit.ScriptModule,
    # Copies and recompiles itself through classes of its own.
    torch.fx.GraphModule,
)


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
    inside = _wrapped_parts(backbone)
    if inside:
        raise ConfigError(
            f"Expected a backbone without wrapped parts, got {type(backbone).__name__} with SRT on "
            f"{list(inside)}: it would run views of views. Detach those first, or keep SRT on one "
            "node of a config."
        )
    adapter = describe(backbone)
    check(settings, adapter)
    state = State(settings, adapter)
    backbone.__class__ = srt_class(cast(Any, type(backbone)))
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
    if not isinstance(model, nn.Module):
        raise ConfigError(
            f"Expected model to be a torch module, got {type(model).__name__}; of a predictor or a "
            "pipeline, give its .model."
        )
    chosen = find_target(find_backbone(model), target)
    _check_stride(model, Settings.of(**keywords))
    parts = _wrapped_parts(model)
    if any(part is not chosen for part in parts.values()):
        raise ConfigError(
            f"Expected SRT on one part of a model, got target={target!r} for one that has it on "
            f"{list(parts)}; detach the model first."
        )
    SRTWrapper(chosen, **keywords)
    return model


def _check_stride(model: nn.Module, settings: Settings) -> None:
    backbone = find_backbone(model) if settings.stride is not None else model
    if backbone is not model and describe(backbone).declares:
        raise ConfigError(
            f"Expected stride=None, got {settings.stride}: the heads of {type(model).__name__} "
            f"were built for the strides that {type(backbone).__name__} declares and would read "
            "finer maps at the wrong places. Wrap the backbone alone to read finer maps yourself."
        )


def detach(model: Module) -> Module:
    """Unwrap every wrapped backbone in a model, in place; returns the model.

    Raises:
        ConfigError: something changed a backbone's class after it was wrapped; nothing is undone.
    """
    found = wrapped(model)
    for module in found:
        if type(module) is not srt_class(cast(Any, plain_class(type(module)))):
            raise ConfigError(
                f"Expected the class that wrapping gave, got {type(module).__name__}: something "
                "(a parametrization, FSDP) changed the class of the wrapped backbone afterwards; "
                "undo that first."
            )
    for module in found:
        module.__class__ = plain_class(type(module))
        del module.__dict__["_srt"]
        _forget_compiled()
    return model


@contextmanager
def srt_enabled(
    model: Module, enabled: bool = True, target: str | None = None, **keywords: Any
) -> Iterator[Module]:
    """SRT only here: with the given settings, or off with ``enabled=False``.

    Keywords replace those of an already wrapped model; on an unwrapped one they are those of
    :func:`attach`. What was there before is restored, also after an error.

    Raises:
        ConfigError: a bad keyword, or a target other than the part that is wrapped already.
    """
    before = [(m, m._srt.settings, m._srt.enabled) for m in wrapped(model)]
    if not before and enabled:
        attach(model, target, **keywords)
        try:
            yield model
        finally:
            detach(model)
        return
    _check_stride(model, Settings.of(**keywords))
    if target is not None and find_target(find_backbone(model), target) not in wrapped(model):
        raise ConfigError(
            f"Expected target to be the part that is wrapped already, got {target!r}; detach the "
            "model to wrap another."
        )
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
    return list(_wrapped_parts(model).values())


def _wrapped_parts(model: nn.Module) -> dict[str, Any]:
    """Every wrapped backbone in a model by its path."""
    every = model.named_modules()
    return {n: m for n, m in every if isinstance(m, SRTModule) and m._srt is not None}


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
