"""Views put back in place: their token grids times the matrices of an alignment."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from .product import bands, in_place, operands
from .resample import Alignment, Block


def add_views(total: Tensor, a: Alignment, features: list[Tensor], views: list[int]) -> Tensor:
    """``total + sum of weight * A_y F A_x^T`` over views, in place where that is allowed.

    Args:
        total: ``(B * C, R, Q)`` in the accumulation dtype.
        features: ``(v, B * C, h, w)`` tensors, one view after the other.
        views: which view each is.
    """
    groups = _groups(a, views)
    order = [place for group in groups for place in group]
    chosen = [views[place] for place in order]
    weights = pick(a.weights, chosen)[:, None, None]
    across = (pick(a.a_x, chosen) * weights).unflatten(0, (len(groups), -1))
    # Rows of A_y beside each other, token by token: a run of tokens is then one slice.
    down = pick(a.a_y, [views[group[0]] for group in groups]).permute(1, 2, 0)
    shape = (len(groups), -1)
    if not in_place(total, *features):
        columns = _columns(gather(features, slice(None), order).unflatten(0, shape), across)
        left, right = operands(down.flatten(1), _stacked(columns))
        return total + left @ right
    each = max(a.coverage.numel(), features[0].shape[-2] * features[0].shape[-1])
    for band in bands(len(total), each, total.device):
        found = gather(features, band, order).unflatten(0, shape)
        stacked = _stacked(_columns(found, across, a.blocks_x))
        for start, stop, first, last in a.blocks_y:
            read = slice(first * len(groups), last * len(groups))
            left, right = operands(down[start:stop, first:last].flatten(1), stacked[:, read])
            total[band, start:stop].baddbmm_(left.expand(len(right), -1, -1), right)
    return total


def shown(a: Alignment, views: list[int]) -> Tensor:
    """``(v, R, Q)``: share of each distinct cell that a view shows."""
    return pick(a.cover_y, views)[:, :, None] * pick(a.cover_x, views)[:, None]


def aligned_views(
    a: Alignment, features: Tensor, views: list[int], share: Tensor, free: bool
) -> Tensor:
    """``(v, c, h, w)`` to aligned cells ``(v, c, R, Q)``, each the mean of what the view shows of
    it.

    Args:
        share: what :func:`shown` gives.
        free: what :func:`in_place` says.
    """
    blocks_y, blocks_x = (a.blocks_y, a.blocks_x) if free else ((), ())
    columns = _columns(features[:, None], pick(a.a_x, views)[:, None], blocks_x)
    down = pick(a.a_y, views)[:, None]
    parts = []
    for start, stop, first, last in blocks_y or ((0, None, 0, None),):
        left, right = operands(down[:, :, start:stop, first:last], columns[:, :, first:last])
        parts.append(left @ right)
    aligned = parts[0] if len(parts) == 1 else torch.cat(parts, 2)
    if not a.in_parts:
        return aligned
    whole = torch.where(share > 0, share, 1)[:, None]
    return torch.div(aligned, whole, out=aligned if free else None)


def gather(features: list[Tensor], band: slice, order: Sequence[int]) -> Tensor:
    """Channels ``band`` of the views at places ``order`` of ``(v, B * C, h, w)`` tensors."""
    if len(features) == 1 and _consecutive(order):
        return features[0][order[0] : order[-1] + 1, band]
    every = [view[band] for chunk in features for view in chunk.unbind(0)]
    return torch.stack([every[place] for place in order])


def pick(table: Tensor, rows: list[int]) -> Tensor:
    """Some rows of a table; an index would have to be copied to the device first."""
    if _consecutive(rows):
        return table[rows[0] : rows[-1] + 1]
    return torch.stack([table[row] for row in rows])


def _consecutive(numbers: Sequence[int]) -> bool:
    return list(numbers) == list(range(numbers[0], numbers[0] + len(numbers)))


def _groups(a: Alignment, views: list[int]) -> list[list[int]]:
    """Places of views moved equally along y, which are added up before rows are aligned; each view
    by itself where that gains nothing, or where groups are of different sizes.
    """
    groups: dict[int, list[int]] = {}
    for place, view in enumerate(views):
        groups.setdefault(a.shifts_y[view], []).append(place)
    sizes = {len(group) for group in groups.values()}
    if a.together == 1 or len(sizes) > 1:
        return [[place] for place in range(len(views))]
    return list(groups.values())


def _columns(features: Tensor, across: Tensor, blocks: Sequence[Block] = ()) -> Tensor:
    """``(g, m, c, h, w)`` times ``(g, m, Q, w)``, added over m: ``(g, c, h, Q)``."""
    groups, _, channels, height = features.shape[:4]
    rows = features.permute(0, 2, 3, 1, 4)
    matrices = across.transpose(2, 3)
    parts = []
    for start, stop, first, last in blocks or ((0, None, 0, None),):
        left = rows[..., first:last].to(across.dtype).reshape(groups, channels * height, -1)
        right = matrices[:, :, first:last, start:stop].flatten(1, 2)
        parts.append(torch.bmm(*operands(left, right)))
    columns = parts[0] if len(parts) == 1 else torch.cat(parts, 2)
    return columns.view(groups, channels, height, -1)


def _stacked(columns: Tensor) -> Tensor:
    """``(g, c, h, Q)`` to ``(c, h * g, Q)``."""
    return columns.permute(1, 2, 0, 3).flatten(1, 2)
