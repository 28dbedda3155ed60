"""Alignment as a separable linear map.

"Upsample a view's token grid to pixels (piecewise constant), translate it back, pool it to cells
of ``cell`` pixels" is ``A_y(dy) @ F @ A_x(dx).T``: row ``k`` of ``A_y(d)`` holds, for output cell
``k``, the share of its pixels that read token ``floor((y + d) / stride)`` (Lao et al., Sec. 3.2).
``cell == stride`` gives tokens again (two taps per axis, the paper's four neighbours), ``cell ==
1`` the pixel field. Row sums below one are missing coverage: pixels that the view does not show.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Integral
from typing import Union

import torch
from torch import Tensor

from ..errors import ConfigError
from .product import bands, in_place, is_tracing
from .views import Views

Smooth = Union[None, int, str, Sequence[float]]


def smoothing_kernel(smooth: Smooth) -> tuple[float, ...] | None:
    """Normalised taps of ``smooth=``: ``None``, an odd binomial length, or odd many taps.

    ``3`` is ``[1, 2, 1] / 4``, ``5`` is ``[1, 4, 6, 4, 1] / 16``; ``1`` smooths nothing.

    Raises:
        ConfigError: an even length, negative taps or taps that sum to nothing.
    """
    if smooth is None:
        return None
    if isinstance(smooth, Integral) and not isinstance(smooth, bool):
        smooth = int(smooth)
        if smooth < 1 or smooth % 2 == 0:
            raise ConfigError(
                f"Expected smooth to be an odd kernel length in tokens (3, 5, ...), got {smooth}."
            )
        taps = [float(math.comb(smooth - 1, k)) for k in range(smooth)]
    elif isinstance(smooth, (list, tuple)):
        try:
            taps = [float(t) for t in smooth]
        except (TypeError, ValueError):
            raise ConfigError(f"Expected smooth taps to be numbers, got {smooth!r}.") from None
        if len(taps) % 2 == 0 or min(taps) < 0 or not math.isfinite(sum(taps)) or sum(taps) <= 0:
            raise ConfigError(
                "Expected smooth to hold an odd number of taps >= 0 with a positive sum, such as "
                f"[1, 2, 1], got {smooth!r}."
            )
    else:
        raise ConfigError(
            "Expected smooth to be None, 'guided', an odd kernel length in tokens, or a list of "
            f"taps such as [1, 2, 1], got {smooth!r}."
        )
    total = sum(taps)
    return None if len(taps) == 1 else tuple(t / total for t in taps)


def smoothing_matrix(tokens: int, kernel: Sequence[float] | None) -> Tensor:
    """``(tokens, tokens)`` float64 matrix of a kernel, its rows renormalised at the border."""
    if kernel is None:
        return torch.eye(tokens, dtype=torch.float64)
    half = len(kernel) // 2
    matrix = torch.zeros(tokens, tokens, dtype=torch.float64)
    for offset, tap in zip(range(-half, half + 1), kernel):
        span = tokens - abs(offset)
        if span > 0:
            matrix.diagonal(offset).add_(tap)
    return matrix / matrix.sum(1, keepdim=True)


def axis_matrices(tokens: int, stride: int, cell: int, cells: int, shifts: Sequence[int]) -> Tensor:
    """One axis of the alignment.

    Args:
        tokens: tokens of a view along the axis.
        stride: pixels per token.
        cell: pixels per output cell.
        cells: output cells along the axis.
        shifts: translation of each view along the axis, in pixels.

    Returns:
        ``(len(shifts), cells, tokens)`` float64; a row sums to the covered share of its cell.
    """
    pixels = torch.arange(cells * cell)
    read = pixels + torch.tensor(list(shifts))[:, None]
    token = torch.div(read, stride, rounding_mode="floor")
    seen = (token >= 0) & (token < tokens)
    flat = (pixels // cell) * tokens + token.clamp(0, tokens - 1)
    matrices = torch.zeros(len(shifts), cells * tokens, dtype=torch.float64)
    matrices.scatter_add_(1, flat, seen.to(torch.float64) / cell)
    return matrices.view(len(shifts), cells, tokens)


# A block of one axis: output cells start to stop, and the tokens first to last that they read.
Block = tuple[int, int, int, int]


@dataclass(frozen=True)
class Alignment:
    """How every view of one token grid is put back in place, as two stacks of small matrices.

    Runs of neighbouring cells that read the same tokens in every view are computed once (``rows``
    and ``columns`` say where each output cell finds its value), so that fine strides cost little.

    Attributes:
        a_y: ``(n, R, h)`` and a_x ``(n, Q, w)``: view's tokens to distinct cells, float32/64.
        cover_y: ``(n, R)`` and cover_x ``(n, Q)``: covered share of each distinct cell.
        weights: ``(n,)``.
        coverage: ``(R, Q)``, summed weight of the views that show each distinct cell.
        rows: ``(cells_y,)`` index into R; columns ``(cells_x,)`` index into Q; None = identity.
        blocks_y: where ``a_y`` is not zero in any view; blocks_x, where ``a_x`` is not.
        shifts_y: translation of each view along y, in pixels.
        together: views whose tokens take as much memory as the distinct cells.
        in_parts: whether some view shows a part of some cell.
    """

    a_y: Tensor
    a_x: Tensor
    cover_y: Tensor
    cover_x: Tensor
    weights: Tensor
    coverage: Tensor
    rows: Tensor | None
    columns: Tensor | None
    blocks_y: tuple[Block, ...]
    blocks_x: tuple[Block, ...]
    shifts_y: tuple[int, ...]
    together: int
    in_parts: bool

    def expand(self, cells: Tensor, divisor: Tensor | None = None) -> Tensor:
        """``(..., R, Q)`` values of the distinct cells, over ``(R, Q)`` divisors, to
        ``(..., cells_y, cells_x)``.
        """
        if self.rows is None and self.columns is None:
            return cells if divisor is None else cells / divisor
        if not in_place(cells):
            cells = cells if divisor is None else cells / divisor
            return _spread(cells, self.rows, self.columns)
        flat = cells.flatten(0, -3) if cells.ndim > 3 else cells
        out = self.empty(flat)
        for band in bands(len(flat), out.shape[-2] * out.shape[-1], out.device):
            self.place(flat[band] if divisor is None else flat[band] / divisor, out[band])
        return out.view(*cells.shape[:-2], *out.shape[1:])

    def empty(self, like: Tensor) -> Tensor:
        """``(n, cells_y, cells_x)`` in the accumulation dtype, for the ``n`` of ``like``."""
        sides = (
            self.coverage.shape[axis] if index is None else len(index)
            for axis, index in enumerate((self.rows, self.columns))
        )
        return like.new_empty((len(like), *sides), dtype=self.coverage.dtype)

    def place(self, cells: Tensor, out: Tensor) -> None:
        """Write ``(n, R, Q)`` values of the distinct cells into ``out``, as :meth:`empty` makes."""
        # Columns before rows: whole rows are copied faster than single cells.
        if self.rows is None:
            out.copy_(_spread(cells, None, self.columns))
        else:
            torch.index_select(_spread(cells, None, self.columns), 1, self.rows, out=out)


def _spread(cells: Tensor, rows: Tensor | None, columns: Tensor | None) -> Tensor:
    if columns is not None:
        cells = cells.index_select(-1, columns)
    if rows is not None:
        cells = cells.index_select(-2, rows)
    return cells


_CACHE: OrderedDict[tuple, Alignment] = OrderedDict()
_CACHE_SIZE = 64
# Tokens along an axis per block of the alignment matrices, which are zero elsewhere.
_BLOCK_TOKENS = 6


def alignment(
    views: Views,
    tokens: tuple[int, int],
    stride: tuple[int, int],
    cell: tuple[int, int],
    cells: tuple[int, int],
    kernel: Sequence[float] | None = None,
    *,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
) -> Alignment:
    """The :class:`Alignment` of all views of a token grid (cached: it depends on sizes only).

    Args:
        views: translations in pixels, with weights.
        tokens: ``(h, w)`` of each view's grid.
        stride: pixels per token, per axis.
        cell: pixels per output cell, per axis.
        cells: ``(h', w')`` of the output.
        kernel: smoothing taps over tokens, applied to each view before it is aligned.

    Raises:
        ConfigError: some output cell is shown by no view.
    """
    key = (views, tokens, stride, cell, cells, tuple(kernel or ()), dtype, str(device))
    # While tracing, sizes are tensors, which no later call would find.
    cached = not is_tracing()
    if cached and key in _CACHE:
        _CACHE.move_to_end(key)
        return _CACHE[key]
    # Tensors made in inference mode could not be used with gradients later.
    with torch.inference_mode(False), torch.no_grad():
        made = _build(views, tokens, stride, cell, cells, kernel, dtype, torch.device(device))
    if cached:
        _CACHE[key] = made
    if len(_CACHE) > _CACHE_SIZE:
        _CACHE.popitem(last=False)
    return made


def _build(
    views: Views,
    tokens: tuple[int, int],
    stride: tuple[int, int],
    cell: tuple[int, int],
    cells: tuple[int, int],
    kernel: Sequence[float] | None,
    dtype: torch.dtype,
    device: torch.device,
) -> Alignment:
    matrices, covers, indices, blocks = [], [], [], []
    for axis in (0, 1):
        shifts = [t[axis] for t in views.translations]
        # A grid of 49 views has 7 shifts along each axis.
        once = sorted(set(shifts))
        few, index = _distinct_cells(
            axis_matrices(tokens[axis], stride[axis], cell[axis], cells[axis], once)
        )
        distinct = few[[once.index(shift) for shift in shifts]]
        matrices.append(distinct @ smoothing_matrix(tokens[axis], kernel))
        covers.append(distinct.sum(2))
        indices.append(index)
        blocks.append(_blocks(matrices[axis], device))
    weights = torch.tensor(views.weights, dtype=torch.float64)
    # A plain sum of products: einsum would follow autocast to half precision.
    coverage = (weights[:, None, None] * covers[0][:, :, None] * covers[1][:, None]).sum(0)
    # Counted before it is moved: a device may be slow to tell, or hold no numbers (meta).
    hidden = int((_spread(coverage, *indices) <= 0).sum())
    if hidden:
        raise ConfigError(
            f"Expected the views to show the whole image, but {hidden} of {cells[0] * cells[1]} "
            "output cells at the border are in none of them; add the view (0, 0) or one in the "
            "opposite direction."
        )
    a_y, a_x, cover_y, cover_x = (t.to(dtype).to(device) for t in (*matrices, *covers))
    rows, columns = (None if i is None else i.to(device) for i in indices)
    finer = coverage.numel() // max(1, tokens[0] * tokens[1])
    return Alignment(
        a_y=a_y,
        a_x=a_x,
        cover_y=cover_y,
        cover_x=cover_x,
        weights=weights.to(dtype).to(device),
        coverage=coverage.to(dtype).to(device),
        rows=rows,
        columns=columns,
        blocks_y=blocks[0],
        blocks_x=blocks[1],
        shifts_y=tuple(dy for dy, _ in views.translations),
        together=1 if is_tracing() else max(1, finer),
        in_parts=any(bool(((c > 0) & (c < 1)).any()) for c in covers),
    )


def _blocks(matrices: Tensor, device: torch.device) -> tuple[Block, ...]:
    """Where ``(n, cells, tokens)`` matrices are not zero, in blocks of cells.

    One block where that is faster than leaving zeros out: for about as many cells as tokens, and on
    accelerators.
    """
    cells, tokens = matrices.shape[1:]
    whole = ((0, cells, 0, tokens),)
    if is_tracing() or device.type != "cpu" or cells < 2 * tokens:
        return whole
    used = (matrices != 0).any(0)
    count = max(1, tokens // _BLOCK_TOKENS)
    edges = [cells * i // count for i in range(count + 1)]
    found = []
    for start, stop in zip(edges, edges[1:]):
        read = used[start:stop].any(0).nonzero()
        if len(read):
            found.append((start, stop, int(read[0]), int(read[-1]) + 1))
    return tuple(found)


def _distinct_cells(a: Tensor) -> tuple[Tensor, Tensor | None]:
    """Merge runs of neighbouring cells whose rows are the same in every view."""
    changed = (a[:, 1:] != a[:, :-1]).any(2).any(0)
    if bool(changed.all()):
        return a, None
    index = torch.cat([torch.zeros(1, dtype=torch.long), changed.long().cumsum(0)])
    first = torch.cat([torch.ones(1, dtype=torch.bool), changed])
    return a[:, first], index
