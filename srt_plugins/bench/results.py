"""The figures of a benchmark, and as JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ..evaluation.files import replacing
from .timing import Spread


@dataclass(frozen=True)
class RowResult:
    """A row as a whole: views through the backbone, aggregated.

    Attributes:
        name, kind, views, keywords: of the row.
        chunk: views per forward.
        seconds: of one call; None where it did not run.
        ratio: seconds over those of as many plain views at their best batch.
        peak: peak bytes of the tensors that a call makes; None where it was not measured.
        extra: the part of ``peak`` beyond that of one plain forward of ``chunk`` views.
        failed: why there is no measurement, such as ``"out of memory"``.
    """

    name: str
    kind: str
    views: int
    keywords: dict[str, Any]
    chunk: int
    seconds: Spread | None = None
    ratio: Spread | None = None
    peak: int | None = None
    extra: int | None = None
    failed: str = ""


@dataclass(frozen=True)
class AggregationResult:
    """Alignment and accumulation alone, on stored features.

    Attributes:
        name, kind, views: of the row that does so.
        seconds: of all views together; None where it did not run.
        failed: as above.
    """

    name: str
    kind: str
    views: int
    seconds: Spread | None = None
    failed: str = ""


@dataclass(frozen=True)
class Measurement:
    """One model at one image size.

    Attributes:
        model: timm's name, or what it was called.
        size: ``(H, W)`` in pixels.
        patch: in pixels.
        tokens: ``(h, w)`` of the feature map.
        channels: of the feature map.
        dtype: of weights and images.
        device: ``"cpu"`` or ``"cuda"``.
        threads: of the CPU.
        weights: bytes of the parameters and buffers.
        batches: seconds per view of plain forwards by batch.
        best: the best of them by number of views, which it is no larger than.
        plain: seconds per plain view at that batch, measured beside the rows of so many views.
        forward_peaks: peak bytes of the tensors that a plain forward makes, by batch.
        rows, aggregations: the figures.
    """

    model: str
    size: tuple[int, int]
    patch: int
    tokens: tuple[int, int]
    channels: int
    dtype: str
    device: str
    threads: int
    weights: int
    batches: dict[int, float]
    best: dict[int, int]
    plain: dict[int, Spread]
    forward_peaks: dict[int, int]
    rows: list[RowResult] = field(default_factory=list)
    aggregations: list[AggregationResult] = field(default_factory=list)

    @property
    def title(self) -> str:
        """What was measured, in a line."""
        return f"{self.model}, {self.size[0]}x{self.size[1]}, {self.dtype}, {self.device}"

    def row(self, name: str, views: int) -> RowResult | None:
        """A row, if there is one."""
        return next((r for r in self.rows if (r.name, r.views) == (name, views)), None)

    def aggregation(self, name: str, views: int) -> AggregationResult | None:
        """An aggregation, if there is one."""
        found = (a for a in self.aggregations if (a.name, a.views) == (name, views))
        return next(found, None)

    def counts(self) -> list[int]:
        """Numbers of views above one, fewest first."""
        return sorted(n for n in self.plain if n > 1)

    def share(self, found: AggregationResult) -> float | None:
        """Seconds of an aggregation over those of as many plain views."""
        if found.seconds is None:
            return None
        return found.seconds.median / (found.views * self.plain[found.views].median)

    def extra_share(self, row: RowResult) -> float | None:
        """Extra memory over all that one forward holds at its peak, weights included."""
        if row.extra is None:
            return None
        return row.extra / (self.weights + self.forward_peaks[row.chunk])

    def extra_share_of_activations(self, row: RowResult) -> float | None:
        """The same without the weights."""
        return None if row.extra is None else row.extra / self.forward_peaks[row.chunk]

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> Measurement:
        """The inverse of ``dataclasses.asdict``, also after JSON."""
        made = dict(record)
        made["size"], made["tokens"] = tuple(record["size"]), tuple(record["tokens"])
        for name in ("batches", "best", "forward_peaks"):
            made[name] = {int(count): value for count, value in record[name].items()}
        made["plain"] = {int(views): Spread(**s) for views, s in record["plain"].items()}
        made["rows"] = [RowResult(**_spreads(r)) for r in record["rows"]]
        made["aggregations"] = [AggregationResult(**_spreads(a)) for a in record["aggregations"]]
        return cls(**made)


@dataclass
class Benchmark:
    """Everything that was measured, and on what.

    Attributes:
        measurements: one per model and size.
        context: command, hardware, versions.
    """

    measurements: list[Measurement]
    context: dict[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, the bars among them."""
        from .bars import bars

        return {
            **self.context,
            "bars": [bar.to_dict() for bar in bars(self.measurements)],
            "measurements": [asdict(m) for m in self.measurements],
        }

    def save(self, path: str | Path) -> None:
        """Write JSON."""
        text = json.dumps(self.to_dict(), indent=1, ensure_ascii=False)
        with replacing(path) as part:
            part.write_text(text + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: str | Path) -> Benchmark:
        """Read what :meth:`save` wrote; the bars are judged anew."""
        record = json.loads(Path(path).read_text(encoding="utf-8"))
        del record["bars"]
        made = [Measurement.from_dict(m) for m in record.pop("measurements")]
        return cls(made, record)


def _spreads(record: Mapping[str, Any]) -> dict[str, Any]:
    spreads = ("seconds", "ratio")
    return {k: Spread(**v) if k in spreads and v else v for k, v in record.items()}
