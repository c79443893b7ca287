"""What a model asks of a variant before an alias points to it, and what of that a variant has not shown.

The version's own bytes need no evidence: they are what everything else is compared with. Evidence is judged by the
limits of now, not of the day it was measured; who can judge it registers here, because the registry may not import it.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Self

from controlplane.core import formats
from controlplane.core.errors import Conflict
from controlplane.registry.models import Variant, Verdict

MAX_OVERRIDE = 500
SPEEDUPS = (1.0, 1000.0)
POINTS = (0.0, 100.0)
MOST_MS = 3_600_000.0
MOST_MIB = 2.0**30


@dataclass(frozen=True, kw_only=True)
class Gate:
    """Losses count at the upper end of their interval. `max_loss_points` bounds accuracy lost, in points, and without
    labels what is lost of the agreement that the model's task measures, such as the share of items that disagree;
    `max_relative_loss_percent` is of the parent's accuracy. `max_latency_ms` is of the median for one item, on the
    machine that measured. None asks nothing."""

    min_speedup: float = 1.05
    max_loss_points: float = 1.0
    max_relative_loss_percent: float | None = None
    max_size_mib: float | None = None
    max_latency_ms: float | None = None

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Self:
        return cls(**value)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    def in_words(self) -> list[str]:
        most = f"{self.max_loss_points:g}"
        said = [
            f"at least {self.min_speedup:g}x as fast as its parent",
            f"at most {most} {'point' if most == '1' else 'points'} of accuracy lost, or {most} % of the agreement "
            "with its parent",
        ]
        if self.max_relative_loss_percent is not None:
            said.append(f"at most {self.max_relative_loss_percent:g} % of its parent's accuracy lost")
        if self.max_size_mib is not None:
            said.append(f"a file of at most {self.max_size_mib:g} MiB")
        if self.max_latency_ms is not None:
            said.append(f"at most {self.max_latency_ms:g} ms for one item")
        return said


type Judge = Callable[[Mapping[str, Any], Gate], tuple[str, str]]

_JUDGES: list[Judge] = []


def register(judge: Judge) -> None:
    """`judge(data of a report, gate)` answers the verdict under these limits, and its sentence. Pure."""
    if judge not in _JUDGES:
        _JUDGES.append(judge)


def failures(variant: Variant, gate: Gate) -> list[str]:
    """Sentences; none for what may be used. One query."""
    if not variant.technique:
        return []
    report = variant.reports.first()
    data = report.data if report else {}
    verdict, sentence = variant.verdict, report.sentence if report else "It was never measured."
    if data.get("timings"):
        for judge in _JUDGES:
            verdict, sentence = judge(data, gate)
    return [
        *([] if verdict == Verdict.BETTER else [sentence]),
        *_loses_too_much(data, gate.max_relative_loss_percent),
        *_too_large(variant.artifact.size_bytes, gate.max_size_mib),
        *_too_slow(data, gate.max_latency_ms),
    ]


def _too_large(size_bytes: int, most_mib: float | None) -> Iterator[str]:
    if most_mib is not None and size_bytes > most_mib * 2**20:
        yield f"Its file has {formats.size(size_bytes)}; at most {most_mib:g} MiB are allowed."


def _loses_too_much(data: Mapping[str, Any], most_percent: float | None) -> Iterator[str]:
    """Of the parent's accuracy, at the upper end of the interval. Asks nothing where there are no labels."""
    accuracy = data.get("accuracy") or {}
    parent = (accuracy.get("parent_accuracy") or {}).get("value")
    if most_percent is None or not parent:
        return
    lost_percent = 100 * accuracy["loss"]["high"] / parent
    if lost_percent > most_percent:
        yield (
            f"It may lose {lost_percent:.2g} % of its parent's accuracy; at most {most_percent:g} % are allowed."
        )


def _too_slow(data: Mapping[str, Any], most_ms: float | None) -> Iterator[str]:
    """Also where it is not known how slow it is."""
    took = {timing["batch_size"]: timing["variant"]["median_ms"] for timing in data.get("timings") or ()}
    if most_ms is None or took.get(1, math.inf) <= most_ms:
        return
    known = f"It takes {took[1]:.3g} ms for one item" if 1 in took else "Its time for one item is not known"
    yield f"{known}; at most {most_ms:g} ms are allowed."


def refusal(variant: Variant, reasons: list[str]) -> Conflict:
    title = f"{variant} has not passed its gate."
    evidence = " ".join(reasons)
    return Conflict(
        "gate_failed",
        title,
        f"{evidence} Choose another variant, or say why this one shall be used all the same (`override`).",
        fields={"override": [f"{title} {evidence} Say why it shall be used all the same."]},
    )
