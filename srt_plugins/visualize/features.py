"""Features of a backbone to be looked at: of the plain image, and ensembled by SRT."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from ..core.accumulator import Aggregation, Grid
from ..core.ensemble import Gathered, ensemble
from ..core.views import Views
from ..errors import ConfigError
from ..settings import Settings
from ..state import chosen_views
from .basis import Basis
from .kept import Kept, cell_of, smoothed
from .maps import Map, Size, cells_of, joined, size_of
from .tokens import Tokens, reading

__all__ = ["Features", "Map"]


class Features:
    """Features at one place of a backbone.

    Images of any size are taken: partial patches at the bottom and the right are completed by
    ``padding``, also where the backbone would leave them out or fill them with zeros. The model is
    left as it was found.

    Args:
        backbone: not wrapped; any that an adapter knows, or whose outputs are ``(B, D, h, w)``.
        layer: a block index or module path, whose tokens are looked at; None = an output.
        output: index or name of the output; None = the last one as fine as the last block's tokens.

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

    def plain(self, images: Tensor, basis: Basis | None = None, padding: str = "replicate") -> Map:
        """One forward, without SRT.

        Args:
            images: ``(B, C, H, W)``, normalised, on the backbone's device.
            basis: what to project on; None = all D channels.
            padding: how partial patches are completed, as ``Settings.padding``.

        Raises:
            ConfigError: no such images. AdapterError: the backbone returned no token grid.
        """
        with reading(self.tokens.backbone):
            self.tokens.prepare(images)
            grid = self.tokens(self.tokens.completed(images, padding))
            shown = _projected(grid.tensor, basis)
        return _map(shown, grid.stride, grid.stride, size_of(images), basis, (1,) * len(images))

    def ensembled(self, images: Tensor, settings: Settings, basis: Basis | None = None) -> Map:
        """Features ensembled over views: pixel features with ``stride=1``.

        With a basis, the tokens of each view are projected before they are aggregated, so that
        memory is that of K channels, not of D. For the mean that is exact, however it is smoothed,
        for mean and projection are linear. The median is then the median of the projections, which
        is another field than the projection of the median.

        Dispersion and tolerance are those of all D channels per token, from the same forwards.

        Args:
            images: ``(B, C, H, W)``, normalised, on the backbone's device.
            settings: of SRT; ``stride=None`` gives cells of a token. ``layer`` and ``outputs`` are
                those of this object, and so None in the settings.
            basis: what to project on; None = all D channels, ``B * D * H * W`` numbers at stride 1.

        Raises:
            ConfigError: settings that do not fit the backbone or the images.
        """
        how = replace(settings.aggregation(), dispersion=False)
        spread = settings.dispersion or settings.tolerance is not None
        per_token = Aggregation("mean", True, None, how.kernel)
        # What views disagree by does not depend on what is shown of them, nor on its cells.
        again = spread and (basis is not None or how != replace(per_token, dispersion=False))
        maps = []
        with reading(self.tokens.backbone):
            for part, views in self._parts(images, settings):
                kept = Kept(part, views) if again else None
                gathered = self._gathered(
                    part, settings, views, per_token if spread else how, basis, kept
                )
                stride, used = self.tokens.stride, gathered.views_used
                dispersion = None
                if settings.dispersion:
                    each = gathered.dispersions()[0]
                    dispersion = each.square().mean(1, keepdim=True).sqrt()
                if kept is None:
                    values = smoothed(gathered.results()[0], how, part, views, stride)
                else:
                    del gathered
                    values = kept.aggregated(how, used[0])
                cell = cell_of(stride, how.stride)
                maps.append(_map(values, cell, stride, size_of(images), basis, used, dispersion))
        return joined(maps)

    def kept(self, images: Tensor, settings: Settings) -> list[tuple[Kept, int]]:
        """The token grids of every view, all D channels, and how many views there are: for all
        images at once, or one by one with a tolerance, by which views differ.
        """
        spread = settings.tolerance is not None
        how = Aggregation("mean", True, None, settings.aggregation().kernel) if spread else None
        found = []
        with reading(self.tokens.backbone):
            for part, views in self._parts(images, settings):
                kept = Kept(part, views)
                gathered = self._gathered(part, settings, views, how, None, kept)
                found.append((kept, gathered.views_used[0]))
        return found

    def views(self, settings: Settings) -> Views:
        """The views that the settings mean for this backbone.

        Raises:
            ConfigError: settings that cannot be used here.
        """
        if settings.layer is not None or settings.outputs is not None:
            raise ConfigError(
                f"Expected settings with layer=None and outputs=None, got layer={settings.layer!r} "
                f"and outputs={settings.outputs!r}: features are ensembled where they are looked "
                "at. Use Features(backbone, layer=...) and settings.but(layer=None, outputs=None)."
            )
        if settings.group is not None:
            raise ConfigError(
                "Expected settings with group=None: views of features that are looked at are not "
                "shared among processes. Share the images, and use settings.but(group=None)."
            )
        return chosen_views(settings, self.tokens.patch, quiet=True)

    def _parts(self, images: Tensor, settings: Settings) -> list[tuple[Tensor, Views]]:
        self.tokens.prepare(images)
        views = self.views(settings)
        # With a tolerance every image has views of its own.
        parts = images.split(1) if settings.tolerance is not None else (images,)
        return [(part, views) for part in parts]

    def _gathered(
        self,
        images: Tensor,
        settings: Settings,
        views: Views,
        how: Aggregation | None,
        basis: Basis | None,
        kept: Kept | None,
    ) -> Gathered:
        """Run the views.

        Args:
            how: what to make of their tokens; None = nothing.
            basis: what to project tokens on, those in ``kept`` where there is one.
            kept: where to put the tokens as well.
        """

        def leaves(chunk: Tensor, chosen: slice) -> list[Grid]:
            grid = self.tokens(chunk)
            shown = _projected(grid.tensor, basis)
            if kept is not None:
                kept.put(shown, grid.stride, chosen)
                shown = grid.tensor
            cropped = Grid(shown, grid.stride, cells_of(size_of(images), grid.stride))
            return [] if how is None else [cropped]

        return ensemble(
            leaves,
            images,
            views,
            how or Aggregation(),
            size=self.tokens.view_size(images),
            padding=settings.padding,
            view_batch=settings.view_batch,
            tolerance=settings.tolerance,
        )


def _projected(tokens: Tensor, basis: Basis | None) -> Tensor:
    return tokens if basis is None else basis.scores(tokens)


def _map(
    values: Tensor,
    stride: Size,
    token_stride: Size,
    size: Size,
    basis: Basis | None,
    used: tuple[int, ...],
    dispersion: Tensor | None = None,
) -> Map:
    h, w = cells_of(size, stride)
    found = values[..., :h, :w].detach().to("cpu", torch.float32)
    shown, front = (found, None) if basis is None else basis.split(found)
    return Map(
        values=shown.contiguous(),
        stride=stride,
        dispersion=None if dispersion is None else dispersion.to("cpu", torch.float32),
        size=size,
        token_stride=token_stride,
        foreground=front,
        views_used=used,
    )
