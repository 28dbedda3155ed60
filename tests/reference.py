"""The oracle: SRT written from the definition, in float64, with plain loops.

Shares no code with the package. Slow on purpose: a view is upsampled to pixels, translated back
pixel by pixel, pooled, and aggregated, one number at a time.
"""

from __future__ import annotations

import math

import numpy as np


def translate(image, dy, dx, padding, size=None):
    """Move the content of ``(C, H, W)`` down by dy and right by dx, in a canvas of ``size``."""
    channels, height, width = image.shape
    out_h, out_w = size or (height, width)
    out = np.zeros((channels, out_h, out_w), dtype=np.float64)
    for y in range(out_h):
        for x in range(out_w):
            sy, sx = _source(y - dy, height, padding), _source(x - dx, width, padding)
            if sy is not None and sx is not None:
                out[:, y, x] = image[:, sy, sx]
    return out


def _source(i, n, padding):
    if 0 <= i < n:
        return i
    if padding == "zeros":
        return None
    if padding == "replicate":
        return 0 if i < 0 else n - 1
    while not 0 <= i < n:  # reflect about the first and last pixel
        if n == 1:
            return 0
        i = -i if i < 0 else 2 * (n - 1) - i
    return i


def blur(tokens, taps):
    """Separable kernel over ``(C, h, w)`` tokens, renormalised where it leaves the grid."""
    if taps is None:
        return tokens
    h, w = tokens.shape[1:]
    half = len(taps) // 2
    out = np.zeros_like(tokens)
    for y in range(h):
        for x in range(w):
            total = 0.0
            for j, ty in enumerate(taps):
                for i, tx in enumerate(taps):
                    yy, xx = y + j - half, x + i - half
                    if 0 <= yy < h and 0 <= xx < w:
                        out[:, y, x] += ty * tx * tokens[:, yy, xx]
                        total += ty * tx
            out[:, y, x] /= total
    return out


def aligned_view(tokens, dy, dx, stride, cell, cells):
    """One view put back in place: ``(C, h', w')`` cell means over the pixels that the view shows,
    and the share of each cell that it shows."""
    channels, h, w = tokens.shape
    sums = np.zeros((channels, *cells))
    seen = np.zeros(cells)
    for y in range(cells[0] * cell):
        for x in range(cells[1] * cell):
            ty, tx = math.floor((y + dy) / stride), math.floor((x + dx) / stride)
            if 0 <= ty < h and 0 <= tx < w:
                sums[:, y // cell, x // cell] += tokens[:, ty, tx]
                seen[y // cell, x // cell] += 1
    means = np.divide(sums, seen, out=np.zeros_like(sums), where=seen > 0)
    return means, seen / cell**2


def aggregate(features, views, stride, cell=None, cells=None, weights=None, taps=None):
    """Mean, standard deviation and median over views.

    Args:
        features: one ``(C, h, w)`` array per view.
        views: ``(dy, dx)`` per view.

    Returns:
        dict of ``(C, h', w')`` arrays.
    """
    cell = cell or stride
    h, w = features[0].shape[1:]
    cells = cells or (h * stride // cell, w * stride // cell)
    weights = weights or [1.0] * len(views)
    parts = [
        aligned_view(blur(np.asarray(f, np.float64), taps), dy, dx, stride, cell, cells)
        for f, (dy, dx) in zip(features, views)
    ]
    channels = features[0].shape[0]
    mean, std, median = (np.full((channels, *cells), np.nan) for _ in range(3))
    for y in range(cells[0]):
        for x in range(cells[1]):
            shares = [w_ * seen[y, x] for w_, (_, seen) in zip(weights, parts)]
            for c in range(channels):
                values = [means[c, y, x] for means, _ in parts]
                total = math.fsum(shares)
                m = math.fsum(s * v for s, v in zip(shares, values)) / total
                mean[c, y, x] = m
                spread = math.fsum(s * (v - m) ** 2 for s, v in zip(shares, values)) / total
                std[c, y, x] = math.sqrt(spread)
                median[c, y, x] = np.median([v for s, v in zip(shares, values) if s > 0])
    return {"mean": mean, "std": std, "median": median}


def srt(backbone, image, views, stride, padding, cell=None, size=None, cells=None, **how):
    """The whole method for one image: translate, run, put back, aggregate."""
    features = [backbone(translate(image, dy, dx, padding, size)) for dy, dx in views]
    return aggregate(features, views, stride, cell, cells, **how)


def guided(tokens, image, stride, size, cell, space, colour):
    """Smoothing along the image: a joint bilateral filter of ``(C, h, w)`` tokens.

    Args:
        image: ``(c, H, W)``.
        stride: pixels per token, the unit of ``space``.
        size: pixels per cell of ``tokens``.
        cell: pixels per output cell.
        space: distance in tokens at which a weight falls to 1 / e.
        colour: difference at which it does, in standard deviations of the image's colours.

    Returns:
        ``(C, h * size / cell, w * size / cell)``.
    """
    channels, h, w = tokens.shape
    inverse = np.linalg.inv(_spread_of_colours(image))
    # Pixels that are not finite have the mean colour of the others.
    middle = np.mean(_finite_pixels(image), 0)[:, None, None]
    image = np.where(np.isfinite(image).all(0), image, middle)

    def mean_colour(y, x, n):
        found = [
            image[:, min(yy, image.shape[1] - 1), min(xx, image.shape[2] - 1)]
            for yy in range(y * n, (y + 1) * n)
            for xx in range(x * n, (x + 1) * n)
        ]
        return sum(found) / n**2

    reached = 3 * space * stride
    # Input cells that begin within that of the middle of the input cell that the output cell lies
    # in, and the ones next to it in any case.
    reach = 1
    while (reach + 0.5) * size < reached and reach < max(h, w):
        reach += 1
    inputs = [[mean_colour(y, x, size) for x in range(w)] for y in range(h)]
    ratio = size // cell
    out = np.zeros((channels, h * ratio, w * ratio))
    for y in range(h * ratio):
        for x in range(w * ratio):
            own = mean_colour(y, x, cell)
            values, exponents = [], []
            for yy in range(max(0, y // ratio - reach), min(h, y // ratio + reach + 1)):
                for xx in range(max(0, x // ratio - reach), min(w, x // ratio + reach + 1)):
                    dy = (y + 0.5) * cell - (yy + 0.5) * size
                    dx = (x + 0.5) * cell - (xx + 0.5) * size
                    apart = own - inputs[yy][xx]
                    exponents.append(
                        -math.hypot(dy, dx) / (space * stride)
                        - math.sqrt(max(0.0, apart @ inverse @ apart)) / colour
                    )
                    values.append(tokens[:, yy, xx])
            # A common factor, so that not all weights vanish.
            weights = [math.exp(e - max(exponents)) for e in exponents]
            out[:, y, x] = sum(a * v for a, v in zip(weights, values)) / math.fsum(weights)
    return out


def _spread_of_colours(image):
    """Covariance of the colours of all pixels whose values are finite, with 3 % of the mean
    variance added to each channel's; any for an image of one colour, whose distances are zero."""
    channels = len(image)
    pixels = _finite_pixels(image)
    if all((p == pixels[0]).all() for p in pixels):
        return np.eye(channels)
    mean = sum(pixels) / len(pixels)
    covariance = sum(np.outer(p - mean, p - mean) for p in pixels) / len(pixels)
    return covariance + 0.03 * np.trace(covariance) / channels * np.eye(channels)


def _finite_pixels(image):
    pixels = [image[:, y, x] for y in range(image.shape[1]) for x in range(image.shape[2])]
    return [p for p in pixels if np.isfinite(p).all()]
