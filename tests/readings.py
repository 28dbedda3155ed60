"""What a tensor of an output holds, said by a test in words, and its ensemble by the oracle.

Words: ``NCHW/16`` and ``NHWC/16`` maps of a stride; ``tokens/16`` a sequence behind prefix tokens;
``patches/16`` one without; ``pooled`` image-level tokens.
"""

from __future__ import annotations

import numpy as np
import torch
from srt_plugins.adapters.structure import tensors

from tests import reference
from tests.contracts import VIEWS, close, view_inputs

LAYOUTS = {"tokens": "NLC", "patches": "NLC"}


def by_oracle(parts, reading, prefix, view_size, size, floors=False):
    """The ensemble of one image's tensor, from what each view gave, as float64."""
    if reading == "pooled":
        return np.mean(parts, 0)
    word, _, stride = reading.partition("/")
    s = int(stride)
    prefix = prefix if word == "tokens" else 0
    shape = tuple(n // s if floors else -(-n // s) for n in view_size)
    cells = tuple(n // s if floors else -(-n // s) for n in size)
    layout = LAYOUTS.get(word, word)
    if layout == "NCHW":
        grids = parts
    elif layout == "NHWC":
        grids = [np.moveaxis(part, -1, 0) for part in parts]
    else:
        assert parts[0].shape[0] == prefix + shape[0] * shape[1], (
            "not the tokens that the test says"
        )
        grids = [part[prefix:].T.reshape(-1, *shape) for part in parts]
    assert grids[0].shape[1:] == shape, "not the stride said"
    mean = reference.aggregate(grids, VIEWS, s, cells=cells)["mean"]
    if layout == "NHWC":
        return np.moveaxis(mean, 0, -1)
    if layout == "NCHW":
        return mean
    return np.concatenate([np.mean([p[:prefix] for p in parts], 0), mean.reshape(len(mean), -1).T])


def cropped(tensor, reading, prefix, view_size, size):
    """The part of a batch's tensor that an image alone would give, where views are larger."""
    word, _, stride = reading.partition("/")
    if word == "pooled":
        return tensor
    (rows, columns), (h, w) = ([-(-n // int(stride)) for n in s] for s in (view_size, size))
    if word == "NCHW":
        return tensor[:, :, :h, :w]
    if word == "NHWC":
        return tensor[:, :h, :w]
    prefix = prefix if word == "tokens" else 0
    grid = tensor[:, prefix:].unflatten(1, (rows, columns))[:, :h, :w]
    return torch.cat([tensor[:, :prefix], grid.flatten(1, 2)], 1)


def check(call, wrapped, plain, image, readings, prefix=0, multiple=None, floors=False):
    """A wrapped backbone's output is the oracle's ensemble of the plain one's.

    Args:
        call: calls a backbone with an image.
        plain: gives what the unwrapped backbone gives.
        readings: one for each tensor, in order.
    """
    with torch.no_grad():
        alone = tensors(call(plain, image))
        views = view_inputs(image, multiple)
        every = [tensors(call(plain, view)) for view in views]
        found = tensors(call(wrapped, image))
    assert [path for path, _ in found] == [path for path, _ in alone]
    assert len(found) == len(readings), [tuple(t.shape) for _, t in found]
    for i, (path, tensor) in enumerate(found):
        assert tensor.dtype == alone[i][1].dtype
        assert tensor.shape == alone[i][1].shape, path
        parts = [outputs[i][1][0].double().numpy() for outputs in every]
        sizes = (views[0].shape[-2:], image.shape[-2:])
        if tensor.numel():
            close(tensor, by_oracle(parts, readings[i], prefix, *sizes, floors))
            assert not torch.allclose(tensor, alone[i][1], rtol=1e-4, atol=1e-6), "nothing changed"
