"""Turning SRT on and off for live modules."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TypeVar, cast

import torch
from torch import Tensor, nn

from .adapters import describe, find_backbone, find_target
from .errors import AdapterError, ConfigError
from .settings import Settings
from .state import State, check
from .swap import SRTModule, bound_forward, plain_class, srt_class, swap

Module = TypeVar("Module", bound=nn.Module)
Model = TypeVar("Model")

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
    bound = bound_forward(backbone)
    if "forward" in backbone.__dict__ and bound is None:
        raise ConfigError(
            f"Expected {type(backbone).__name__}.forward to be its class's own, but this instance "
            "carries a patched forward that would hide SRT; remove the patch first (that of "
            "accelerate, from device_map: accelerate.hooks.remove_hook_from_module)."
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
    if bound is not None and bound.func.__name__ not in adapter.entries:
        raise ConfigError(
            f"Expected {type(backbone).__name__}.forward to be its class's own or one of "
            f"{list(adapter.entries)}, but this instance calls {bound.func.__name__}, which takes "
            "no images that are known; wrap the module inside it."
        )
    state = State(settings, adapter)
    swap(backbone, srt_class(cast(Any, type(backbone)), adapter.entries))
    backbone.__dict__["_srt"] = state
    _forget_compiled()
    return backbone


def attach(model: Model, target: str | None = None, **keywords: Any) -> Model:
    """Find the backbone inside a model and wrap it in place; returns what it was given.

    Args:
        model: a whole model, also inside DDP, EMA or test-time-augmentation containers, or what
            holds one as ``.model`` (a pipeline of transformers, a predictor of Detectron2).
        target: part of the backbone to ensemble instead of the whole, as a module path below it
            (``"net"`` of a ViTDet pyramid, ``"bottom_up"`` of an FPN); in a model whose backbone
            cannot be found, the path of the backbone itself.
        **keywords: see :class:`srt_plugins.Settings`.

    Raises:
        AdapterError: no backbone found; the model is untouched.
        ConfigError: a bad keyword, or a target that the backbone lacks; the model is untouched.
    """
    module: nn.Module = _module(model)
    chosen = _chosen(module, target)
    _check_stride(module, Settings.of(**keywords))
    parts = _wrapped_parts(module)
    if any(part is not chosen for part in parts.values()):
        raise ConfigError(
            f"Expected SRT on one part of a model, got target={target!r} for one that has it on "
            f"{list(parts)}; detach the model first."
        )
    SRTWrapper(chosen, **keywords)
    return model


def _module(model: Any) -> Any:
    """The torch module of a model, a pipeline or a predictor."""
    inner = model if isinstance(model, nn.Module) else getattr(model, "model", None)
    if isinstance(inner, nn.Module):
        return inner
    raise ConfigError(
        f"Expected model to be a torch module, or to hold one as .model, got "
        f"{type(model).__name__}."
    )


def _chosen(model: nn.Module, target: str | None) -> nn.Module:
    """The backbone, or its part at ``target``; below the model itself where none is found."""
    try:
        backbone = find_backbone(model)
    except AdapterError:
        if target is None:
            raise
        backbone = model
    return find_target(backbone, target)


def _check_stride(model: nn.Module, settings: Settings) -> None:
    if settings.stride is None:
        return
    try:
        backbone = find_backbone(model)
    except AdapterError:
        return  # it is named with target=, and nothing is known of what reads it
    if backbone is not model and describe(backbone).declares:
        raise ConfigError(
            f"Expected stride=None, got {settings.stride}: the heads of {type(model).__name__} "
            f"were built for the strides that {type(backbone).__name__} declares and would read "
            "finer maps at the wrong places. Wrap the backbone alone to read finer maps yourself."
        )


def detach(model: Model) -> Model:
    """Unwrap every wrapped backbone in a model, in place; returns what it was given.

    Raises:
        ConfigError: something changed a backbone's class after it was wrapped; nothing is undone.
    """
    found = wrapped(model)
    for module in found:
        plain = cast(Any, plain_class(type(module)))
        if type(module) is not srt_class(plain, module._srt.adapter.entries):
            raise ConfigError(
                f"Expected the class that wrapping gave, got {type(module).__name__}: something "
                "(a parametrization, FSDP) changed the class of the wrapped backbone afterwards; "
                "undo that first."
            )
    for module in found:
        swap(module, plain_class(type(module)))
        del module.__dict__["_srt"]
        _forget_compiled()
    return model


@contextmanager
def srt_enabled(
    model: Model, enabled: bool = True, target: str | None = None, **keywords: Any
) -> Iterator[Model]:
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
    _check_stride(_module(model), Settings.of(**keywords))
    if target is not None and _chosen(_module(model), target) not in wrapped(model):
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


def wrapped(model: Any) -> list[Any]:
    """Every wrapped backbone in a model."""
    return list(_wrapped_parts(_module(model)).values())


def _wrapped_parts(model: nn.Module) -> dict[str, Any]:
    """Every wrapped backbone in a model by its path."""
    every = model.named_modules()
    return {n: m for n, m in every if isinstance(m, SRTModule) and m._srt is not None}


def dispersion(model: Any) -> tuple[Tensor, ...]:
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


def views_used(model: Any) -> tuple[int, ...]:
    """How many views the last forward in eval mode ran for each image: fewer than there are where
    ``tolerance`` was reached.

    Raises:
        ConfigError: the model is not wrapped, or has not run in eval mode since.
    """
    found = [m for m in wrapped(model) if m._srt.views_used]
    if not found:
        raise ConfigError(
            "Expected a wrapped model that has run in eval mode; attach SRT and run a forward "
            "first."
        )
    return found[0]._srt.views_used


def mean_views_used(model: Any, reset: bool = False) -> float:
    """Views per image over all forwards in eval mode since the model was wrapped, or since the
    last reset; NaN where there were none.

    Args:
        model: a wrapped model.
        reset: count from here on.

    Raises:
        ConfigError: the model is not wrapped.
    """
    found = wrapped(model)
    if not found:
        raise ConfigError("Expected a wrapped model, got one without SRT; attach it first.")
    state: State = next((m._srt for m in found if m._srt.images_run), found[0]._srt)
    mean = state.mean_views_used
    if reset:
        state.images_run = state.views_run = 0
    return mean


def _forget_compiled() -> None:
    """Drop compiled code that was traced through the other class."""
    if "torch._dynamo" in sys.modules:
        torch.compiler.reset()
