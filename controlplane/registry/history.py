"""The reports of one variant beside one another: how far the same measurement, made again, is from itself.

Refused: an average of the reports. They may come from different machines and versions; the newest one speaks, and the
others say how much to trust it.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from controlplane.registry import reports
from controlplane.registry.models import Report
from controlplane.registry.reports import Speedup

MOST_SHOWN = 20


@dataclass(frozen=True, kw_only=True)
class Run:
    """One report as a line. `machine` is the name of the processor or GPU."""

    report: Report
    speedups: list[Speedup]
    loss: str
    machine: str


@dataclass(frozen=True, kw_only=True)
class Spread:
    """From the least to the largest speed-up of `runs` reports at one batch size, and that distance in percent of
    the least."""

    batch_size: int
    runs: int
    low: float
    high: float

    @property
    def percent(self) -> float:
        return 100 * (self.high / self.low - 1)


@dataclass(frozen=True, kw_only=True)
class History:
    runs: list[Run]
    sizes: list[int]
    """Batch sizes that any of them measured, the same for the speed-ups of each."""
    spreads: list[Spread]
    verdicts: list[str]
    """The words that the reports reached, without repeats, newest first."""
    machines: list[str]


def history(rows: Sequence[Report]) -> History:
    """`rows`: newest first."""
    sizes = reports.batch_sizes(row.data for row in rows)
    runs = [
        Run(
            report=row,
            speedups=reports.speedups(row.data, sizes=sizes),
            loss=reports.loss(row.data),
            machine=reports.hardware(row.data),
        )
        for row in rows
    ]
    return History(
        runs=runs,
        sizes=sizes,
        spreads=_spreads(runs),
        verdicts=list(dict.fromkeys(row.get_verdict_display() for row in rows)),
        machines=list(dict.fromkeys(run.machine for run in runs if run.machine)),
    )


def _spreads(runs: Sequence[Run]) -> list[Spread]:
    """Of the batch sizes that two reports measured."""
    found: dict[int, list[float]] = {}
    for run in runs:
        for speedup in run.speedups:
            if speedup.value:
                found.setdefault(speedup.batch_size, []).append(speedup.value)
    return [
        Spread(batch_size=size, runs=len(values), low=min(values), high=max(values))
        for size, values in found.items()
        if len(values) > 1
    ]
