"""Sizes of output cells."""

from __future__ import annotations

from ..errors import ConfigError


def output_cell(grid_stride: int, stride: int | None) -> int:
    """Pixels per output cell of a grid: its own stride, or ``stride`` where that is finer.

    Raises:
        ConfigError: ``stride`` does not divide the grid's stride.
    """
    if stride is None or stride >= grid_stride:
        return grid_stride
    if grid_stride % stride:
        divisors = [d for d in range(1, grid_stride + 1) if grid_stride % d == 0]
        raise ConfigError(
            f"Expected stride to divide the patch stride {grid_stride}, got {stride}; "
            f"choose one of {divisors}."
        )
    return stride
