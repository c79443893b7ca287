"""What a benchmark gives: rows of BENCHMARKS.md's file format, ratios first, judged against their targets."""

import math
import os
import platform
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

VOID_ABOVE = 1.25
"""A run says nothing if its own floor moved more than this from its first to its last round."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """One measure. `ratio` is value to baseline; `met` is None where there is no target or the run is void. `value` is
    None for what could not be had; the metric then says why."""

    metric: str
    value: float | None
    unit: str
    baseline: float | None = None
    ratio: float | None = None
    target: str = ""
    met: bool | None = None
    n: int = 0
    spread: tuple[float, float] | None = None

    def to_json(self, *, id: str, name: str) -> dict[str, Any]:
        """An entry of bench.json, under the id and the name of its benchmark in the table."""
        return {"id": id, "name": name} | asdict(self) | {"machine": machine()}

    def line(self, *, id: str, name: str) -> str:
        """For the terminal: the ratio first."""
        ratio = f"{self.ratio:.2f}x" if self.ratio is not None else "-"
        value = f"{self.value:.3g}" if self.value is not None else "-"
        verdict = {True: "met", False: "NOT MET", None: "VOID" if self.target else ""}[self.met]
        spread = f" [{self.spread[0]:.3g}, {self.spread[1]:.3g}]" if self.spread else ""
        baseline = f" (baseline {self.baseline:.3g})" if self.baseline is not None else ""
        return (
            f"{id:4} {name:18} {ratio:>8}  {self.metric}: {value} {self.unit}"
            f"{spread}{baseline}  n={self.n}  target {self.target or '-'}  {verdict}"
        )


def machine() -> str:
    return f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}"


def quartiles(values: Sequence[float]) -> tuple[float, float]:
    if len(values) < 2:
        return values[0], values[0]
    low, _, high = statistics.quantiles(values, n=4, method="inclusive")
    return low, high


def moved(floor: Sequence[float]) -> bool:
    """Whether the floor moved too much from its first to its last round for the run to count."""
    first, last = floor[0], floor[-1]
    return max(first, last) > VOID_ABOVE * min(first, last)


def median(values: Sequence[float]) -> float:
    return statistics.median(values)


def compared(
    *, metric: str, unit: str, values: Sequence[float], floor: Sequence[float],
    at_most: float, n: int, void: bool | None = None,
) -> Row:  # fmt: skip
    """The medians of rounds against the floor's of the same rounds. `n` is what was measured in one round.

    Without a verdict where the floor moved, or where the caller knows better what `void` means.
    """
    ratio = median(values) / median(floor)
    unusable = moved(floor) if void is None else void
    note = f"; void, the floor moved from {floor[0]:.3g} to {floor[-1]:.3g}" if unusable else ""
    return Row(
        metric=metric + note,
        value=median(values),
        unit=unit,
        baseline=median(floor),
        ratio=ratio,
        target=f"<= {at_most:g}x",
        met=None if unusable else ratio <= at_most,
        n=n * len(values),
        spread=quartiles(values),
    )


def percentile(values: Iterable[float], share: float) -> float:
    """Nearest-rank percentile of measured values: the least that so large a share of them does not exceed."""
    ordered = sorted(values)
    # A product that is a whole number but for its last digit is that number.
    return float(ordered[max(0, math.ceil(share * len(ordered) - 1e-9) - 1)])
