"""Views only until their mean is known well enough: each image leaves the batch when it is."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Callable

import torch
from torch import Tensor

from ..errors import ConfigError
from .accumulator import Accumulator, Aggregation, Leaf
from .chunks import run_views
from .statistics import MeanDispersion
from .views import Views

# Views between two looks at the error for view_batch="auto", on every device, so that it does not
# depend on the device how many views run.
_AUTO_ROUND = 2


def relative_standard_error(statistic: MeanDispersion, weights: Sequence[float]) -> Tensor:
    """How well the running mean over views is known, one number per image.

    The standard error of the mean, ``s / sqrt(n)`` with the sample standard deviation ``s`` over
    the ``n`` views so far, as root mean square over channels and positions; divided by the root
    mean square over channels and positions of what the mean deviates from its own mean over
    positions. Neither a factor common to all features nor a constant added to a channel changes it.
    Views at evenly spread phases err less than the figure says, which holds for random ones.

    Args:
        statistic: of the views so far.
        weights: theirs; unequal ones count as ``sum(w) ** 2 / sum(w ** 2)`` views.

    Returns:
        ``(B,)``: 0 where the views agree everywhere, infinite where some cell is in none of them
        or features are the same everywhere, NaN where they are not finite.
    """
    a, mean, m2 = statistic.alignment, statistic.mean.detach(), statistic.m2.detach()
    weight = statistic.weight
    share = _share(a.rows, mean.shape[-2], mean)[:, None] * _share(a.columns, mean.shape[-1], mean)
    views = sum(weights) ** 2 / sum(w * w for w in weights)
    error = (m2.mean(1) / weight * share).sum((-2, -1)) / (views - 1)
    centre = (mean * share).sum((-2, -1), keepdim=True)
    scale = ((mean - centre).square().mean(1) * share).sum((-2, -1))
    relative = torch.where(error == 0, 0.0, (error / scale).sqrt())
    return torch.where((weight > 0).all(), relative, math.inf)


def _share(index: Tensor | None, count: int, like: Tensor) -> Tensor:
    """Share of the output cells along an axis that each distinct cell stands for."""
    if index is None:
        return like.new_full((count,), 1 / count)
    return (index[:, None] == torch.arange(count, device=index.device)).to(like.dtype).mean(0)


class PerImage:
    """Aggregates the leaves of a batch image by image, as many views as each has.

    Attributes:
        views_used: how many views each image has.
    """

    def __init__(self, views: Views, how: Aggregation, images: int) -> None:
        self.how = how
        self.views_used = (0,) * images
        self._weights = views.weights
        spread = replace(how, dispersion=True)
        self._each = [Accumulator(views, spread) for _ in range(images)]

    def add(self, leaves: Sequence[Leaf], views: slice, images: Sequence[int]) -> None:
        """Add a chunk of views of some of the images."""
        for place, image in enumerate(images):
            own = [_of_image(leaf, place, len(images)) for leaf in leaves]
            self._each[image].add(own, views)
        used = dict.fromkeys(images, views.stop)
        self.views_used = tuple(used.get(i, n) for i, n in enumerate(self.views_used))

    def errors(self, images: Sequence[int]) -> list[float]:
        """The largest :func:`relative_standard_error` of any grid, for each of some images.

        Raises:
            ConfigError: there is no grid.
        """
        found = []
        for image in images:
            weights = self._weights[: self.views_used[image]]
            grids = [s for s in self._each[image].leaves if isinstance(s, MeanDispersion)]
            if not grids:
                raise ConfigError(
                    "Expected a token grid among the outputs with tolerance=, got image-level "
                    "tokens only, which tell no standard error over positions; leave tolerance "
                    "out, and limit the views with max_views."
                )
            found.append(torch.cat([relative_standard_error(s, weights) for s in grids]).max())
        every = torch.stack(found)
        # One transfer from the device for all; tensors on the meta device hold no numbers.
        return [math.inf] * len(found) if every.is_meta else every.tolist()

    def results(self) -> list[Tensor]:
        """One aggregated tensor per leaf, batch B, in the accumulation dtype."""
        for one, count in zip(self._each, self.views_used):
            one.end(count)
        return [torch.cat(parts) for parts in zip(*(one.results() for one in self._each))]

    def dispersions(self) -> list[Tensor]:
        """Standard deviation over its views of each grid leaf, where that was asked for."""
        if not self.how.dispersion:
            return []
        return [torch.cat(parts) for parts in zip(*(one.dispersions() for one in self._each))]


def _of_image(leaf: Leaf, place: int, images: int) -> Leaf:
    """The views of one image, ``(v, ...)``, of a leaf of several."""
    return replace(leaf, tensor=leaf.tensor.unflatten(0, (-1, images))[:, place])


def adaptive(
    run: Callable[[Tensor, slice], Sequence[Leaf]],
    images: Tensor,
    views: Views,
    how: Aggregation,
    tolerance: float,
    *,
    size: tuple[int, int] | None = None,
    padding: str = "replicate",
    view_batch: int | str = "auto",
) -> PerImage:
    """Run views of each image, in their order, until its relative standard error is below
    ``tolerance``; all of them with ``tolerance=0``.

    The error is looked at after every round of ``view_batch`` views, at least two
    (``"auto"``: two). Images that are done are left out of later rounds, so that ``run`` gets
    batches of ``v`` views of the others.

    The arguments are those of :func:`srt_plugins.core.ensemble.ensemble`.

    Raises:
        ConfigError: while a model is traced, or where there is no token grid.
    """
    if torch.jit.is_tracing():  # type: ignore[attr-defined]
        raise ConfigError(
            f"Expected tolerance=None while a model is traced, got {tolerance}: how many views "
            "an image needs is not known beforehand. Trace with max_views= instead."
        )
    gathered = PerImage(views, how, len(images))
    active = list(range(len(images)))
    step = _AUTO_ROUND if isinstance(view_batch, str) else max(2, int(view_batch))
    for start in range(0, len(views), step):
        some = slice(start, min(start + step, len(views)))

        def placed(chunk: Tensor, chosen: slice, start: int = start) -> Sequence[Leaf]:
            return run(chunk, _moved(chosen, start))

        for leaves, chosen in run_views(
            placed,
            images if len(active) == len(images) else images[active],
            views.part(some),
            size=size,
            padding=padding,
            view_batch=view_batch,
        ):
            gathered.add(leaves, _moved(chosen, start), active)
        if some.stop < len(views) and tolerance > 0:
            errors = gathered.errors(active)
            # Not `>=`, by which images whose features are NaN would be done.
            active = [image for image, error in zip(active, errors) if not error < tolerance]
        if not active:
            break
    return gathered


def _moved(chosen: slice, by: int) -> slice:
    return slice(chosen.start + by, chosen.stop + by)
