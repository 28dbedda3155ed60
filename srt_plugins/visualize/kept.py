"""Token grids of views that are kept, to be aggregated later: once more, or a few channels at a
time.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor

from ..core.accumulator import Accumulator, Aggregation, Grid
from ..core.cells import output_cell
from ..core.guided import Smoother
from ..core.views import Views
from .maps import Size, cells_of, size_of


@dataclass
class Kept:
    """Token grids of the views of some images, to be aggregated in several ways.

    Attributes:
        images: ``(B, C, H, W)``.
        views: of which these are the tokens.
        stride: pixels per token.
        tokens: by view, ``(B, D, h, w)``.
    """

    images: Tensor
    views: Views
    stride: Size = (1, 1)
    tokens: dict[int, Tensor] = field(default_factory=dict)

    def put(self, tokens: Tensor, stride: Size, chosen: slice) -> None:
        """Keep the tokens of a chunk of views; one that ran out of memory comes again."""
        self.stride = stride
        each = tokens.unflatten(0, (-1, len(self.images)))
        # Copies: a backbone may write its next output to the same place.
        self.tokens.update((chosen.start + i, view.clone()) for i, view in enumerate(each))

    def aggregated(self, how: Aggregation, count: int, channels: slice = slice(None)) -> Tensor:
        """The first ``count`` views aggregated, smoothed along the images where that is asked for,
        ``(B, C, h, w)``.
        """
        accumulator = Accumulator(self.views.first(count), how)
        for i in range(count):
            crop = cells_of(size_of(self.images), self.stride)
            leaf = Grid(self.tokens[i][:, channels], self.stride, crop)
            accumulator.add([leaf], slice(i, i + 1))
        return smoothed(accumulator.results()[0], how, self.images, self.views, self.stride)


def cell_of(stride: Size, asked: int | None) -> Size:
    """Pixels per output cell where ``asked`` were asked for."""
    return (output_cell(stride[0], asked), output_cell(stride[1], asked))


def smoothed(
    values: Tensor, how: Aggregation, images: Tensor, views: Views, stride: Size
) -> Tensor:
    """Aggregated values smoothed along the images, where that is asked for."""
    if how.guided is None:
        return values
    return Smoother(how.guided, images, how.stride, views.is_identity)(values, stride[0])
