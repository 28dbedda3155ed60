"""Collecting the calibration of a run, image by image, as its outputs come."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from torch import Tensor

from .calibration import CONFIDENCE, DEPTH, DISPERSION, ImageCalibration, image_calibration
from .calibration_rows import Calibration
from .rows import Row


class Collected:
    """The calibration of the images of a run.

    Attributes:
        spread: what the views of a rival disagreed by in the last call of the model, ``(B, 1, H,
            W)``; empty for none.
    """

    def __init__(self) -> None:
        self.spread: list[Tensor] = []
        self._images: list[ImageCalibration] = []

    def start(self) -> None:
        """Before a run."""
        self.spread.clear()
        self._images = []

    def told(self, spread: Tensor) -> None:
        """Take what a rival's views disagree by."""
        self.spread[:] = [spread]

    def add(
        self,
        error: Any,
        judged: Any,
        confidence: Tensor | None,
        dispersion: Tensor | None,
        root: bool = False,
        depth: Any = None,
    ) -> None:
        """Add an image.

        Args:
            error: of every pixel ``(H, W)``, or of the judged ones ``(P,)``: 0 or 1, or with
                ``root`` its squared error.
            judged: which pixels count, ``(H, W)`` bool.
            confidence: 1 - the largest probability, ``(H, W)``; None for none.
            dispersion: ``(H, W)``; None for none.
            root: figures are those of the RMSE.
            depth: predicted one, ``(H, W)``, where it is depth that is predicted.
        """
        mask = _array(judged).astype(bool)
        errors = _array(error)
        uncertainties = {CONFIDENCE: confidence, DEPTH: depth, DISPERSION: dispersion}
        self._images.append(
            image_calibration(
                errors[mask] if errors.ndim == 2 else errors,
                {n: None if v is None else _array(v)[mask] for n, v in uncertainties.items()},
                root,
            )
        )

    def result(self) -> Calibration:
        """The calibration of the images since :meth:`start`."""
        return Calibration(self._images)


def with_dispersion(row: Row) -> Row:
    """A row whose views' dispersion is kept, where there are several and it can be."""
    settings = row.settings
    if row.method != "srt" or row.views < 2 or settings is None or settings.statistic != "mean":
        return row
    return replace(row, settings=settings.but(dispersion=True))


def _array(value: Any) -> np.ndarray:
    if isinstance(value, Tensor):
        value = value.detach().cpu().numpy()
    return np.asarray(value)
