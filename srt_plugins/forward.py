"""One ensembled forward of a backbone: views, engine and adapter put together."""

from __future__ import annotations

import inspect
import threading
import warnings
from collections.abc import Mapping
from typing import Any, Callable
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from .adapters.base import Adapter
from .adapters.form import Form
from .adapters.outputs import Asked
from .adapters.probe import probed
from .adapters.structure import Path, replace, summary, tensors
from .core.capture import Block, capture, replaced
from .core.ensemble import Accumulator, Leaf, ensemble, view_chunks
from .core.translate import Canvas
from .core.views import Views
from .errors import AdapterError, ConfigError
from .settings import Settings
from .state import State, check

Plain = Callable[..., Any]

# Beside the state, which is copied and pickled with the module.
_LOCKS: WeakKeyDictionary[nn.Module, threading.RLock] = WeakKeyDictionary()


def run(module: nn.Module, state: State, plain: Plain, args: tuple, kwargs: dict) -> Any:
    """The ensembled forward of ``module``: same outputs, structure and dtypes as ``plain``."""
    if state.settings.is_plain:
        return plain(*args, **kwargs)
    by = state.adapter.named_by
    if by and _asked(module, kwargs, by) is False:
        return run(module, state, plain, args, {**kwargs, by: True}).to_tuple()
    images, call = _images(plain, args, kwargs, module)
    _check_parts(module)
    state.dispersion = ()
    if state.adapter.patch is None and state.adapter.by_size is None:
        state.adapter = probed(state.adapter, call, images[:1])
        check(state.settings, state.adapter)
    views = state.views()
    how = state.settings.aggregation()
    if views.is_identity and how.kernel is None and state.settings.stride is None:
        return plain(*args, **kwargs)
    _check_images(images, state)
    if len(views) > 1:
        _warn_gradients(module, images, state, len(views))
    asked = _call(plain, args, kwargs)
    if state.settings.layer is not None:
        # Blocks are patched for the time being, which other threads must not see.
        with _LOCKS.setdefault(module, threading.RLock()):
            return _at_layer(module, state, asked, call, images, views)
    return _at_outputs(state, asked, call, images, views)


def _at_outputs(state: State, asked: Asked, call: Callable, images: Tensor, views: Views) -> Any:
    settings, adapter = state.settings, state.adapter
    image_size, view_size = _sizes(adapter, images)
    centre = views.translations.index((0, 0)) if (0, 0) in views.translations else None
    first: Any = None
    forms: dict[Path, Form] = {}
    kept: dict[Path, Tensor] | None = None
    accumulator = Accumulator(views, settings.aggregation())
    for chunk, chosen in view_chunks(
        images,
        views,
        size=view_size,
        padding=settings.padding,
        view_batch=settings.view_batch,
    ):
        output = call(chunk)
        found = dict(tensors(output))
        if first is None:
            first = output
            selected, forms = _selected(output, settings, adapter, view_size, image_size, asked)
        _check_batch(found, forms, selected, len(chunk), output)
        others = [found[p].shape[:1] for p in forms if p not in selected]
        each = all(entries == (len(chunk),) for entries in others)
        if centre is not None and chosen.start <= centre < chosen.stop and each:
            start = (centre - chosen.start) * len(images)
            kept = _others(found, forms, selected, slice(start, start + len(images)))
        accumulator.add([leaf for p in selected for leaf in forms[p].split(found[p])], chosen)
    if kept is None and len(selected) < len(forms):
        output = call(_untranslated(images, view_size, settings))
        kept = _others(dict(tensors(output)), forms, selected)
    state.dispersion = tuple(_spread(d) for d in accumulator.dispersions())
    results = iter(accumulator.results())
    values = kept or {}
    for path in selected:
        leaves = [next(results) for _ in range(forms[path].count)]
        values[path] = forms[path].join(leaves)
    return replace(first, lambda path, like: _like(values[path], like))


def _at_layer(
    module: nn.Module, state: State, asked: Asked, call: Callable, images: Tensor, views: Views
) -> Any:
    settings, adapter = state.settings, state.adapter
    image_size, view_size = _sizes(adapter, images)
    assert settings.layer is not None
    index = adapter.block_index(settings.layer)
    stored = adapter.stored_blocks(index)
    skipped = [i for i in range(index) if i not in stored]
    forms: list[Form] = []
    blocks: dict[int, Block] = {}

    def paths(indices: list[int]) -> list[str]:
        return [adapter.blocks[i] for i in indices]

    def leaves(view: Tensor) -> list[Leaf]:
        found = capture(
            module, paths(stored), lambda: call(view), paths(skipped), adapter.attentions
        )
        blocks.update({i: found[adapter.blocks[i]] for i in (*stored, *skipped)})
        forms[:] = [adapter.block_form(blocks[i].tokens, i, view_size) for i in stored]
        return [leaf for i, form in zip(stored, forms) for leaf in form.split(blocks[i].tokens)]

    accumulator = ensemble(
        leaves,
        images,
        views,
        settings.aggregation(),
        size=view_size,
        padding=settings.padding,
        view_batch=settings.view_batch,
    )
    results = iter(accumulator.results())
    values = {}
    for i, form in zip(stored, forms):
        tokens = form.join([next(results) for _ in range(form.count)])
        values[adapter.blocks[i]] = blocks[i].but(tokens.to(blocks[i].tokens.dtype).contiguous())
    state.dispersion = tuple(_spread(d) for d in accumulator.dispersions())
    passed = {adapter.blocks[i]: blocks[i].but for i in skipped}
    with replaced(module, values, passed):
        output = call(_untranslated(images, view_size, settings))
    kept = adapter.by_size.kept if adapter.by_size else ()
    names = [n for n in kept if isinstance(output, Mapping) and output.get(n) is not None]
    if names:  # the blocks that did not run have made none of these
        centre = call(_untranslated(images, view_size, settings))
        for name in names:
            output[name] = centre[name]
    final = adapter.forms(output, view_size, image_size, (), asked)
    return replace(output, lambda path, tensor: final[path].cropped(tensor))


def _selected(
    output: Any,
    settings: Settings,
    adapter: Adapter,
    view_size: tuple[int, int],
    image_size: tuple[int, int],
    asked: Asked,
) -> tuple[list[Path], dict[Path, Form]]:
    """Paths of the outputs that are ensembled, and how every output holds its token grid."""
    selected = _select(output, settings)
    forms = adapter.forms(output, view_size, image_size, selected, asked)
    if settings.outputs is not None and not all(forms[p].averaged for p in selected):
        raise ConfigError(
            f"Expected outputs to name features, which can be averaged, got "
            f"{list(settings.outputs)}: {summary(output)}."
        )
    return [path for path in selected if forms[path].averaged], forms


def _select(output: Any, settings: Settings) -> list[Path]:
    """Paths of the outputs that ``outputs=`` names."""
    paths = [path for path, _ in tensors(output)]
    if settings.outputs is None:
        return paths
    keys = list(dict.fromkeys(path[0] for path in paths if path))
    wanted = set()
    for name in settings.outputs:
        if name in keys:
            wanted.add(name)
        elif isinstance(name, int) and -len(keys) <= name < 0:
            wanted.add(keys[name])
        else:
            raise ConfigError(
                f"Expected outputs to name some of {keys}, got {name!r}; the backbone returns "
                f"{summary(output)}."
            )
    return [path for path in paths if path and path[0] in wanted]


def _check_batch(
    found: dict[Path, Tensor],
    forms: dict[Path, Form],
    selected: list[Path],
    count: int,
    output: Any,
) -> None:
    each = all(found[path].shape[:1] == (count,) for path in selected if path in found)
    if list(found) != list(forms) or not each:
        raise AdapterError(
            f"Expected every output to have as many entries as the images given ({count}), and the "
            f"same outputs for every view, got {summary(output)}."
        )


def _sizes(adapter: Adapter, images: Tensor) -> tuple[tuple[int, int], tuple[int, int]]:
    size = (images.shape[-2], images.shape[-1])
    return size, adapter.view_size(size)


def _untranslated(images: Tensor, view_size: tuple[int, int], settings: Settings) -> Tensor:
    """The images completed to the size of the views."""
    return Canvas(images, [(0, 0)], view_size, settings.padding).views([(0, 0)])


def _others(
    found: dict[Path, Tensor],
    forms: dict[Path, Form],
    selected: list[Path],
    batch: slice = slice(None),
) -> dict[Path, Tensor]:
    """The outputs that are not ensembled, of the images in ``batch``."""
    return {p: forms[p].cropped(t)[batch] for p, t in found.items() if p not in selected}


def _like(value: Tensor, like: Tensor) -> Tensor:
    """``value`` in the dtype and memory layout of the backbone's own output."""
    channels_last = (
        like.ndim == 4
        and not like.is_contiguous()
        and like.is_contiguous(memory_format=torch.channels_last)
    )
    layout = torch.channels_last if channels_last else torch.contiguous_format
    return value.to(like.dtype).contiguous(memory_format=layout)


def _spread(dispersion: Tensor) -> Tensor:
    return dispersion.detach().square().mean(1, keepdim=True).sqrt()


def _images(
    plain: Plain, args: tuple, kwargs: dict, module: nn.Module
) -> tuple[Tensor, Callable[[Tensor], Any]]:
    """The images, and the plain forward as a function of them alone."""
    every = {**dict(enumerate(args)), **kwargs}
    # The first argument; by keyword the images may stand behind others.
    named = next((k for k, v in kwargs.items() if _is_images(v)), next(iter(kwargs), None))
    key: Any = 0 if args else named
    first = every.get(key)
    if not _is_images(first):
        shape = tuple(getattr(first, "shape", ()))
        given = "none" if first is None else f"{type(first).__name__} {shape}"
        raise ConfigError(
            f"Expected the first argument of {type(module).__name__} to be images (B, C, H, W), "
            f"got {given}; pass them first."
        )
    if any(isinstance(v, Tensor) and v.ndim for k, v in every.items() if k != key):
        raise ConfigError(
            f"Expected the images to be the only tensor that {type(module).__name__} takes: others "
            "would not be translated with them. Wrap a part of the model that takes images only."
        )
    if args:
        return args[0], lambda images: plain(images, *args[1:], **kwargs)
    return kwargs[key], lambda images: plain(**{**kwargs, key: images})


def _asked(module: nn.Module, kwargs: dict, keyword: str) -> Any:
    """The value of a keyword of a call, by default that of the module's configuration."""
    given = kwargs.get(keyword)
    return getattr(getattr(module, "config", None), keyword, None) if given is None else given


def _call(plain: Plain, args: tuple, kwargs: dict) -> Asked:
    """Which method is called, with every argument by its name."""
    name = getattr(getattr(plain, "func", plain), "__name__", "forward")
    try:
        bound = inspect.signature(plain).bind(*args, **kwargs)
    except TypeError:  # a decorator takes other arguments than the method that it shows
        return Asked(name, kwargs)
    bound.apply_defaults()
    return Asked(name, dict(bound.arguments))


def _is_images(value: Any) -> bool:
    return isinstance(value, Tensor) and value.ndim == 4


def _check_parts(module: nn.Module) -> None:
    """Parts can be wrapped after the whole was, which only shows here."""
    for name, part in module.named_modules():
        inner = vars(part).get("_srt")
        if part is not module and inner is not None and inner.enabled:
            raise ConfigError(
                f"Expected SRT on {type(module).__name__} or on its part {name!r}, got both, which "
                "would run views of views; detach one of them."
            )


def _check_images(images: Tensor, state: State) -> None:
    known = state.adapter.by_size.strides if state.adapter.by_size else state.adapter.strides
    finest = min(set(known or (1,)) - {0})
    if min(images.shape[-2:]) < finest:
        raise ConfigError(
            f"Expected images of at least one patch ({finest} pixels), got "
            f"{images.shape[-2]}x{images.shape[-1]}; enlarge them, or switch SRT off with level=0."
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
