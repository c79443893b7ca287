"""Arrays on a regular grid: at most 720 points, gaps as null, small enough to be sent every few seconds."""

import gzip

import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deployments.domain.sketch import Sketch
from deployments.telemetry.chart import MAX_POINTS, Grid, chart, grid
from deployments.telemetry.rollup import (
    DAY_S,
    DEPLOYMENT_LEVELS,
    HOUR_S,
    REPLICA_LEVEL,
    Levels,
    Window,
    WindowKey,
)

NOW = 1_800_000_000.0


def window(ts: int, *, resolution_s: int = 10, latencies: list[float] | None = None) -> Window:
    values = [0.01] * 20 if latencies is None else latencies
    return Window(
        key=WindowKey(ts=ts, resolution_s=resolution_s, deployment="d1"),
        observed_s=10,
        requests=len(values),
        errors={"overloaded": 1} if values else {},
        latency=Sketch.from_values(values).to_bytes(),
        levels=Levels(queue_depth=5, in_flight=5, replicas=5),
        queue_depth_mean=1.5,
        queue_depth_max=4,
        in_flight_mean=2.25,
        in_flight_max=6,
        replicas_ready=2,
    )


@pytest.mark.parametrize(
    ("range_s", "ago_s", "resolution_s", "step_s"),
    [
        (300, 0, 10, 10),
        (7190, 0, 10, 10),
        (12 * HOUR_S - 60, 0, 60, 60),
        (DAY_S + 1, 0, 60, 180),
        (300, 2 * DAY_S, 60, 60),
        (7 * DAY_S, 0, 900, 900),
        (30 * DAY_S, 0, 900, 3600),
        (365 * DAY_S, 0, 900, 44100),
        (300, 100 * DAY_S, 900, 900),
        (3 * 365 * DAY_S, 0, 900, 131_400 + 900),
    ],
)
def test_the_finest_level_that_fits_is_chosen(
    range_s: int, ago_s: int, resolution_s: int, step_s: int
) -> None:
    chosen = grid(NOW - ago_s - range_s, NOW - ago_s, now=NOW)
    assert (chosen.level.resolution_s, chosen.step_s) == (resolution_s, step_s)


@given(range_s=st.floats(1, 3e8), ago_s=st.floats(0, 1e8), replica=st.booleans())
def test_a_grid_covers_its_range_in_at_most_720_points(range_s: float, ago_s: float, replica: bool) -> None:
    start, end = NOW - ago_s - range_s, NOW - ago_s
    chosen = grid(start, end, now=NOW, replica=replica)
    assert 1 <= chosen.points <= MAX_POINTS
    assert chosen.start <= start
    assert chosen.end >= end
    assert chosen.start % chosen.step_s == chosen.step_s % chosen.level.resolution_s == 0
    assert chosen.level in ((REPLICA_LEVEL,) if replica else DEPLOYMENT_LEVELS)


def test_an_empty_range_is_refused() -> None:
    with pytest.raises(ValueError, match="end"):
        grid(NOW, NOW, now=NOW)


def test_points_stand_at_their_time_and_gaps_are_null() -> None:
    shape = grid(NOW - 300, NOW, now=NOW)
    drawn = chart([window(shape.start), window(shape.start + 20, latencies=[0.02, 4.0])], grid=shape)
    assert (drawn["start"], drawn["step_s"], drawn["points"]) == (shape.start, 10, 30)
    series = drawn["series"]
    assert {len(values) for values in series.values()} == {30}
    assert series["p50_ms"][:4] == [pytest.approx(10, rel=0.01), None, pytest.approx(20, rel=0.01), None]
    assert series["throughput"][:4] == [2.0, None, 0.2, None]
    assert series["error_rate"][:3] == [0.05, None, 0.5]
    assert (series["queue_depth"][0], series["in_flight_max"][0], series["replicas"][0]) == (1.5, 6.0, 2.0)
    assert all(values[3:] == [None] * 27 for values in series.values())


def test_an_idle_window_is_zero_throughput_without_latency() -> None:
    shape = grid(NOW - 300, NOW, now=NOW)
    series = chart([window(shape.start, latencies=[])], grid=shape)["series"]
    assert (series["throughput"][0], series["p99_ms"][0], series["error_rate"][0]) == (0.0, None, None)


def test_wider_steps_merge_the_windows_in_them() -> None:
    shape = grid(NOW - 30 * DAY_S, NOW, now=NOW)
    slow, fast = [1.0] * 20, [0.001] * 980
    windows = [
        window(shape.start, resolution_s=900, latencies=slow),
        window(shape.start + 900, resolution_s=900, latencies=fast),
    ]
    series = chart(windows, grid=shape)["series"]
    assert series["p99_ms"][0] == pytest.approx(1000, rel=0.01)
    assert series["throughput"][0] == pytest.approx(50)


def test_windows_outside_the_grid_are_ignored() -> None:
    shape = grid(NOW - 300, NOW, now=NOW)
    drawn = chart([window(shape.start - 10), window(shape.end)], grid=shape)
    assert all(values == [None] * 30 for values in drawn["series"].values())


def test_coarse_percentiles_are_marked() -> None:
    shape = grid(NOW - 300, NOW, now=NOW)
    sketch = Sketch.from_coarse([0.1, 0.5], [3, 5], count=5, sum=1)
    coarse = Window(
        key=WindowKey(ts=shape.start, resolution_s=10, deployment="d1"), latency=sketch.to_bytes()
    )
    assert chart([coarse], grid=shape)["coarse"]
    assert not chart([window(shape.start)], grid=shape)["coarse"]


def test_nothing_is_all_gaps() -> None:
    shape = Grid(level=DEPLOYMENT_LEVELS[0], start=0, step_s=10, points=3)
    drawn = chart([], grid=shape)
    assert not drawn["coarse"]
    assert drawn["series"]["p99_ms"] == [None, None, None]


def test_five_series_of_720_points_stay_under_their_bounds() -> None:
    random = np.random.default_rng(2)
    shape = grid(NOW - 7190, NOW, now=NOW)
    windows = [
        window(shape.start + 10 * n, latencies=random.lognormal(-4, 0.5, 200).tolist())
        for n in range(shape.points)
    ]
    drawn = chart(windows, grid=shape)
    five = ("p50_ms", "p95_ms", "p99_ms", "throughput", "in_flight")
    body = orjson.dumps(drawn | {"series": {name: drawn["series"][name] for name in five}})
    assert shape.points >= 719
    assert len(body) <= 35_000
    assert len(gzip.compress(body)) <= 13_000
