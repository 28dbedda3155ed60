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
from .views import Views

Smooth = Union[None, int, Sequence[float]]


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
            "Expected smooth to be None, an odd kernel length in tokens, or a list of taps such as "
            f"[1, 2, 1], got {smooth!r}."
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
    """

    a_y: Tensor
    a_x: Tensor
    cover_y: Tensor
    cover_x: Tensor
    weights: Tensor
    coverage: Tensor
    rows: Tensor | None
    columns: Tensor | None

    def expand(self, cells: Tensor) -> Tensor:
        """``(..., R, Q)`` values of the distinct cells to ``(..., cells_y, cells_x)``."""
        if self.rows is not None:
            cells = cells.index_select(-2, self.rows)
        if self.columns is not None:
            cells = cells.index_select(-1, self.columns)
        return cells


_CACHE: OrderedDict[tuple, Alignment] = OrderedDict()
_CACHE_SIZE = 64


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
    cached = not torch.jit.is_tracing()  # type: ignore[attr-defined]
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
    matrices, covers, indices = [], [], []
    for axis in (0, 1):
        shifts = [t[axis] for t in views.translations]
        distinct, index = _distinct_cells(
            axis_matrices(tokens[axis], stride[axis], cell[axis], cells[axis], shifts)
        )
        matrices.append(distinct @ smoothing_matrix(tokens[axis], kernel))
        covers.append(distinct.sum(2))
        indices.append(index)
    weights = torch.tensor(views.weights, dtype=torch.float64)
    # A plain sum of products: einsum would follow autocast to half precision.
    coverage = (weights[:, None, None] * covers[0][:, :, None] * covers[1][:, None]).sum(0)
    exact = [*matrices, *covers, weights, coverage]
    # Counted before it is moved: a device may be slow to tell, or hold no numbers (meta).
    hidden = int((Alignment(*exact, *indices).expand(coverage) <= 0).sum())
    if hidden:
        raise ConfigError(
            f"Expected the views to show the whole image, but {hidden} of {cells[0] * cells[1]} "
            "output cells at the border are in none of them; add the view (0, 0) or one in the "
            "opposite direction."
        )
    return Alignment(
        *(t.to(dtype).to(device) for t in exact),
        *(None if i is None else i.to(device) for i in indices),
    )


def _distinct_cells(a: Tensor) -> tuple[Tensor, Tensor | None]:
    """Merge runs of neighbouring cells whose rows are the same in every view."""
    changed = (a[:, 1:] != a[:, :-1]).any(2).any(0)
    if bool(changed.all()):
        return a, None
    index = torch.cat([torch.zeros(1, dtype=torch.long), changed.long().cumsum(0)])
    first = torch.cat([torch.ones(1, dtype=torch.bool), changed])
    return a[:, first], index
