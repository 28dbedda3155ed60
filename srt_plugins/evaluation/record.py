"""A comparison as plain values, for JSON."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from .rows import keywords

if TYPE_CHECKING:
    from .figure import MainFigure
    from .results import Result, Score


def readings_record(metrics: dict[str, MainFigure]) -> dict[str, Any]:
    """How the main figures are to be read; nothing where higher is better of them all."""
    if not any(main.lower_is_better for main in metrics.values()):
        return {}
    made = {
        name: {"label": main.label, "unit": main.unit, "lower_is_better": main.lower_is_better}
        for name, main in metrics.items()
    }
    return {"metrics": made}


def row_record(result: Result) -> dict[str, Any]:
    """A row's figures under the names that they have in JSON."""
    row = result.row
    apart = ("row", "figures", "per_class", "scores", "other_seconds", "mean_views", "calibration")
    cost = {k: v for k, v in vars(result).items() if k not in apart}
    gains = {
        metric: {k: v for k, v in vars(score).items() if k not in _apart(score)}
        for metric, score in result.scores.items()
    }
    return {
        "name": row.name,
        "kind": row.kind,
        "views": row.views,
        **({"mean_views": result.mean_views} if row.adaptive else {}),
        "settings": None if row.settings is None else keywords(row.settings),
        "complete": row.complete,
        **result.figures,
        **cost,
        **{f"{name}_seconds_per_image": s for name, s in result.other_seconds.items()},
        **next(iter(gains.values())),
        **({"gains": gains} if len(gains) > 1 else {}),
        **result.per_class,
        **({} if result.calibration is None else {"calibration": result.calibration.record()}),
    }


def _apart(score: Score) -> tuple[str, ...]:
    return ("value",) if score.relative_gain is not None else ("value", "relative_gain")


def plain_values(value: Any) -> Any:
    """Nested values as JSON has them; NaN and infinity as None, anything else as text."""
    if isinstance(value, dict):
        return {str(k): plain_values(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain_values(v) for v in value]
    if isinstance(value, np.generic):
        return plain_values(value.item())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if value is None or isinstance(value, (str, int, float, bool)):
        return value
    return str(value)
