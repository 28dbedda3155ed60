"""Dispersion over views in MMSegmentation's data samples: ``SegDataSample.srt_dispersion``.

While a segmentor predicts, what the backbone's views disagree by at each ``encode_decode`` is kept.
``inference`` then runs once more with these maps in place of logits, and so does
``postprocess_result``: windows, flips, padding and resizing are the segmentor's own code, and cost
no forward of the network.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from typing import Any, TypeVar

from mmengine.structures import PixelData
from mmseg.models.segmentors import DepthEstimator, EncoderDecoder
from mmseg.models.segmentors.base import BaseSegmentor
from mmseg.structures import SegDataSample
from torch import Tensor, nn

from ..core.patch import overridden
from ..errors import ConfigError
from ..uncertainty import combined, dispersing, follow, off, output_spread
from ..wrapper import attach, wrapped

Model = TypeVar("Model")

DISPERSION, DEPTH_STD = "srt_dispersion", "srt_depth_std"
_NEEDED = ("inference", "encode_decode", "postprocess_result")

# Forwards that are under way, beside the segmentors, which are copied and pickled.
_LOCKS: weakref.WeakKeyDictionary[nn.Module, threading.RLock] = weakref.WeakKeyDictionary()
_UNDER_WAY: weakref.WeakKeyDictionary[nn.Module, ExitStack] = weakref.WeakKeyDictionary()


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
        part._srt.settings = part._srt.settings.but(**{**keywords, "dispersion": True})
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
    stack = _UNDER_WAY.pop(segmentor, None)
    if stack is not None:
        with suppress(RuntimeError):  # the lock of another thread
            stack.close()


def _check(segmentor: nn.Module, depth_std: bool) -> None:
    missing = [name for name in _NEEDED if not callable(getattr(segmentor, name, None))]
    if missing:
        raise ConfigError(
            f"Expected a segmentor with {', '.join(_NEEDED)}, got {type(segmentor).__name__} "
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
        stack = _UNDER_WAY[segmentor] = ExitStack()
        stack.callback(lock.release)
        stack.enter_context(_Prediction(segmentor, part, self.depth_std).active())


class _End:
    """Hook of a segmentor, which also runs where its forward failed."""

    def __call__(self, segmentor: nn.Module, *_: Any) -> None:
        _close(segmentor)


class _Prediction:
    """One ``predict`` of a segmentor, in which maps take the way of logits."""

    def __init__(self, segmentor: Any, part: Any, depth_std: bool) -> None:
        self.segmentor = segmentor
        self.part = part
        self.depth_std = depth_std
        self.plain = {name: getattr(segmentor, name) for name in _NEEDED}
        self.seen: list[Tensor | None] = []
        self.found: dict[str, Tensor] = {}

    @contextmanager
    def active(self) -> Iterator[None]:
        with ExitStack() as stack:
            for name in _NEEDED:
                stack.enter_context(overridden(self.segmentor, name, getattr(self, name)))
            yield

    def encode_decode(self, inputs: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        logits: Tensor = self.plain["encode_decode"](inputs, *args, **kwargs)
        maps, size = read_maps(self.segmentor, self.part), (logits.shape[-2], logits.shape[-1])
        self.seen.append(combined(maps, size, self.segmentor.align_corners) if maps else None)
        return logits

    def inference(self, inputs: Tensor, batch_img_metas: list, *args: Any, **kwargs: Any) -> Tensor:
        self.seen, self.found = [], {}
        # Slide mode writes each window's size into the metas that it is given.
        metas = [dict(meta) for meta in batch_img_metas]
        logits: Tensor = self.plain["inference"](inputs, batch_img_metas, *args, **kwargs)
        seen, self.seen = self.seen, []
        if seen and all(one is not None for one in seen):
            self.found[DISPERSION] = self._replayed(seen, inputs, metas, logits.shape[1])
        if self.depth_std:
            self.found[DEPTH_STD] = self._depth_std(inputs, metas)
        return logits

    def _replayed(self, seen: Sequence[Any], inputs: Tensor, metas: list, channels: int) -> Tensor:
        """What inference makes of maps in place of logits, ``(B, 1, H, W)``."""
        maps = iter(seen)
        with ExitStack() as stack:
            if _is_stock(type(self.segmentor)):
                channels = 1
                stack.enter_context(overridden(self.segmentor, "out_channels", 1))

            def replay(*_: Any, **__: Any) -> Tensor:
                return next(maps).expand(-1, channels, -1, -1)

            stack.enter_context(overridden(self.segmentor, "encode_decode", replay))
            return self.plain["inference"](inputs.float(), metas)[:, :1]

    def _depth_std(self, inputs: Tensor, metas: list) -> Tensor:
        """The standard deviation over views of what inference returns, ``(B, 1, H, W)``."""
        state = self.part._srt
        settings, batch = state.settings, len(inputs)

        def run(chunk: Tensor) -> Tensor:
            copies = [dict(meta) for meta in metas * (len(chunk) // batch)]
            depth: Tensor = self.plain["inference"](chunk, copies)
            return depth

        views, plain = state.views(), self.plain["encode_decode"]
        with overridden(self.segmentor, "encode_decode", plain), off(self.segmentor):
            return output_spread(run, inputs, views, settings.padding, settings.view_batch)

    def postprocess_result(self, result: Tensor, data_samples: Any = None) -> Any:
        plain = self.plain["postprocess_result"]
        samples = plain(result, data_samples)
        for name, maps in self.found.items():
            _hand_over(plain, name, maps, samples, data_samples)
        return samples


def read_maps(segmentor: Any, part: Any) -> tuple[Tensor, ...]:
    """Dispersion of the feature maps that the decode head reads: those of its ``in_index``, or all
    where a neck, ``layer=`` or ``outputs=`` lies in between.
    """
    maps: tuple[Tensor, ...] = part._srt.dispersion
    settings, head = part._srt.settings, segmentor.decode_head
    head = head[-1] if isinstance(head, nn.ModuleList) else head
    wanted = getattr(head, "in_index", None)
    whole = part is segmentor.backbone and not segmentor.with_neck
    if not whole or settings.layer is not None or settings.outputs is not None or wanted is None:
        return maps
    chosen = [wanted] if isinstance(wanted, int) else list(wanted)
    if not all(-len(maps) <= index < len(maps) for index in chosen):
        return maps
    return tuple(maps[index] for index in chosen)


@contextmanager
def placed_in_samples(segmentor: Any, maps: list[Tensor]) -> Iterator[None]:
    """While active, samples get ``srt_dispersion`` from maps that someone else makes.

    Args:
        segmentor: of MMSegmentation.
        maps: when results are processed, one map ``(B, 1, H, W)`` in the size of logits, which is
            taken out, or none.
    """
    plain = segmentor.postprocess_result

    def postprocess_result(result: Tensor, data_samples: Any = None) -> Any:
        samples = plain(result, data_samples)
        if maps:
            _hand_over(plain, DISPERSION, maps.pop(), samples, data_samples)
        return samples

    with overridden(segmentor, "postprocess_result", postprocess_result):
        yield


def _hand_over(postprocess: Any, name: str, maps: Tensor, samples: Any, given: Any) -> None:
    for sample, one in zip(samples, _placed(postprocess, maps, given)):
        sample.set_data({name: PixelData(data=one)})


def _placed(postprocess: Any, maps: Tensor, samples: Any) -> list[Tensor]:
    """Maps ``(B, 1, H, W)`` as logits are put into samples, ``(1, H', W')`` each."""
    copies = None if samples is None else [SegDataSample(metainfo=s.metainfo) for s in samples]
    # Two channels: a single one would go through a sigmoid.
    made = postprocess(maps.float().expand(-1, 2, -1, -1), copies)
    key = "seg_logits" if "seg_logits" in made[0] else "pred_depth_map"
    return [sample.get(key).data[:1].clone() for sample in made]


def _is_stock(kind: type) -> bool:
    """Whether inference of a class makes room for ``out_channels``, as MMSegmentation's does."""
    names = ("inference", "whole_inference", "slide_inference", "slide_flip_inference")
    return all(
        getattr(kind, name, None)
        in (None, getattr(EncoderDecoder, name, None), getattr(DepthEstimator, name, None))
        for name in names
    )
