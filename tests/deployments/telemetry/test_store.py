"""History in Postgres: lengthened once, forgotten in time, percentiles true to 1 % from one replica or many."""

from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from deployments import selectors
from deployments.domain.sketch import merge_bytes
from deployments.models import Rollup
from deployments.telemetry import store
from deployments.telemetry.chart import chart, grid
from tests.deployments.telemetry.windows import sketch_of, window
from tests.deployments.world import World

pytestmark = pytest.mark.django_db
START = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)
T0 = int(START.timestamp())


def _fill(world: World, *, minutes: int, after: int = 0) -> np.ndarray:
    """Ten-second windows of log-normal latencies from a minute on; every latency that was written."""
    source = np.random.default_rng(1)
    everything = []
    for place in range(after * 6, minutes * 6):
        seconds = source.lognormal(-4, 0.7, 200)
        everything.append(seconds)
        store.write([window(world.row.pk, ts=T0 + 10 * place, seconds=seconds)], living=[world.row.pk])
    return np.concatenate(everything)


def _rows(resolution_s: int) -> list[tuple[int, int, bytes]]:
    rows = Rollup.objects.filter(resolution_s=resolution_s).order_by("ts")
    return [(int(row.ts.timestamp()), row.data["requests"], bytes(row.sketch)) for row in rows]


def test_ten_seconds_become_minutes_become_quarters_and_a_second_run_changes_nothing(world: World) -> None:
    _fill(world, minutes=32)
    now = START + timedelta(minutes=33)
    store.lengthen(now)
    minutes, quarters = _rows(60), _rows(900)
    assert [ts for ts, _, _ in minutes] == [T0 + 60 * place for place in range(32)]
    assert {requests for _, requests, _ in minutes} == {1200}
    assert [(ts, requests) for ts, requests, _ in quarters] == [(T0, 18_000), (T0 + 900, 18_000)]
    assert store.lengthen(now) == 0
    store.lengthen(now + timedelta(seconds=5))
    assert (_rows(60), _rows(900)) == (minutes, quarters)


def test_a_window_is_not_lengthened_before_the_shorter_ones_had_time_to_come(world: World) -> None:
    _fill(world, minutes=1)
    store.lengthen(START + timedelta(seconds=60 + store.LATE_S - 1))
    assert _rows(60) == []
    store.lengthen(START + timedelta(seconds=60 + store.LATE_S))
    assert len(_rows(60)) == 1


def test_minutes_wait_for_the_windows_that_an_outage_kept_back(world: World) -> None:
    """As long as nothing later was written the rest of a minute may still come, up to a bound."""
    written = [window(world.row.pk, ts=T0 + 10 * place, seconds=[0.01] * 5) for place in range(12)]
    store.write(written[:3], living=[world.row.pk])
    after_the_outage = START + timedelta(minutes=4)
    store.lengthen(after_the_outage)
    assert _rows(60) == []
    store.write(written[3:], living=[world.row.pk])
    store.lengthen(after_the_outage)
    assert [(ts, requests) for ts, requests, _ in _rows(60)] == [(T0, 30), (T0 + 60, 30)]


def test_minutes_do_not_wait_for_ever(world: World) -> None:
    store.write([window(world.row.pk, ts=T0, seconds=[0.01] * 5)], living=[world.row.pk])
    store.lengthen(START + timedelta(seconds=60 + store.OUTAGE_S))
    assert [(ts, requests) for ts, requests, _ in _rows(60)] == [(T0, 5)]


def test_a_window_that_is_there_is_kept(world: World) -> None:
    first = window(world.row.pk, ts=T0, seconds=[0.01] * 5)
    store.write([first], living=[world.row.pk])
    store.write([window(world.row.pk, ts=T0, seconds=[9.0] * 50)], living=[world.row.pk])
    assert _rows(10) == [(T0, 5, first.latency)]


def test_a_deployment_that_is_gone_gets_no_windows(world: World) -> None:
    store.write([window(world.row.pk + 1, ts=T0, seconds=[0.01])], living=[world.row.pk])
    assert not Rollup.objects.exists()


@pytest.mark.parametrize("level_s", [10, 60, 900])
def test_percentiles_through_the_store_lie_within_one_percent(world: World, level_s: int) -> None:
    everything = _fill(world, minutes=15)
    store.lengthen(START + timedelta(minutes=16))
    merged = merge_bytes(blob for _, _, blob in _rows(level_s))
    for q in (0.5, 0.95, 0.99):
        exact = float(np.quantile(everything, q, method="lower"))
        assert merged.quantile(q) == pytest.approx(exact, rel=0.01)


def test_percentiles_of_several_replicas_are_of_their_merged_requests(world: World) -> None:
    """A quiet fast replica and a busy slow one: averaging their percentiles would be far off."""
    source = np.random.default_rng(2)
    fast, slow = source.lognormal(-6, 0.3, 5000), source.lognormal(-3, 0.5, 20_000)
    rows = [
        window(world.row.pk, ts=T0, seconds=fast, replica="r1-a", resolution_s=5, revision=1),
        window(world.row.pk, ts=T0, seconds=slow, replica="r1-b", resolution_s=5, revision=1),
    ]
    store.write(rows, living=[world.row.pk])
    merged = merge_bytes(bytes(row.sketch) for row in Rollup.objects.all())
    together = np.concatenate((fast, slow))
    averaged = (np.quantile(fast, 0.5) + np.quantile(slow, 0.5)) / 2
    exact = float(np.quantile(together, 0.5, method="lower"))
    assert merged.quantile(0.5) == pytest.approx(exact, rel=0.01)
    assert abs(averaged - exact) / exact > 0.1


def test_a_chart_has_gaps_where_nothing_was_observed(world: World) -> None:
    for place in (0, 1, 4):
        store.write([window(world.row.pk, ts=T0 + 10 * place, seconds=[0.02] * 10)], living=[world.row.pk])
    shape = grid(T0, T0 + 60, now=T0 + 60)
    drawn = chart(store.read(world.row.pk, shape), grid=shape)["series"]["p99_ms"]
    assert [value is None for value in drawn] == [False, False, True, True, False, True]


@pytest.mark.parametrize("days", [1, 7, 30])
def test_a_long_range_ends_at_the_newest_window_and_counts_each_request_once(world: World, days: int) -> None:
    """Before its first minute was made longer, before its first quarter of an hour was, and after three."""
    written = 0
    for minutes in (1, 10, 47):
        _fill(world, minutes=minutes, after=written)
        written = minutes
        now = START + timedelta(minutes=minutes)
        store.lengthen(now)
        shape = grid(now.timestamp() - days * 86_400, now.timestamp(), now=now.timestamp())
        windows = store.read(world.row.pk, shape)
        assert sum(window.requests for window in windows) == minutes * 1200
        assert chart(windows, grid=shape)["series"]["p99_ms"][-1] is not None
    assert {window.key.resolution_s for window in windows} == {10, 60} | {shape.level.resolution_s}


def test_history_is_forgotten_level_by_level(world: World) -> None:
    pk = world.row.pk
    store.write(
        [
            window(pk, ts=T0, seconds=[0.01], resolution_s=5, replica="r1-a", revision=1),
            window(pk, ts=T0, seconds=[0.01]),
            window(pk, ts=T0, seconds=[0.01], resolution_s=60),
            window(pk, ts=T0, seconds=[0.01], resolution_s=900),
        ],
        living=[pk],
    )
    for after, kept in (
        (timedelta(hours=3), {10, 60, 900}),
        (timedelta(days=2), {60, 900}),
        (timedelta(days=31), {900}),
    ):
        store.forget(START + after)
        assert set(Rollup.objects.values_list("resolution_s", flat=True)) == kept
    assert store.first_ts(pk) == T0


def test_figures_of_a_list_are_one_query_and_old_ones_are_not_the_present(
    world: World, django_assert_num_queries: object
) -> None:
    now = datetime.now(UTC).timestamp() // 10 * 10
    store.write([window(world.row.pk, ts=now - 10, seconds=[0.05] * 20)], living=[world.row.pk])
    with django_assert_num_queries(1):  # type: ignore[operator]
        figures = selectors.overview_figures([world.row])[world.row.pk]
    assert figures.latest_p99_ms == pytest.approx(50, rel=0.01)
    assert figures.latest_requests_per_s == pytest.approx(2)
    assert len(figures.p99_ms) == 30
    Rollup.objects.all().delete()
    store.write([window(world.row.pk, ts=now - 120, seconds=[0.05] * 20)], living=[world.row.pk])
    figures = selectors.overview_figures([world.row])[world.row.pk]
    assert figures.latest_p99_ms is None
    assert figures.p99_ms[-1] == pytest.approx(50, rel=0.01)


def test_means_keep_their_weights_in_the_table_and_older_rows_have_one_for_all(world: World) -> None:
    written = window(world.row.pk, ts=T0, seconds=[0.01])
    store.write([written], living=[world.row.pk])
    shape = grid(T0, T0 + 60, now=T0 + 60)
    assert store.read(world.row.pk, shape) == [written]
    row = Rollup.objects.get()
    Rollup.objects.update(data=row.data | {"levels": 5})
    assert store.read(world.row.pk, shape) == [written]


def test_a_sketch_survives_the_table(world: World) -> None:
    seconds = [0.001, 0.01, 0.1, 1.0]
    store.write([window(world.row.pk, ts=T0, seconds=seconds)], living=[world.row.pk])
    assert merge_bytes([_rows(10)[0][2]]) == sketch_of(seconds)
