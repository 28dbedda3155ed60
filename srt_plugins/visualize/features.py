"""Features of a backbone to be looked at: of the plain image, and ensembled by SRT."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from ..core.accumulator import Accumulator, Aggregation, Grid
from ..core.cells import output_cell
from ..core.ensemble import ensemble
from ..core.guided import Smoother
from ..core.views import Views
from ..errors import ConfigError
from ..settings import Settings
from ..state import chosen_views
from .basis import Basis
from .tokens import Tokens, reading


@dataclass(frozen=True, eq=False)
class Map:
    """Features over images. Cell (i, j) covers the pixels from ``(i * sy, j * sx)`` on; there are
    as many cells as begin inside the images, of which the last may reach beyond.

    Attributes:
        values: ``(B, K, h, w)`` float32 on the CPU.
        stride: pixels per cell, (sy, sx).
        dispersion: how much views disagree, ``(B, 1, h', w')`` per token: the root mean square over
            all channels of the standard deviation over views; None where it was not asked for.
        size: ``(H, W)`` of the images.
        token_stride: pixels per token, (y, x), also those of ``dispersion``.
        foreground: ``(B, h, w)`` bool where the basis tells it, else None.
        views_used: how many views each image has; 1 for plain features.
    """

    values: Tensor
    stride: tuple[int, int]
    dispersion: Tensor | None
    size: tuple[int, int]
    token_stride: tuple[int, int]
    foreground: Tensor | None = None
    views_used: tuple[int, ...] = ()

    def at_pixels(self) -> Map:
        """The same with a cell for every pixel, exactly as large as the images."""
        values, front, spread = (
            _repeated(t, stride, self.size)
            for t, stride in (
                (self.values, self.stride),
                (self.foreground, self.stride),
                (self.dispersion, self.token_stride),
            )
        )
        assert values is not None
        return replace(
            self,
            values=values,
            stride=(1, 1),
            dispersion=spread,
            token_stride=(1, 1),
            foreground=front,
        )


class Features:
    """Features at one place of a backbone.

    Images of any size are taken: partial patches at the bottom and the right are completed with
    pixels from beyond the edge (``Settings.padding``; plain: the edge itself), also where the
    backbone would leave them out. The model is left as it was found.

    Args:
        backbone: not wrapped; any that an adapter knows, or whose outputs are ``(B, D, h, w)``.
        layer: a block index or module path, whose tokens are looked at; None = an output.
        output: index or name of the output; None = the last one as fine as the blocks' tokens.

    Raises:
        ConfigError: a wrapped backbone, an unknown layer, or both layer and output.
        AdapterError: a backbone without token grids.
    """

    def __init__(
        self,
        backbone: nn.Module,
        layer: int | str | None = None,
        output: int | str | None = None,
    ) -> None:
        self.tokens = Tokens(backbone, layer, output)

    def plain(self, images: Tensor, basis: Basis | None = None) -> Map:
        """One forward, without SRT.

        Args:
            images: ``(B, C, H, W)``, normalised, on the backbone's device.
            basis: what to project on; None = all D channels.
        """
        with reading(self.tokens.backbone):
            self.tokens.prepare(images)
            grid = self.tokens(self.tokens.completed(images))
            values = _shown(grid.tensor, basis)
        return _map(values, grid.stride, grid.stride, images, basis, (1,) * len(images))

    def ensembled(self, images: Tensor, settings: Settings, basis: Basis | None = None) -> Map:
        """Features ensembled over views: pixel features with ``stride=1``.

        With a basis, the tokens of each view are projected before they are aggregated, so that
        memory is that of K channels, not of D. For the mean that is exact, however it is smoothed,
        for mean and projection are linear. The median is then the median of the projections, which
        is another field than the projection of the median; both are the same features in the same
        colours.

        Dispersion and tolerance are those of all D channels per token, from the same forwards.

        Args:
            images: ``(B, C, H, W)``, normalised, on the backbone's device.
            settings: of SRT; ``stride=None`` gives cells of a token. ``layer`` and ``outputs`` are
                those of this object, and so None in the settings.
            basis: what to project on; None = all D channels, ``B * D * H * W`` numbers at stride 1.

        Raises:
            ConfigError: settings that do not fit the backbone or the images.
        """
        _check(settings)
        with reading(self.tokens.backbone):
            self.tokens.prepare(images)
            views = chosen_views(settings, self.tokens.patch, quiet=True)
            # With a tolerance every image has views of its own.
            parts = images.split(1) if settings.tolerance is not None else (images,)
            return _joined([self._ensembled(part, settings, views, basis) for part in parts])

    def _ensembled(
        self, images: Tensor, settings: Settings, views: Views, basis: Basis | None
    ) -> Map:
        how = replace(settings.aggregation(), dispersion=False)
        spread = settings.dispersion or settings.tolerance is not None
        # Of all channels, at tokens: what views disagree by there does not depend on what is shown.
        per_token = Aggregation("mean", True, None, how.kernel) if spread else how
        twice = spread and (basis is not None or how != replace(per_token, dispersion=False))
        kept: dict[int, Tensor] = {}
        strides: list[tuple[int, int]] = []

        def leaves(chunk: Tensor, chosen: slice) -> list[Grid]:
            grid = self.tokens(chunk)
            strides[:] = [grid.stride]
            leaf = replace(grid, crop=_cells(images, grid.stride))
            if twice:
                # By view, since those of a chunk that runs out of memory come again.
                each = _shown(grid.tensor, basis).unflatten(0, (-1, len(images)))
                kept.update((chosen.start + i, view.clone()) for i, view in enumerate(each))
            return [leaf if spread else replace(leaf, tensor=_shown(grid.tensor, basis))]

        gathered = ensemble(
            leaves,
            images,
            views,
            per_token,
            size=self.tokens.view_size(images),
            padding=settings.padding,
            view_batch=settings.view_batch,
            tolerance=settings.tolerance,
        )
        stride, used = strides[0], gathered.views_used
        values = gathered.results()[0] if not twice else None
        dispersion = None
        if settings.dispersion:
            dispersion = gathered.dispersions()[0].square().mean(1, keepdim=True).sqrt()
        del gathered
        if values is None:
            again = Accumulator(views.first(used[0]), how)
            for i in range(used[0]):
                leaf = Grid(kept.pop(i), stride, _cells(images, stride))
                again.add([leaf], slice(i, i + 1))
            values = again.results()[0]
        if how.guided is not None:
            values = Smoother(how.guided, images, how.stride, views.is_identity)(values, stride[0])
        cell = (output_cell(stride[0], how.stride), output_cell(stride[1], how.stride))
        return _map(values, cell, stride, images, basis, used, dispersion)


def _check(settings: Settings) -> None:
    if settings.layer is not None or settings.outputs is not None:
        raise ConfigError(
            f"Expected settings with layer=None and outputs=None, got layer={settings.layer!r} and "
            f"outputs={settings.outputs!r}: features are ensembled where they are looked at. Use "
            "Features(backbone, layer=...) and settings.but(layer=None, outputs=None)."
        )
    if settings.group is not None:
        raise ConfigError(
            "Expected settings with group=None: views of features that are looked at are not "
            "shared among processes. Share the images, and use settings.but(group=None)."
        )


def _shown(tokens: Tensor, basis: Basis | None) -> Tensor:
    return tokens if basis is None else basis.scores(tokens)


def _cells(images: Tensor, stride: tuple[int, int]) -> tuple[int, int]:
    """How many cells of a size begin inside the images."""
    height, width = images.shape[-2:]
    return (-(-height // stride[0]), -(-width // stride[1]))


def _map(
    values: Tensor,
    stride: tuple[int, int],
    token_stride: tuple[int, int],
    images: Tensor,
    basis: Basis | None,
    used: tuple[int, ...],
    dispersion: Tensor | None = None,
) -> Map:
    h, w = _cells(images, stride)
    found = values[..., :h, :w].to("cpu", torch.float32)
    shown, front = (found, None) if basis is None else basis.split(found)
    return Map(
        values=shown.contiguous(),
        stride=stride,
        dispersion=None if dispersion is None else dispersion.to("cpu", torch.float32),
        size=(int(images.shape[-2]), int(images.shape[-1])),
        token_stride=token_stride,
        foreground=front,
        views_used=used,
    )


def _joined(maps: Sequence[Map]) -> Map:
    """Maps of images of one size as one."""
    if len(maps) == 1:
        return maps[0]

    def every(parts: list[Tensor | None]) -> Tensor | None:
        found = [part for part in parts if part is not None]
        return torch.cat(found) if found else None

    values = torch.cat([m.values for m in maps])
    return replace(
        maps[0],
        values=values,
        dispersion=every([m.dispersion for m in maps]),
        foreground=every([m.foreground for m in maps]),
        views_used=tuple(n for m in maps for n in m.views_used),
    )


def _repeated(
    cells: Tensor | None, stride: tuple[int, int], size: tuple[int, int]
) -> Tensor | None:
    """Each cell at all its pixels, as far as the images go."""
    if cells is None or stride == (1, 1):
        return cells
    rows, columns = (
        torch.arange(pixels).div(step, rounding_mode="floor") for pixels, step in zip(size, stride)
    )
    return cells.index_select(-1, columns).index_select(-2, rows)
