"""What an ensemble must be, from the oracle and the facts of a case alone."""

from __future__ import annotations

import numpy as np
import torch

from tests import reference
from tests.contracts import VIEWS, view_inputs


def flat(output):
    """Every tensor of an output by the path to it."""
    found = {}

    def walk(value, path):
        if isinstance(value, torch.Tensor):
            found[path] = value
        elif isinstance(value, dict):
            for name, part in value.items():
                walk(part, (*path, name))
        elif isinstance(value, (tuple, list)):
            for i, part in enumerate(value):
                walk(part, (*path, i))

    walk(output, ())
    return found


def cells(size, stride, completes):
    return tuple(-(-n // stride) if completes else n // stride for n in size)


def as_grid(tensor, layout, shape, prefix):
    """The grid (C, h, w) of one image, and the tokens in front of it (K, C)."""
    array = tensor[0].double().numpy()
    if layout == "NCHW":
        return array, array[:0]
    if layout == "NHWC":
        return np.moveaxis(array, -1, 0), array[:0]
    ahead = len(array) - shape[0] * shape[1]
    assert ahead in (0, prefix)
    return array[ahead:].T.reshape(-1, *shape), array[:ahead]


def as_tensor(grid, ahead, layout):
    if layout == "NLC":
        grid = np.concatenate([ahead, grid.reshape(len(grid), -1).T])
    elif layout == "NHWC":
        grid = np.moveaxis(grid, 0, -1)
    return torch.from_numpy(grid).float()[None]


def mean_of(tensors, layout, stride, size, prefix, completes):
    """The ensemble of one output of every view."""
    if layout == "vector":
        return torch.stack([t.double() for t in tensors]).mean(0).float()
    shape = cells(size, stride, completes)
    parts = [as_grid(t, layout, shape, prefix) for t in tensors]
    mean = reference.aggregate([grid for grid, _ in parts], VIEWS, stride)["mean"]
    return as_tensor(mean, np.mean([ahead for _, ahead in parts], 0), layout)


@torch.no_grad()
def ensemble(backbone, case, image, **ask):
    """Every output of a case by its path; those of other names as they are."""
    size = image.shape[-2:]
    every = [flat(backbone(view, **ask)) for view in view_inputs(image)]
    expected = {}
    for path in every[0]:
        layout, strides = case.outputs.get(path[0], ("kept", ()))
        if layout == "kept":
            expected[path] = flat(backbone(image, **ask))[path]
            continue
        stride = strides[path[1] if len(path) > 1 else 0]
        tensors = [outputs[path] for outputs in every]
        expected[path] = mean_of(tensors, layout, stride, size, case.prefix, case.completes)
    return expected


@torch.no_grad()
def at_layer(backbone, case, blocks, strides, image, index, **ask):
    """Blocks up to one replaced by their ensembles, with hooks; paths and strides of the blocks
    are the adapter's, which are tested on their own."""
    size = image.shape[-2:]
    seen = []
    for view in view_inputs(image):
        tokens = {}

        def keep(module, given, output, tokens=tokens):
            tokens[module] = output[0] if isinstance(output, tuple) else output

        _hooked(backbone, blocks[: index + 1], keep, view, ask)
        seen.append(tokens)
    new = {
        module: mean_of(
            [tokens[module] for tokens in seen],
            case.layout,
            strides[blocks.index(path)],
            size,
            case.prefix if case.layout == "NLC" else 0,
            case.completes,
        )
        for path in blocks[: index + 1]
        for module in [backbone.get_submodule(path)]
    }

    def replace(module, given, output):
        return (new[module], *output[1:]) if isinstance(output, tuple) else new[module]

    return _hooked(backbone, blocks[: index + 1], replace, image, ask)


def _hooked(backbone, paths, hook, image, ask):
    # In front of hooks that the library collects hidden states with.
    modules = [backbone.get_submodule(path) for path in paths]
    handles = [m.register_forward_hook(hook, prepend=True) for m in modules]
    try:
        return backbone(image, **ask)
    finally:
        for handle in handles:
            handle.remove()
