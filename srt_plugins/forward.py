"""One ensembled forward of a backbone: views, engine and adapter put together."""

from __future__ import annotations

import threading
import warnings
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from .adapters.probe import probed
from .calls import ImageCall, Plain, asked_value, image_call
from .errors import ConfigError
from .passes import at_layer, at_outputs
from .state import State, check

# Beside the state, which is copied and pickled with the module.
_LOCKS: WeakKeyDictionary[nn.Module, threading.RLock] = WeakKeyDictionary()


def run(module: nn.Module, state: State, plain: Plain, args: tuple, kwargs: dict) -> Any:
    """The ensembled forward of ``module``: same outputs, structure and dtypes as ``plain``."""
    if state.settings.is_plain:
        state.ran((1,) * _batch(args, kwargs))
        return plain(*args, **kwargs)
    by = state.adapter.named_by
    if by and asked_value(module, kwargs, by) is False:
        return run(module, state, plain, args, {**kwargs, by: True}).to_tuple()
    call = image_call(module, plain, args, kwargs)
    _check_parts(module)
    state.dispersion = ()
    if state.adapter.patch is None and state.adapter.by_size is None:
        state.adapter = probed(state.adapter, call.run, call.images[:1])
        check(state.settings, state.adapter)
    views = state.views()
    how = state.settings.aggregation()
    if views.is_identity and not how.smooths and state.settings.stride is None:
        state.ran((1,) * len(call.images))
        return plain(*args, **kwargs)
    _check_images(call, state)
    if len(views) > 1:
        _warn_gradients(module, call.images, state, len(views))
    if state.settings.layer is not None:
        # Blocks are patched for the time being, which other threads must not see.
        with _LOCKS.setdefault(module, threading.RLock()):
            return at_layer(module, state, call, views)
    return at_outputs(state, call, views)


def _batch(args: tuple, kwargs: dict) -> int:
    """How many images a call has that is not looked at any closer."""
    every = (*args, *kwargs.values())
    return next((len(v) for v in every if isinstance(v, Tensor) and v.ndim == 4), 0)


def _check_parts(module: nn.Module) -> None:
    """Parts can be wrapped after the whole was, which only shows here."""
    for name, part in module.named_modules():
        inner = vars(part).get("_srt")
        if part is not module and inner is not None and inner.enabled:
            raise ConfigError(
                f"Expected SRT on {type(module).__name__} or on its part {name!r}, got both, which "
                "would run views of views; detach one of them."
            )


def _check_images(call: ImageCall, state: State) -> None:
    known = state.adapter.by_size.strides if state.adapter.by_size else state.adapter.strides
    finest = min(set(known or (1,)) - {0})
    if min(call.size) < finest:
        raise ConfigError(
            f"Expected images of at least one patch ({finest} pixels), got "
            f"{call.size[0]}x{call.size[1]}; enlarge them, or switch SRT off with level=0."
        )


def _warn_gradients(module: nn.Module, images: Tensor, state: State, count: int) -> None:
    if "gradients" in state.warned or not torch.is_grad_enabled():
        return
    if images.requires_grad or any(p.requires_grad for p in module.parameters()):
        state.warned.add("gradients")
        warnings.warn(
            f"gradients are on, so the activations of all {count} views are kept; wrap the call in "
            "torch.no_grad() unless you need them",
            stacklevel=4,
        )
