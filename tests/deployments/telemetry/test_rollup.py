"""Windows add up without loss, and a gap is never filled."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deployments.domain.sketch import EMPTY, Sketch, merge
from deployments.telemetry.rollup import MOST_REASONS, Accumulator, Levels, Window, WindowKey, coarsen
from deployments.telemetry.scrape import Target, Unanswered
from deployments.telemetry.series import Interval, Measured, NoInterval, Reading
from deployments.telemetry.signals import DeploymentSignals, Signal, SignalError, SignalName
from tests.deployments.telemetry.fake_exporter import METRICS

T0 = 1_800_000_000


def target(number: int, *, revision: int = 1) -> Target:
    return Target(
        deployment="d1",
        revision=revision,
        replica=f"ranker-{number}",
        url=f"http://h/{number}",
        metrics=METRICS,
    )


def reading(
    of: Target,
    at: float,
    requests: int,
    *,
    seconds: float = 2,
    errors: dict[str, float] | None = None,
    latency_s: float = 0.01,
) -> Reading:
    interval = Interval(
        seconds=seconds,
        requests=requests,
        errors=errors or {},
        latency=Sketch.from_values([latency_s] * requests),
    )
    return Reading(
        target=of,
        at_monotonic=at,
        at_wall=T0 + at,
        interval=interval,
        queue_depth=Measured(0, 1),
        in_flight=Measured(2, 1),
    )


def missed(of: Target, at: float) -> Reading:
    return Reading(
        target=of,
        at_monotonic=at,
        at_wall=T0 + at,
        failure=Unanswered.TIMEOUT,
        no_interval=NoInterval.FAILED,
    )


def signals(at: float, depth: float | None, in_flight: float | None) -> DeploymentSignals:
    def signal(value: float | None) -> Signal:
        return Signal(value=value, age_s=0, error=SignalError.STALE if value is None else None)

    values = dict.fromkeys(SignalName, signal(None)) | {
        SignalName.QUEUE_DEPTH: signal(depth),
        SignalName.IN_FLIGHT: signal(in_flight),
    }
    return DeploymentSignals(deployment="d1", at_wall=T0 + at, period_s=2, signals=values)


def whole(windows: list[Window]) -> list[Window]:
    return [window for window in windows if window.key.revision is None]


def test_a_reading_counts_for_its_replica_its_revision_and_its_deployment() -> None:
    accumulator = Accumulator()
    accumulator.add(reading(target(1, revision=3), 3, 8, errors={"overloaded": 2}))
    accumulator.add(reading(target(2, revision=4), 3.5, 10))
    accumulator.add(missed(target(2, revision=4), 4.2))
    windows = {(w.key.resolution_s, w.key.revision, w.key.replica): w for w in accumulator.close_all()}
    assert set(windows) == {
        (10, None, None),
        (10, 3, None),
        (10, 4, None),
        (5, 3, "ranker-1"),
        (5, 4, "ranker-2"),
    }
    deployment = windows[10, None, None]
    assert (deployment.requests, deployment.errors) == (18, {"overloaded": 2})
    assert (deployment.scrapes_ok, deployment.scrapes_failed) == (2, 1)
    assert Sketch.from_bytes(deployment.latency).count == 18
    assert deployment.throughput == pytest.approx(9)
    assert deployment.error_rate == pytest.approx(2 / 18)
    own = windows[5, 3, "ranker-1"]
    assert (own.requests, own.throughput, own.queue_depth_mean, own.in_flight_max) == (8, 4, 1, 2)


@pytest.mark.parametrize("replicas", [1, 3])
@pytest.mark.parametrize("phase", [0.0, 0.7, 1.9])
def test_throughput_does_not_depend_on_how_scrapes_fall_into_windows(replicas: int, phase: float) -> None:
    accumulator = Accumulator()
    for beat in range(61):
        for number in range(replicas):
            accumulator.add(reading(target(number), beat * 2 + phase + number / 2, 20))
    windows = accumulator.close(T0 + 120)
    rates = [window.throughput for window in windows if window.key.replica is None and window.key.ts > T0]
    assert len(rates) >= 20
    assert rates == [pytest.approx(10 * replicas)] * len(rates)
    own = [window.throughput for window in windows if window.key.replica is not None]
    assert own == [pytest.approx(10)] * len(own)


def test_a_replica_that_came_in_the_middle_weighs_by_its_share() -> None:
    accumulator = Accumulator()
    for beat in range(1, 6):
        accumulator.add(reading(target(1), 2 * beat, 20))
    for beat in (4, 5):
        accumulator.add(reading(target(2), 2 * beat, 20))
    (window,) = whole([w for w in accumulator.close_all() if w.key.resolution_s == 10])
    assert window.throughput == pytest.approx(10 + 10 * 4 / 10)


def test_a_window_closes_after_its_grace_and_only_once() -> None:
    accumulator = Accumulator()
    accumulator.add(reading(target(1), 3, 1))
    assert accumulator.close(T0 + 8) == []
    assert [w.key.resolution_s for w in accumulator.close(T0 + 10)] == [5]
    assert len(accumulator.close(T0 + 14)) == 2
    assert accumulator.close(T0 + 100) == []


def test_what_comes_late_goes_to_the_next_window() -> None:
    accumulator = Accumulator()
    accumulator.add(reading(target(1), 3, 1))
    accumulator.close(T0 + 14)
    accumulator.add(reading(target(1), 3.5, 5))
    keys = {(w.key.resolution_s, w.key.ts - T0) for w in accumulator.close_all()}
    assert keys == {(5, 5), (10, 10)}


def test_a_clock_that_was_set_back_begins_again() -> None:
    accumulator = Accumulator()
    accumulator.add(reading(target(1), 4000, 1))
    accumulator.close(T0 + 5000)
    accumulator.close(T0 + 100)
    accumulator.add(reading(target(1), 103, 7))
    assert {w.key.ts - T0 for w in accumulator.close_all()} == {100}


def test_levels_are_means_and_maxima_of_what_was_known() -> None:
    accumulator = Accumulator()
    for at, depth in ((1, 4.0), (3, None), (5, 8.0)):
        accumulator.add_signals(signals(at, depth, 1.0), ready=2)
    (window,) = accumulator.close_all()
    assert (window.queue_depth_mean, window.queue_depth_max) == (6, 8)
    assert (window.in_flight_mean, window.replicas_ready) == (1, 2)
    assert window.throughput is None


def test_a_mean_of_longer_windows_weighs_what_was_known_in_each() -> None:
    """One reading of 100 among five periods, then five of 0: the mean of six readings, not of ten periods."""
    accumulator = Accumulator()
    for at, depth in zip(range(1, 21, 2), [100.0, *[None] * 4, *[0.0] * 5], strict=True):
        accumulator.add_signals(signals(at, depth, 3.0), ready=None if at < 10 else 2)
    (minute,) = coarsen(accumulator.close_all(), resolution_s=60)
    assert minute.queue_depth_mean == pytest.approx(100 / 6)
    assert (minute.in_flight_mean, minute.replicas_ready) == (3, 2)
    assert minute.levels == Levels(queue_depth=6, in_flight=10, replicas=5)


def test_reasons_that_are_ever_new_are_counted_together() -> None:
    accumulator = Accumulator()
    for at in range(1, 50, 2):
        new = {f"request {at}-{n}": 1.0 for n in range(10)}
        accumulator.add(reading(target(1), at, 10, errors={"overloaded": 1, **new}))
    windows = accumulator.close_all()
    (minute,) = whole(coarsen(windows, resolution_s=60))
    for window in (*windows, minute):
        assert len(window.errors) <= MOST_REASONS + 1
    assert (minute.errors["overloaded"], sum(minute.errors.values())) == (25, 25 * 11)


def test_idle_is_zero_and_silence_is_a_gap() -> None:
    accumulator = Accumulator()
    accumulator.add(reading(target(1), 3, 0))
    accumulator.add(missed(target(2), 13))
    idle, silent = (window for window in whole(accumulator.close_all()) if window.key.replica is None)
    assert (idle.throughput, idle.error_rate) == (0, None)
    assert (silent.throughput, silent.scrapes_failed) == (None, 1)


@pytest.mark.faults
def test_F36_a_silent_replica_leaves_windows_that_say_so() -> None:
    accumulator = Accumulator()
    accumulator.add(missed(target(1), 3))
    window = next(w for w in accumulator.close_all() if w.key.replica is None and w.key.revision is None)
    assert (window.throughput, window.scrapes_ok, window.scrapes_failed) == (None, 0, 1)
    assert Sketch.from_bytes(window.latency) == EMPTY


windows_of_ten = st.builds(
    Window,
    key=st.integers(0, 400).map(
        lambda n: WindowKey(ts=T0 // 900 * 900 + 10 * n, resolution_s=10, deployment="d1")
    ),
    observed_s=st.floats(0, 12),
    requests=st.integers(0, 10**6),
    errors=st.dictionaries(st.sampled_from(["a", "b"]), st.integers(1, 99)),
    latency=st.lists(st.floats(1e-4, 10), max_size=20).map(lambda v: Sketch.from_values(v).to_bytes()),
    levels=st.builds(Levels, queue_depth=st.integers(0, 5), replicas=st.integers(0, 5)),
    queue_depth_mean=st.one_of(st.none(), st.floats(0, 100)),
    queue_depth_max=st.one_of(st.none(), st.floats(0, 100)),
    replicas_ready=st.floats(0, 9),
    scrapes_ok=st.integers(0, 9),
    scrapes_failed=st.integers(0, 9),
)
histories = st.lists(windows_of_ten, max_size=30, unique_by=lambda window: window.key.ts)


@given(history=histories)
def test_coarsening_in_steps_or_at_once_is_the_same(history: list[Window]) -> None:
    at_once = coarsen(history, resolution_s=900)
    in_steps = coarsen(coarsen(reversed(history), resolution_s=60), resolution_s=900)
    assert len(at_once) == len(in_steps)
    for one, other in zip(at_once, in_steps, strict=True):
        assert (one.key, one.requests, one.errors, one.levels) == (
            other.key,
            other.requests,
            other.errors,
            other.levels,
        )
        assert Sketch.from_bytes(one.latency) == Sketch.from_bytes(other.latency)
        assert one.observed_s == pytest.approx(other.observed_s)
        assert one.queue_depth_max == other.queue_depth_max
        assert one.replicas_ready == pytest.approx(other.replicas_ready)


@given(history=histories)
def test_coarsening_loses_nothing(history: list[Window]) -> None:
    longer = coarsen(history, resolution_s=60)
    assert sum(w.requests for w in longer) == sum(w.requests for w in history)
    assert sum(w.scrapes_failed for w in longer) == sum(w.scrapes_failed for w in history)
    assert math.isclose(sum(w.observed_s for w in longer), sum(w.observed_s for w in history), abs_tol=1e-6)
    together = merge(Sketch.from_bytes(w.latency) for w in history)
    assert merge(Sketch.from_bytes(w.latency) for w in longer) == together
    assert {w.key.ts for w in longer} == {w.key.ts // 60 * 60 for w in history}


def test_coarsening_keeps_owners_apart() -> None:
    keys = [
        WindowKey(ts=T0, resolution_s=10, deployment=deployment, revision=revision)
        for deployment in ("d1", "d2")
        for revision in (None, 1, 2)
    ]
    longer = coarsen([Window(key=key, requests=1) for key in keys], resolution_s=60)
    assert [window.requests for window in longer] == [1] * 6


def test_percentiles_of_an_hour_come_from_all_its_values() -> None:
    random = np.random.default_rng(11)
    parts = [random.lognormal(-4, 0.5, 50) for _ in range(360)]
    history = [
        Window(
            key=WindowKey(ts=T0 // 900 * 900 + 10 * n, resolution_s=10, deployment="d1"),
            latency=Sketch.from_values(part).to_bytes(),
        )
        for n, part in enumerate(parts)
    ]
    quarters = coarsen(coarsen(history, resolution_s=60), resolution_s=900)
    hour = merge(Sketch.from_bytes(window.latency) for window in quarters)
    values = np.concatenate(parts)
    for q in (0.5, 0.95, 0.99):
        assert hour.quantile(q) == pytest.approx(float(np.quantile(values, q, method="lower")), rel=0.01)
