"""A time range of windows as plain arrays on a regular grid, ready for orjson.

Hand-built arrays cost a small part of a figure object (DESIGN.md rule 11); what was not observed is null, so
a line breaks where the data does.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from deployments.domain.sketch import is_coarse, quantile_rows
from deployments.telemetry.rollup import DEPLOYMENT_LEVELS, REPLICA_LEVEL, Level, Window, coarsen

MAX_POINTS: Final = 720
MAX_WINDOWS: Final = 1500
"""Windows of the level that a chart reads: a day of minutes, two of which share a point at the least."""
_QUANTILES: Final = {"p50_ms": 0.5, "p95_ms": 0.95, "p99_ms": 0.99}

# Decimals are enough for 1 % of a tenth of a millisecond and keep 720 points under 35 kB.
_DECIMALS: Final = {
    "p50_ms": 3,
    "p95_ms": 3,
    "p99_ms": 3,
    "throughput": 2,
    "error_rate": 5,
    "queue_depth": 2,
    "queue_depth_max": 2,
    "in_flight": 2,
    "in_flight_max": 2,
    "replicas": 2,
}


@dataclass(frozen=True, kw_only=True)
class Grid:
    """Which stored level to read, and the step and bounds of the points. `end` is exclusive.

    What that level does not hold yet is read from the shorter ones, so `step_s` is a multiple of them all.
    """

    level: Level
    start: int
    step_s: int
    points: int

    @property
    def end(self) -> int:
        return self.start + self.points * self.step_s


def grid(start: float, end: float, *, now: float, replica: bool = False) -> Grid:
    """The finest stored level that still holds `start` and has at most 1,500 windows in the range, in steps of
    at most 720 points; the coarsest one when none does. All times are epoch seconds; ValueError when the range
    is empty."""
    if not start < end:
        raise ValueError("the range must end after it starts")
    levels = (REPLICA_LEVEL,) if replica else DEPLOYMENT_LEVELS
    held = [level for level in levels if now - start <= level.keep_s] or [levels[-1]]
    few = [level for level in held if (end - start) / level.resolution_s <= MAX_WINDOWS]
    level = few[0] if few else held[-1]
    step_s = level.resolution_s
    while (fitted := _fit(level, start, end, step_s=step_s)).points > MAX_POINTS:
        # At least one step wider, and about as wide as the surplus of points asks for.
        step_s = max(step_s + level.resolution_s, -(-step_s * fitted.points // MAX_POINTS))
        step_s = -(-step_s // level.resolution_s) * level.resolution_s
    return fitted


def _fit(level: Level, start: float, end: float, *, step_s: int) -> Grid:
    first = int(start // step_s) * step_s
    points = int(-(-(end - first) // step_s))
    return Grid(level=level, start=first, step_s=step_s, points=points)


def chart(windows: Iterable[Window], *, grid: Grid) -> dict[str, Any]:
    """The series of ONE deployment, revision or replica: `start`, `step_s`, `points`, `coarse`, and under
    `series` one array per name with null where nothing was observed. Windows outside the grid are ignored."""
    inside = [window for window in windows if grid.start <= window.key.ts < grid.end]
    if any(window.key.resolution_s != grid.step_s for window in inside):
        inside = coarsen(inside, resolution_s=grid.step_s)
    places = np.array([(window.key.ts - grid.start) // grid.step_s for window in inside], np.intp)
    columns = _columns(inside)
    return {
        "start": grid.start,
        "step_s": grid.step_s,
        "points": grid.points,
        "coarse": any(is_coarse(window.latency) for window in inside if window.latency),
        "series": {
            name: _nullable(column, places, points=grid.points, decimals=_DECIMALS[name])
            for name, column in columns.items()
        },
    }


def _columns(windows: Sequence[Window]) -> dict[str, npt.NDArray[np.float64]]:
    seconds = np.full((len(windows), len(_QUANTILES)), np.nan)
    counted = [place for place, window in enumerate(windows) if window.latency]
    seconds[counted] = quantile_rows((windows[place].latency for place in counted), list(_QUANTILES.values()))
    plain: dict[str, list[float | None]] = {
        "throughput": [window.throughput for window in windows],
        "error_rate": [window.error_rate for window in windows],
        "queue_depth": [window.queue_depth_mean for window in windows],
        "queue_depth_max": [window.queue_depth_max for window in windows],
        "in_flight": [window.in_flight_mean for window in windows],
        "in_flight_max": [window.in_flight_max for window in windows],
        "replicas": [window.replicas_ready for window in windows],
    }
    latencies = {name: 1000 * seconds[:, column] for column, name in enumerate(_QUANTILES)}
    return latencies | {name: np.array(values, np.float64) for name, values in plain.items()}


def _nullable(
    column: npt.NDArray[np.float64], places: npt.NDArray[np.intp], *, points: int, decimals: int
) -> list[float | None]:
    whole = np.full(points, np.nan)
    whole[places] = np.round(column, decimals)
    listed: list[float | None] = whole.tolist()
    for gap in np.flatnonzero(np.isnan(whole)).tolist():
        listed[gap] = None
    return listed
