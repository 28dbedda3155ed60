"""What every adapter's tests share: the oracle run by hand on a real backbone."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests import reference

VIEWS = [(0, 0), (3, -2), (-1, 2)]


def with_sizes(cases, wanted=lambda case: True):
    """Every backbone that is wanted, with every size that it takes."""
    pairs = [(n, s) for n, c in cases.items() if wanted(c) for s in c.sizes]
    return pytest.mark.parametrize(
        ("name", "size"), pairs, ids=[f"{n}-{s[0]}x{s[1]}" for n, s in pairs]
    )


def with_cases(cases, wanted):
    """Every backbone that is wanted, by its case."""
    return pytest.mark.parametrize(
        "case", [pytest.param(c, id=n) for n, c in cases.items() if wanted(c)]
    )


def same(a, b):
    """Nested outputs equal to the bit, with the same containers."""
    assert type(a) is type(b)
    if isinstance(a, torch.Tensor):
        return a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, dict):
        return list(a) == list(b) and all(same(a[key], b[key]) for key in a)
    return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b))


@torch.no_grad()
def run(backbone, image):
    return backbone(image)


def close(found, expected):
    expected = torch.from_numpy(expected).float()
    assert found.shape[1:] == expected.shape
    assert (found[0] - expected).abs().max() <= 1e-4 * expected.abs().max()


def view_inputs(image, multiple=None, padding="replicate"):
    """The views of one image, made by the oracle, completed to whole patches where the wrapper
    does that."""
    size = image.shape[-2:]
    m = multiple or 1
    full = tuple(-(-n // m) * m for n in size)
    source = image[0].double().numpy()
    return [
        torch.from_numpy(reference.translate(source, dy, dx, padding, full)).float()[None]
        for dy, dx in VIEWS
    ]


def _as_grid(tokens, layout, prefix, shape):
    """A block's tokens of one image as (C, h, w) and the prefix tokens (K, C)."""
    if layout == "NCHW":
        return tokens, tokens[:0]
    if layout == "NHWC":
        return np.moveaxis(tokens, -1, 0), tokens[:0]
    return tokens[prefix:].T.reshape(-1, *shape), tokens[:prefix]


def _as_tokens(grid, prefix, layout):
    if layout == "NCHW":
        return grid
    if layout == "NHWC":
        return np.moveaxis(grid, 0, -1)
    return np.concatenate([prefix, grid.reshape(len(grid), -1).T])


def _tokens(output):
    """A block's tokens, which may come first in a tuple or list."""
    return output[0] if isinstance(output, (tuple, list)) else output


def _with_tokens(output, tokens):
    """What a block returned, with other tokens."""
    if isinstance(output, (tuple, list)):
        return type(output)([tokens, *output[1:]])
    return tokens


def layer_by_hand(adapter, backbone, image, index, floors=False, call=run):
    """Ensemble at a block with forward hooks and the oracle only; paths, strides, layout and taps
    are the adapter's, which are tested on their own. ``call`` calls the backbone with an image."""
    stored = [i for i in adapter.taps if i < index] + [index]
    views = view_inputs(image, adapter.multiple)
    seen = []
    for view in views:
        tokens = {}
        hooks = [
            backbone.get_submodule(adapter.blocks[i]).register_forward_hook(
                lambda m, a, output, i=i, t=tokens: t.update({i: _tokens(output)[0]})
            )
            for i in stored
        ]
        call(backbone, view)
        [h.remove() for h in hooks]
        seen.append(tokens)
    height, width = views[0].shape[-2:]
    hooks = []
    for i in stored:
        stride, layout = adapter.block_strides[i], adapter.block_layout
        shape = (-(-height // stride), -(-width // stride))
        if floors:
            shape = (height // stride, width // stride)
        numbers = [t[i].double().numpy() for t in seen]
        parts = [_as_grid(t, layout, adapter.prefix_tokens, shape) for t in numbers]
        mean = reference.aggregate([grid for grid, _ in parts], VIEWS, stride)["mean"]
        prefix = np.mean([prefix for _, prefix in parts], 0)
        new = torch.from_numpy(_as_tokens(mean, prefix, layout)).float()[None]
        module = backbone.get_submodule(adapter.blocks[i])
        hooks.append(module.register_forward_hook(lambda m, a, o, new=new: _with_tokens(o, new)))
    output = call(backbone, views[0])  # the untranslated view
    [h.remove() for h in hooks]
    return output
