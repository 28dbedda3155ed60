"""A colour space of features: their principal components, the same for every picture."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import torch
from torch import Tensor

from ..core.product import no_autocast, operands
from ..core.statistics import accumulation_dtype
from ..errors import ConfigError
from ..evaluation.files import check_file, replacing
from .moments import Moments, Sample, is_background, leading, otsu, projected

# Colours go from the lower to the upper of these quantiles of the projections.
_QUANTILES = (0.02, 0.98)
# A component is turned by its third moment where that reaches this share of the cubed deviation;
# below it the sign would hang on rounding.
_SKEWED = 1e-3
# What files hold, besides threshold and front.
_ARRAYS = ("mean", "components", "low", "high")


@dataclass(frozen=True, eq=False)
class Basis:
    """Principal components of features, and the range of each that colours show.

    Made once and used for every picture, the same feature has the same colour in all of them.

    Attributes:
        mean: ``(D,)`` float64, of the tokens that the components were fitted to.
        components: ``(K, D)`` float64, orthonormal, by descending variance. A component without
            variance (constant features, fewer tokens or channels than components) is zero, and mid
            grey in pictures.
        low: ``(K,)`` float64, projection that is shown darkest: the 2 % quantile.
        high: ``(K,)`` float64, projection that is shown brightest: the 98 % quantile.
        front: ``(D,)`` float64, direction that tells foreground from background; None = not asked.
        threshold: features ``f`` with ``front @ (f - mean)`` above it are foreground.
    """

    mean: Tensor
    components: Tensor
    low: Tensor
    high: Tensor
    front: Tensor | None = None
    threshold: float = 0.0

    @classmethod
    def fit(
        cls, grids: Iterable[Tensor], components: int = 3, without_background: bool = False
    ) -> Basis:
        """Exact principal components of all tokens of some grids.

        Means and covariance are gathered in float64, grid by grid, so that any number of frames
        fits in memory. Quantiles, signs and the foreground come from the tokens themselves: all up
        to 256 MiB of them, beyond that a random sample of as many, the same in every run.

        The sign of a component is the one that makes the third moment of its projections positive
        (the longer tail is bright), or, where they are not skewed, its largest loading. Of 29 pairs
        of consecutive CamVid images, fitted one by one, no component was turned over by it; by the
        largest loading alone five were.

        Args:
            grids: ``(B, D, h, w)`` each, of any dtype and size; read once. One is taken as well.
            components: K.
            without_background: fit to the foreground alone, as DINOv2's authors do for their
                pictures (Oquab et al., TMLR 2024, Sec. 7.5). The first component of all tokens is
                cut in two where that separates best (Otsu 1979). Foreground is the part that is
                rarer at the border of the grids than inside them; the smaller part, where both are
                equally frequent there.

        Raises:
            ConfigError: no tokens, grids of different channels, or features that are not finite.
        """
        if isinstance(components, bool) or not isinstance(components, int) or components < 1:
            raise ConfigError(f"Expected components to be an integer >= 1, got {components!r}.")
        moments, sample = Moments(), Sample()
        for i, grid in enumerate([grids] if isinstance(grids, Tensor) else grids):
            _check_grid(grid, f"grids[{i}]", moments.channels)
            for image in grid.detach().unbind():
                moments.add(image.flatten(1).T)
                sample.add(image)
        if not moments.count:
            raise ConfigError("Expected grids to hold at least one token grid, got none.")
        tokens, border = sample.tokens(), sample.border()
        if not without_background:
            return _turned(moments, tokens, components)
        first = leading(moments, 1)[0]
        scores = projected(tokens, moments.mean, first[None])[:, 0]
        cut = otsu(scores)
        above = scores > cut
        if is_background(above, border):
            first, cut, above = -first, -cut, ~above
        if not bool(first.any()):  # constant features, which have no background
            cut, above = -1.0, torch.ones_like(above)
        kept = tokens[above]
        inside = Moments()
        inside.add(kept)
        basis = _turned(inside, kept, components)
        threshold = cut - float(first @ (basis.mean - moments.mean))
        return cls(basis.mean, basis.components, basis.low, basis.high, first, threshold)

    def project(self, grid: Tensor) -> Tensor:
        """``(B, D, h, w)`` features to ``(B, K, h, w)`` projections, in float32 (float64 for
        float64).

        Linear but for a constant, so that the projection of a mean over views is the mean of
        their projections. (Of a median it is not: the median of projections is another field.)

        Raises:
            ConfigError: features of other than D channels.
        """
        return self._scores(grid, self.components)

    def scores(self, grid: Tensor) -> Tensor:
        """What :meth:`split` takes: projections, with one more channel where there is ``front``."""
        front = [] if self.front is None else [self.front[None]]
        return self._scores(grid, torch.cat([self.components, *front]))

    def split(self, scores: Tensor) -> tuple[Tensor, Tensor | None]:
        """Scores ``(B, K or K + 1, h, w)``, or means of them over views, as projections
        ``(B, K, h, w)`` and foreground ``(B, h, w)``, None where it was not asked for.
        """
        count = len(self.components)
        if self.front is None:
            return scores, None
        return scores[:, :count], scores[:, count] > self.threshold

    def foreground(self, grid: Tensor) -> Tensor:
        """Whether each token of ``(B, D, h, w)`` is foreground, ``(B, h, w)`` bool.

        Raises:
            ConfigError: the basis was fitted with the background, or other channels than D.
        """
        if self.front is None:
            raise ConfigError(
                "Expected a basis that tells foreground from background, got one that was fitted "
                "to all tokens; fit it with without_background=True."
            )
        return self._scores(grid, self.front[None])[:, 0] > self.threshold

    def colours(self, projected: Tensor, foreground: Tensor | None = None) -> np.ndarray:
        """Projections ``(K, h, w)`` as a picture ``(h, w, 3)`` uint8, clipped to the range.

        Three components are red, green and blue, one is grey.

        Args:
            foreground: ``(h, w)`` bool, black where False; None = all is shown.

        Raises:
            ConfigError: other than one or three components, or values that are not finite.
        """
        count = len(self.components)
        if projected.ndim != 3 or projected.shape[0] != count or count not in (1, 3):
            raise ConfigError(
                f"Expected projections (K, h, w) on one or three components to colour, got "
                f"{tuple(projected.shape)} for a basis of {count}; fit it with components=3."
            )
        low, high = (v.to(torch.float32) for v in (self.low, self.high))
        shade = projected.detach().to("cpu", torch.float32, copy=True)
        if not bool(torch.isfinite(shade).all()):
            raise ConfigError(
                "Expected finite projections to colour, got NaN or infinite ones; look for values "
                "that are not finite in the image or the weights, or run without half precision."
            )
        for channel, a, b in zip(shade, low.tolist(), high.tolist()):
            if b > a:
                channel.sub_(a).mul_(255 / (b - a)).clamp_(0, 255)
            else:
                channel.fill_(127.5)
        picture = shade.add_(0.5).to(torch.uint8).permute(1, 2, 0).expand(-1, -1, 3).contiguous()
        if foreground is not None:
            picture[~foreground.cpu()] = 0
        return picture.numpy()

    def save(self, path: str | Path) -> None:
        """Write the basis to a file (NumPy's npz), whole or not at all."""
        arrays = {name: getattr(self, name) for name in _ARRAYS}
        arrays["threshold"] = torch.tensor(self.threshold, dtype=torch.float64)
        if self.front is not None:
            arrays["front"] = self.front
        with replacing(path) as part, open(part, "wb") as file:
            named: Any = {name: value.numpy() for name, value in arrays.items()}
            np.savez(file, **named)

    @classmethod
    def load(cls, path: str | Path) -> Basis:
        """Read what :meth:`save` wrote.

        Raises:
            ConfigError: no such file, or not one of a basis.
        """
        check_file("basis", path)
        try:
            with np.load(path, allow_pickle=False) as file:
                found = {n: torch.from_numpy(file[n]).to(torch.float64) for n in file.files}
            mean, components, low, high = (found[n] for n in _ARRAYS)
            threshold = float(found["threshold"])
            made = cls(mean, components, low, high, found.get("front"), threshold)
            shapes = made.components.shape, made.mean.shape, made.low.shape, made.high.shape
            count, channels = shapes[0]
            good = shapes[1:] == ((channels,), (count,), (count,))
            good &= made.front is None or made.front.shape == (channels,)
        except (OSError, ValueError, KeyError, TypeError, AttributeError, BadZipFile) as error:
            good, cause = False, f" ({type(error).__name__})"
        else:
            cause = ""
        if not good:
            raise ConfigError(
                f"Expected {path} to be a basis that Basis.save wrote, got another kind of file"
                f"{cause}; fit it anew and save it."
            )
        return made

    def _scores(self, grid: Tensor, rows: Tensor) -> Tensor:
        """``rows @ (grid - mean)`` at every position."""
        if grid.ndim != 4 or grid.shape[1] != len(self.mean):
            raise ConfigError(
                f"Expected features (B, {len(self.mean)}, h, w), as the basis was fitted to, got "
                f"{tuple(grid.shape)}; fit a basis to features of this layer of this model."
            )
        with no_autocast(grid.device.type):
            wide = grid.to(accumulation_dtype(grid.dtype))
            # Taken off first: channels may have means far larger than their spread.
            centred = (wide - self.mean.to(wide.dtype).to(wide.device)[:, None, None]).flatten(2)
            rows = rows.to(wide.dtype).to(wide.device).expand(len(grid), -1, -1)
            left, right = operands(rows, centred)
            return torch.bmm(left, right).unflatten(2, grid.shape[2:])


def _check_grid(grid: Tensor, name: str, channels: int | None) -> None:
    if not isinstance(grid, Tensor) or grid.ndim != 4 or not grid.is_floating_point():
        shape = tuple(getattr(grid, "shape", ()))
        raise ConfigError(
            f"Expected {name} to be features (B, D, h, w), got {type(grid).__name__} {shape}."
        )
    if channels is not None and grid.shape[1] != channels:
        raise ConfigError(
            f"Expected {name} to have {channels} channels, as those before it, got "
            f"{grid.shape[1]}; fit to features of one layer of one model."
        )
    if not bool(torch.isfinite(grid).all()):
        raise ConfigError(
            f"Expected finite features, got NaN or infinite ones in {name}; look for values that "
            "are not finite in the image or the weights, or run in float32 or bfloat16 instead of "
            "float16."
        )


def _turned(moments: Moments, tokens: Tensor, count: int) -> Basis:
    """The leading components with their signs and ranges."""
    components = leading(moments, count)
    scores = projected(tokens, moments.mean, components)
    third, size = scores.pow(3).mean(0), scores.square().mean(0).pow(1.5)
    largest = components.gather(1, components.abs().argmax(1, keepdim=True))[:, 0]
    skewed = third.abs() > _SKEWED * size
    sign = torch.where(torch.where(skewed, third, largest) < 0, -1.0, 1.0).to(torch.float64)
    scores *= sign
    low, high = torch.from_numpy(np.quantile(scores.numpy(), _QUANTILES, axis=0))
    flat = high <= low  # almost all alike
    low = torch.where(flat, scores.amin(0), low)
    high = torch.where(flat, scores.amax(0), high)
    return Basis(moments.mean.clone(), components * sign[:, None], low, high)
