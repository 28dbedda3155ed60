"""What to judge by where there are no labels: what a model sees in views that no candidate has.

Agreement of predictions alone rewards smoothing: a constant agrees with itself. So the reference is
not smoothed, and its views are independent of those of candidates as far as one model allows: the
image is enlarged, translated and, in every second view, mirrored. A candidate scores by how often
its prediction at a pixel is what the reference says there; one that smooths detail away scores
less, for the reference sees finer tokens than any candidate does. docs/tuning.md has how far such
choices are from those by labels.
"""

from __future__ import annotations

from torch import Tensor

from ..core.views import Views
from .methods import Inference, Method, larger_input, output_ensemble

# By how much the image is enlarged per side.
SCALE = 1.5


def reference(patch: int) -> Method:
    """The plain model on four views of the enlarged image, its logits (or depth) averaged.

    Args:
        patch: pixels; views are moved by a quarter of it, and sides are whole patches.
    """
    quarter = max(1, patch // 4)
    moved = tuple((dy, dx) for dy in (quarter, -quarter) for dx in (quarter, -quarter))
    ensemble = output_ensemble(Views(moved, (0.25,) * 4, (False, True, True, False)), view_batch=1)
    larger = larger_input(SCALE, patch)

    def method(inference: Inference, inputs: Tensor, metas: list) -> Tensor:
        return larger(lambda images, of: ensemble(inference, images, of), inputs, metas)

    return method
