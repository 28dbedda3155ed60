"""How similar features are to the feature at a point."""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import Tensor

from ..core.cells import output_cell
from ..errors import ConfigError
from ..settings import Settings
from .features import Features
from .kept import Kept, cell_of
from .maps import Map, Size, cells_of, joined, size_of
from .tokens import reading

# Buffers of a field while it is made: running sum, waiting views or smoothing, and result.
_BUFFERS = 3
_BYTES = 4  # of a float32


def cosine_to_point(
    features: Features,
    images: Tensor,
    settings: Settings | None,
    point: tuple[int, int],
    memory: int = 1 << 30,
) -> Map:
    """Cosine similarity of all features, all D channels, to the feature at a point.

    Ensembled features come at the finest stride, a divisor of the token's, whose buffers fit
    ``memory``: 1 (pixels) while the tokens of all views leave room beside them, for lengths and
    products are then added up a few channels at a time; else the one at which all channels fit
    together, at least tokens.

    Args:
        features: where in which backbone.
        images: ``(B, C, H, W)``, normalised, on the backbone's device.
        settings: of SRT, whose ``stride`` is the finest to use (None = 1); None = plain features.
        point: (y, x) in pixels.
        memory: bytes for what comes beside the backbone's own forward.

    Returns:
        Values ``(B, 1, h, w)`` in -1..1, 0 where features are zero; ``Map.stride`` says the cells.

    Raises:
        ConfigError: a point outside the images, settings that do not fit, or features that are not
            finite.
    """
    with reading(features.tokens.backbone):
        features.tokens.prepare(images)
    _check_point(point, size_of(images))
    if settings is None:
        return _of_map(features.plain(images), point)
    settings = settings.but(dispersion=False)
    features.views(settings)
    if not features.tokens.channels:
        features.plain(images[:1])  # only a forward tells how large tokens are
    stride, keeps, channels = _plan(features, images, settings, memory)
    settings = settings.but(stride=stride)
    if not keeps:
        return _of_map(features.ensembled(images, settings), point)
    maps = []
    for kept, count in features.kept(images, settings):
        values = _in_bands(kept, count, settings, channels, point)
        cell = cell_of(kept.stride, stride)
        used = (count,) * len(kept.images)
        maps.append(Map(_checked(values), cell, None, size_of(images), kept.stride, None, used))
    return joined(maps)


def _plan(
    features: Features, images: Tensor, settings: Settings, memory: int
) -> tuple[int, bool, int]:
    """Pixels per cell, whether to keep the tokens of all views, and how many channels at a time."""
    tokens, batch = features.tokens, len(images)
    token = tokens.stride[0]
    finest = output_cell(token, settings.stride or 1)
    strides = [s for s in range(finest, token + 1) if token % s == 0]
    size = tokens.view_size(images)
    positions = math.prod(size) // math.prod(tokens.stride)
    views = len(features.views(settings)) * batch * positions * tokens.channels * tokens.itemsize

    def field(stride: int) -> int:
        """Bytes of one channel."""
        return _BYTES * batch * math.prod(cells_of(size, (stride, stride)))

    for stride in strides:
        room = (memory - views) // field(stride) - _BUFFERS
        if room >= _BUFFERS:
            return stride, True, min(tokens.channels, room // _BUFFERS)
    for stride in strides:
        if _BUFFERS * tokens.channels * field(stride) <= memory:
            return stride, False, tokens.channels
    return strides[-1], False, tokens.channels


def _in_bands(
    kept: Kept, count: int, settings: Settings, channels: int, point: tuple[int, int]
) -> Tensor:
    """Cosines ``(B, 1, h, w)`` from a few channels at a time."""
    how = replace(settings.aggregation(), dispersion=False)
    size = size_of(kept.images)
    cell = cell_of(kept.stride, how.stride)
    h, w = cells_of(size, cell)
    sums: list[Tensor] = []
    for start in range(0, kept.tokens[0].shape[1], channels):
        band = kept.aggregated(how, count, slice(start, start + channels))[..., :h, :w]
        parts = _products(band, _place(point, cell))
        sums = [a + b for a, b in zip(sums, parts)] if sums else parts
    return _cosine(*sums).cpu()


def _of_map(found: Map, point: tuple[int, int]) -> Map:
    cosine = _cosine(*_products(found.values, _place(point, found.stride)))
    return replace(found, values=_checked(cosine))


def _place(point: tuple[int, int], cell: Size) -> tuple[int, int]:
    return (int(point[0]) // cell[0], int(point[1]) // cell[1])


def _products(values: Tensor, place: tuple[int, int]) -> list[Tensor]:
    """Products with the feature at a place, squares, and its own square, ``(B, 1, h, w)``."""
    product, square = (torch.zeros_like(values[:, :1]) for _ in range(2))
    there = values[:, :, place[0], place[1]].clone()
    for channel, at in zip(values.unbind(1), there.unbind(1)):
        product[:, 0].addcmul_(channel, at[:, None, None])
        square[:, 0].addcmul_(channel, channel)
    return [product, square, there.square().sum(1)[:, None, None, None]]


def _cosine(product: Tensor, square: Tensor, own: Tensor) -> Tensor:
    tiny = torch.finfo(product.dtype).tiny
    return (product / (square.sqrt() * own.sqrt()).clamp_min(tiny)).clamp(-1, 1).float()


def _checked(cosine: Tensor) -> Tensor:
    if bool(torch.isfinite(cosine).all()):
        return cosine
    raise ConfigError(
        "Expected finite features, got NaN or infinite ones; look for values that are not finite "
        "in the images or the weights, or run without half precision."
    )


def _check_point(point: tuple[int, int], size: Size) -> None:
    good = len(point) == 2 and all(0 <= at < pixels for at, pixels in zip(point, size))
    if not good:
        raise ConfigError(
            f"Expected point to be (y, x) in pixels inside images of {size[0]}x{size[1]}, got "
            f"{tuple(point)}."
        )
