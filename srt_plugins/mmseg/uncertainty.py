"""Dispersion over views in MMSegmentation's data samples: ``SegDataSample.srt_dispersion``."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from typing import Any, TypeVar

from mmseg.models.segmentors import DepthEstimator
from mmseg.models.segmentors.base import BaseSegmentor
from torch import nn

from ..core.patch import overridden
from ..errors import ConfigError
from ..state import check
from ..uncertainty import dispersing, follow
from ..wrapper import attach, wrapped
from .sample_maps import METHODS, Prediction

Model = TypeVar("Model")

# Forwards that are under way, beside the segmentors, which are copied and pickled.
_LOCKS: weakref.WeakKeyDictionary[nn.Module, threading.RLock] = weakref.WeakKeyDictionary()
_UNDER_WAY: weakref.WeakKeyDictionary[nn.Module, tuple[int, ExitStack]]
_UNDER_WAY = weakref.WeakKeyDictionary()


def with_dispersion(model: Model, depth_std: bool = False, **keywords: Any) -> Model:
    """Ensemble a model's backbone with ``dispersion=True``, and hand the dispersion to its samples.

    Every data sample that the model predicts, also in ``inference_model``, ``MMSegInferencer`` and
    a Runner, then has ``srt_dispersion``, a ``PixelData`` of ``(1, H, W)`` float32 like
    ``seg_logits``: at the original image's size, mirrored back where the sample was. It is that of
    the feature maps that the decode head reads, of several their geometric mean.
    :func:`srt_plugins.detach` undoes all of it.

    ``SRTHook(dispersion=True)`` and a config whose ``SRTWrapper`` has ``dispersion=True`` do the
    same by themselves.

    Args:
        model: a segmentor or depth estimator, also inside DDP and TTA containers.
        depth_std: also ``srt_depth_std``, the standard deviation over views of predicted depth, in
            metres; runs the whole depth estimator once more per view.
        **keywords: see :class:`srt_plugins.Settings`.

    Returns:
        What it was given.

    Raises:
        ConfigError: a bad keyword, no segmentor, or ``depth_std`` of one that predicts no depth.
    """
    segmentor = find_segmentor(model)
    _check(segmentor, depth_std)
    part = next(iter(wrapped(model)), None)
    if part is None:
        attach(model, **{**keywords, "dispersion": True})
    else:
        settings = part._srt.settings.but(**{**keywords, "dispersion": True})
        check(settings, part._srt.adapter)
        part._srt.settings = settings
    put_on(segmentor, depth_std)
    return model


def find_segmentor(model: Any) -> nn.Module:
    """The segmentor in a model, its containers or an inferencer.

    Raises:
        ConfigError: there is none.
    """
    module = model if isinstance(model, nn.Module) else getattr(model, "model", None)
    if isinstance(module, nn.Module):
        for part in module.modules():
            if isinstance(part, BaseSegmentor):
                return part
    raise ConfigError(
        f"Expected a segmentor or depth estimator of MMSegmentation, got {type(model).__name__}."
    )


def put_on(
    segmentor: nn.Module, depth_std: bool = False, child: nn.Module | None = None
) -> SampleMaps:
    """Hooks that hand the dispersion of a wrapped backbone to data samples; see
    :func:`with_dispersion`. They go when SRT goes.

    Args:
        segmentor: or depth estimator.
        depth_std: as in :func:`with_dispersion`.
        child: what holds the wrapped part, where the segmentor does not have it yet.
    """
    _check(segmentor, depth_std)
    _take_off(segmentor)
    maps = SampleMaps(
        segmentor,
        [
            segmentor.register_forward_pre_hook(_Begin(depth_std), with_kwargs=True),
            segmentor.register_forward_hook(_End(), always_call=True),
        ],
    )
    for part in wrapped(segmentor if child is None else child):
        # Unwrapping a backbone drops its state.
        weakref.finalize(part._srt, maps.remove).atexit = False
    return maps


@contextmanager
def dispersion_in_samples(model: Any, depth_std: bool = False) -> Iterator[None]:
    """While active, :func:`put_on` is in effect on the segmentor in a model."""
    segmentor = find_segmentor(model)
    _check(segmentor, depth_std)
    own = next((h for h in segmentor._forward_pre_hooks.values() if isinstance(h, _Begin)), None)
    if own is not None:  # of a config, whose backbone is wrapped
        with overridden(own, "depth_std", depth_std or own.depth_std):
            yield
        return
    maps = put_on(segmentor, depth_std)
    try:
        yield
    finally:
        maps.remove()


def follow_into_segmentor(backbone: nn.Module) -> None:
    """Put the hooks on the segmentor that a wrapped backbone is built into."""
    follow(
        backbone,
        lambda module, _: isinstance(module, BaseSegmentor),
        lambda segmentor, child: put_on(segmentor, child=child),
    )


class SampleMaps:
    """What :func:`put_on` did to a segmentor; ``remove()`` undoes it."""

    def __init__(self, segmentor: nn.Module, handles: list[Any]) -> None:
        self._segmentor = weakref.ref(segmentor)
        self._handles = handles

    def remove(self) -> None:
        """Undo it."""
        while self._handles:
            self._handles.pop().remove()
        segmentor = self._segmentor()
        if segmentor is not None:
            _close(segmentor)


def _close(segmentor: nn.Module) -> None:
    """End the prediction that is under way."""
    _, stack = _UNDER_WAY.pop(segmentor, (None, None))
    if stack is not None:
        with suppress(RuntimeError):  # the lock of another thread
            stack.close()


def _check(segmentor: nn.Module, depth_std: bool) -> None:
    missing = [name for name in METHODS if not callable(getattr(segmentor, name, None))]
    if missing:
        raise ConfigError(
            f"Expected a segmentor with {', '.join(METHODS)}, got {type(segmentor).__name__} "
            f"without {missing[0]}; srt_plugins.dispersion(model) gives the maps of its features."
        )
    if depth_std and not isinstance(segmentor, DepthEstimator):
        raise ConfigError(
            f"Expected a DepthEstimator with depth_std=True, got {type(segmentor).__name__}; "
            "srt_dispersion is there for every segmentor."
        )


def _take_off(segmentor: nn.Module) -> None:
    for hooks, flags in (
        (segmentor._forward_pre_hooks, (segmentor._forward_pre_hooks_with_kwargs,)),
        (
            segmentor._forward_hooks,
            (segmentor._forward_hooks_with_kwargs, segmentor._forward_hooks_always_called),
        ),
    ):
        for key in [key for key, hook in hooks.items() if isinstance(hook, (_Begin, _End))]:
            for kept in (hooks, *flags):
                kept.pop(key, None)


@dataclass
class _Begin:
    """Pre-hook of a segmentor; holds no reference to it, so that it is copied with it."""

    depth_std: bool = False

    def __call__(self, segmentor: nn.Module, args: tuple, kwargs: dict) -> None:
        if not wrapped(segmentor):
            _take_off(segmentor)  # the backbone was unwrapped by itself
            return
        mode = kwargs.get("mode", args[2] if len(args) > 2 else "tensor")
        part = dispersing(segmentor) if mode == "predict" and not segmentor.training else None
        if part is None:
            return
        lock = _LOCKS.setdefault(segmentor, threading.RLock())
        lock.acquire()
        _close(segmentor)  # of a forward that Ctrl-C ended
        stack = ExitStack()
        _UNDER_WAY[segmentor] = threading.get_ident(), stack
        stack.callback(lock.release)
        stack.enter_context(Prediction(segmentor, part, self.depth_std).active())


class _End:
    """Hook of a segmentor, which also runs where its forward failed."""

    def __call__(self, segmentor: nn.Module, *_: Any) -> None:
        thread, _stack = _UNDER_WAY.get(segmentor, (None, None))
        if thread == threading.get_ident():
            _close(segmentor)
