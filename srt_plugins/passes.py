"""The passes of an ensembled forward: views through the backbone, aggregated at its outputs or at a
block of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Callable

import torch
from torch import Tensor, nn

from .adapters.base import Adapter
from .adapters.form import LAYOUTS, Form
from .adapters.outputs import Size
from .adapters.structure import Path, replace, summary, tensors
from .calls import ImageCall
from .core.accumulator import Grid, Leaf
from .core.capture import Block, capture, replaced
from .core.distributed import Peers
from .core.ensemble import ensemble
from .core.guided import Smoother
from .core.translate import Canvas
from .core.views import Views
from .errors import AdapterError, ConfigError
from .settings import Settings
from .state import State


def at_outputs(state: State, call: ImageCall, views: Views) -> Any:
    """Ensemble what the backbone returns."""
    settings, adapter, images = state.settings, state.adapter, call.images
    sizes = (adapter.view_size(call.size), call.size)
    centre = views.translations.index((0, 0)) if (0, 0) in views.translations else None
    first: Any = None
    selected: list[Path] = []
    forms: dict[Path, Form] = {}
    kept: dict[Path, Tensor] | None = None
    peers = Peers.of(settings.group)
    shapes: dict[Path, Tensor] | None = None

    def leaves(chunk: Tensor, chosen: slice) -> list[Leaf]:
        nonlocal first, selected, forms, kept, shapes
        output = call.run(chunk)
        found = dict(tensors(output))
        if first is None:
            first = output
            selected, forms = _selected(output, settings, adapter, sizes, call)
        _check_batch(found, forms, selected, len(chunk), output)
        others = [found[p].shape[:1] for p in forms if p not in selected]
        each = all(entries == (len(chunk),) for entries in others)
        # With tolerance= some images may have left before the centre view.
        whole = len(chunk) == (chosen.stop - chosen.start) * len(images)
        if centre is not None and chosen.start <= centre < chosen.stop and each and whole:
            start = (centre - chosen.start) * len(images)
            kept = _others(found, forms, selected, slice(start, start + len(images)))
        if peers is not None and each:
            shapes = _others(found, forms, selected, slice(len(images)))
        made = [leaf for p in selected for leaf in forms[p].split(found[p])]
        _check_mirrored(made, chunk, views.mirrored[chosen])
        return made

    accumulator = ensemble(
        leaves,
        images,
        views,
        settings.aggregation(),
        size=sizes[0],
        padding=settings.padding,
        view_batch=settings.view_batch,
        tolerance=settings.tolerance,
        group=settings.group,
    )
    if peers is not None and len(selected) < len(forms):
        kept = _received(peers, kept, shapes, images.device)
    if kept is None and len(selected) < len(forms):
        output = call.run(_untranslated(call, sizes[0], settings))
        kept = _others(dict(tensors(output)), forms, selected)
    state.ran(accumulator.views_used)
    state.dispersion = tuple(_spread(d) for d in accumulator.dispersions())
    results = iter(accumulator.results())
    values = kept or {}
    join = _joined(settings, images, views)
    for path in selected:
        values[path] = join(forms[path], [next(results) for _ in range(forms[path].count)])
    return replace(first, lambda path, like: _like(values[path], like))


def at_layer(module: nn.Module, state: State, call: ImageCall, views: Views) -> Any:
    """Ensemble what a block returns, and run the rest of the backbone once."""
    settings, adapter, images = state.settings, state.adapter, call.images
    sizes = (adapter.view_size(call.size), call.size)
    assert settings.layer is not None
    index = adapter.block_index(settings.layer)
    stored = adapter.stored_blocks(index)
    skipped = [i for i in range(index) if i not in stored]
    forms: list[Form] = []
    blocks: dict[int, Block] = {}

    def paths(indices: list[int]) -> list[str]:
        return [adapter.blocks[i] for i in indices]

    def leaves(view: Tensor, chosen: slice) -> list[Leaf]:
        found = capture(
            module, paths(stored), lambda: call.run(view), paths(skipped), adapter.attentions
        )
        blocks.update({i: found[adapter.blocks[i]] for i in (*stored, *skipped)})
        forms[:] = [adapter.block_form(blocks[i].tokens, i, sizes[0]) for i in stored]
        made = [leaf for i, form in zip(stored, forms) for leaf in form.split(blocks[i].tokens)]
        _check_mirrored(made, view, views.mirrored[chosen])
        return made

    accumulator = ensemble(
        leaves,
        images,
        views,
        settings.aggregation(),
        size=sizes[0],
        padding=settings.padding,
        view_batch=settings.view_batch,
        tolerance=settings.tolerance,
        group=settings.group,
    )
    results = iter(accumulator.results())
    values = {}
    join = _joined(settings, images, views)
    for i, form in zip(stored, forms):
        tokens = join(form, [next(results) for _ in range(form.count)])
        values[adapter.blocks[i]] = blocks[i].but(tokens.to(blocks[i].tokens.dtype).contiguous())
    state.ran(accumulator.views_used)
    state.dispersion = tuple(_spread(d) for d in accumulator.dispersions())
    passed = {adapter.blocks[i]: blocks[i].but for i in skipped}
    with replaced(module, values, passed):
        output = call.run(_untranslated(call, sizes[0], settings))
    kept = adapter.by_size.kept if adapter.by_size else ()
    names = [n for n in kept if isinstance(output, Mapping) and output.get(n) is not None]
    if names:  # the blocks that did not run have made none of these
        centre = call.run(_untranslated(call, sizes[0], settings))
        for name in names:
            output[name] = centre[name]
    final = adapter.forms(output, *sizes, (), call.asked)
    return replace(output, lambda path, tensor: final[path].cropped(tensor))


def _joined(
    settings: Settings, images: Tensor, views: Views
) -> Callable[[Form, list[Tensor]], Tensor]:
    """How aggregated leaves become tensors of a form: smoothed along the images if asked for."""
    how = settings.aggregation()
    single = views.is_identity
    smoother = Smoother(how.guided, images, how.stride, single) if how.guided else None

    def join(form: Form, leaves: list[Tensor]) -> Tensor:
        if smoother is not None and form.layout in LAYOUTS:
            leaves = [smoother(leaves[0], form.stride[0]), *leaves[1:]]
        return form.join(leaves)

    return join


def _selected(
    output: Any,
    settings: Settings,
    adapter: Adapter,
    sizes: tuple[Size, Size],
    call: ImageCall,
) -> tuple[list[Path], dict[Path, Form]]:
    """Paths of the outputs that are ensembled, and how every output holds its token grid."""
    selected = _select(output, settings)
    forms = adapter.forms(output, *sizes, selected, call.asked)
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


def _check_mirrored(leaves: list[Leaf], chunk: Tensor, mirrored: tuple[bool, ...]) -> None:
    """Mirrored back, a grid lies where it was only if it covers the whole width of its view."""
    if not any(mirrored):
        return
    width = chunk.shape[-1]
    for leaf in leaves:
        if isinstance(leaf, Grid) and leaf.tensor.shape[-1] * leaf.stride[1] != width:
            raise ConfigError(
                f"Expected flip=False for images of {width} columns, which the backbone cuts into "
                f"{leaf.tensor.shape[-1]} patches of {leaf.stride[1]}: mirrored ones would lie "
                f"elsewhere. Pad the images to a multiple of {leaf.stride[1]} columns first."
            )


def _untranslated(call: ImageCall, view_size: Size, settings: Settings) -> Tensor:
    """The images completed to the size of the views."""
    return Canvas(call.images, [(0, 0)], view_size, settings.padding).views([(0, 0)])


def _others(
    found: dict[Path, Tensor],
    forms: dict[Path, Form],
    selected: list[Path],
    batch: slice = slice(None),
) -> dict[Path, Tensor]:
    """The outputs that are not ensembled, of the images in ``batch``."""
    return {p: forms[p].cropped(t)[batch] for p, t in found.items() if p not in selected}


def _received(
    peers: Peers,
    kept: dict[Path, Tensor] | None,
    shapes: dict[Path, Tensor] | None,
    device: torch.device,
) -> dict[Path, Tensor] | None:
    """What the process that ran the centre view kept of it, in all; None where none did."""
    given, like = (None if t is None else list(t.values()) for t in (kept, shapes))
    found = peers.first(given, like, device)
    return None if found is None or shapes is None else dict(zip(shapes, found))


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
