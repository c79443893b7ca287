"""What two revisions did in the same window, for a canary's gate: their requests, errors and merged latencies."""

from collections.abc import Sequence
from datetime import datetime

from deployments.domain.canary import Evidence, Side
from deployments.domain.sketch import merge_bytes
from deployments.telemetry import store
from deployments.telemetry.chart import Grid
from deployments.telemetry.rollup import DEPLOYMENT_LEVELS, Window


def between(deployment_id: int, *, stable: int, canary: int, since: datetime, until: datetime) -> Evidence:
    """Of the whole windows (10 s) that lie inside. Two index range scans."""
    level = DEPLOYMENT_LEVELS[0]
    start = -(-int(since.timestamp()) // level.resolution_s) * level.resolution_s
    points = max(0, (int(until.timestamp()) - start) // level.resolution_s)
    grid = Grid(level=level, start=start, step_s=level.resolution_s, points=points)
    sides = [_side(store.read(deployment_id, grid, revision=one)) for one in (stable, canary)]
    return Evidence(stable=sides[0], canary=sides[1], window_s=max(0.0, (until - since).total_seconds()))


def _side(windows: Sequence[Window]) -> Side:
    return Side(
        latency=merge_bytes([one.latency for one in windows if one.latency]),
        requests=sum(one.requests for one in windows),
        errors=sum(sum(one.errors.values()) for one in windows),
    )
