"""Signals do not lie: summed, aged, and an error rather than an old number or a made-up zero."""

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deployments.domain.sketch import Sketch
from deployments.telemetry.scrape import Target, Unanswered
from deployments.telemetry.series import Interval, Measured, NoInterval, Reading
from deployments.telemetry.signals import DeploymentSignals, Signal, SignalBook, SignalError, SignalName
from tests.deployments.telemetry.fake_exporter import METRICS

DEPTH, IN_FLIGHT = SignalName.QUEUE_DEPTH, SignalName.IN_FLIGHT
RATE, P99 = SignalName.REQUEST_RATE, SignalName.P99_LATENCY


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
    *,
    depth: float | None = 0,
    in_flight: float | None = 0,
    latencies: tuple[float, ...] = (),
    seconds: float = 2,
) -> Reading:
    interval = Interval(
        seconds=seconds, requests=float(len(latencies)), latency=Sketch.from_values(latencies)
    )
    return Reading(
        target=of,
        at_monotonic=at,
        at_wall=at,
        interval=interval,
        queue_depth=Measured(gauge=depth),
        in_flight=Measured(gauge=in_flight),
    )


def missed(of: Target, at: float) -> Reading:
    return Reading(
        target=of,
        at_monotonic=at,
        at_wall=at,
        failure=Unanswered.TIMEOUT,
        no_interval=NoInterval.FAILED,
    )


def book_of(*targets: Target, since: float = 0) -> SignalBook:
    book = SignalBook()
    book.expect({"d1": targets}, now=since)
    return book


def at(book: SignalBook, now: float) -> DeploymentSignals:
    return book.signals("d1", now=now, at_wall=1000 + now)


def test_queue_depth_and_in_flight_are_each_summed_over_replicas() -> None:
    one, two = target(1), target(2)
    book = book_of(one, two)
    book.take(reading(one, 10, depth=3, in_flight=5))
    book.take(reading(two, 11, depth=4, in_flight=8))
    signals = at(book, 12)
    assert (signals[DEPTH].value, signals[IN_FLIGHT].value) == (7, 13)
    assert (signals[DEPTH].age_s, signals[DEPTH].reporting, signals[DEPTH].expected) == (2, 2, 2)


def test_gauges_and_time_counters_are_summed_apart_and_the_larger_sum_counts() -> None:
    """Ten samples of two requests each on average, half of them too low: their sum is 20 both ways."""
    replicas = [target(number) for number in range(10)]
    book = book_of(*replicas)
    for number, one in enumerate(replicas):
        both = Measured(gauge=4.0 * (number % 2), counted=2.1)
        book.take(replace(reading(one, 10), queue_depth=both, in_flight=both))
    signals = at(book, 10)
    assert [signals[name].value for name in (DEPTH, IN_FLIGHT)] == [pytest.approx(21)] * 2


def test_a_replica_that_is_measured_in_one_way_only_stands_in_both_sums() -> None:
    known, fresh, silent = target(1), target(2), target(3)
    book = book_of(known, fresh, silent)
    for one, measured in ((known, Measured(1, 5)), (fresh, Measured(gauge=4)), (silent, Measured(counted=2))):
        book.take(replace(reading(one, 10), queue_depth=measured))
    assert at(book, 10)[DEPTH].value == 5 + 4 + 2


def test_an_idle_deployment_is_an_explicit_zero() -> None:
    book = book_of(target(1))
    book.take(reading(target(1), 10))
    signals = at(book, 10)
    assert [signals[name].value for name in (DEPTH, IN_FLIGHT, RATE)] == [0, 0, 0]
    assert signals[P99].error is SignalError.NO_REQUESTS


def test_rates_and_p99_are_of_the_last_ten_seconds_of_all_replicas() -> None:
    one, two = target(1), target(2)
    book = book_of(one, two)
    for beat in range(20):
        slow = (5.0,) if beat < 10 else ()
        book.take(reading(one, 2.0 * beat, latencies=(0.01,) * 20 + slow))
        book.take(reading(two, 2.0 * beat, latencies=(0.01,) * 19 + (0.5,)))
    signals = at(book, 39)
    assert signals[RATE].value == pytest.approx(20)
    assert signals[P99].value == pytest.approx(0.5, rel=0.01)


@pytest.mark.faults
def test_F36_a_replica_that_misses_a_scrape_keeps_its_value_for_three_periods() -> None:
    one, two = target(1), target(2)
    book = book_of(one, two)
    book.take(reading(two, 10, depth=6))
    for now in (10, 12, 14, 16):
        book.take(reading(one, now, depth=1))
        book.take(missed(two, now))
        signal = at(book, now)[DEPTH]
        assert (signal.value, signal.age_s, signal.error) == (7, now - 10, None)
    book.take(reading(one, 16.1, depth=1))
    signal = at(book, 16.1)[DEPTH]
    assert (signal.value, signal.error, signal.reporting, signal.expected) == (None, SignalError.STALE, 1, 2)


@pytest.mark.faults
def test_F36_the_last_value_is_held_for_eyes_for_sixty_seconds_then_unknown() -> None:
    book = book_of(target(1))
    book.take(reading(target(1), 10, depth=9))
    assert at(book, 12)[DEPTH].held is None
    for now in (17.0, 40.0, 70.0):
        signal = at(book, now)[DEPTH]
        assert (signal.value, signal.error) == (None, SignalError.STALE)
        assert (signal.held, signal.held_age_s) == (9, now - 10)
    unknown = at(book, 70.5)[DEPTH]
    assert (unknown.value, unknown.held, unknown.error) == (None, None, SignalError.STALE)


@pytest.mark.faults
def test_F36_all_replicas_silent_is_an_error_and_ends_with_the_first_answer() -> None:
    targets = [target(number) for number in range(20)]
    book = book_of(*targets)
    for one in targets:
        book.take(reading(one, 10, depth=1))
    assert at(book, 16)[DEPTH].value == 20
    assert at(book, 17)[DEPTH].error is SignalError.STALE
    for one in targets:
        book.take(reading(one, 20, depth=2))
    assert at(book, 20)[DEPTH].value == 40


@pytest.mark.faults
def test_F39_no_measurement_is_never_a_zero() -> None:
    book = book_of(target(1))
    assert at(book, 0)[DEPTH].error is SignalError.STALE, "expected, but not scraped yet"
    assert at(book, 100)[DEPTH].value is None
    book.take(reading(target(1), 100, depth=None, in_flight=2))
    assert at(book, 100)[DEPTH].error is SignalError.STALE, "the stack does not speak the word"
    assert at(book, 100)[IN_FLIGHT].value == 2
    assert book.signals("unknown", now=0, at_wall=0)[DEPTH].error is SignalError.NO_REPLICAS


@pytest.mark.faults
def test_F39_a_snapshot_that_is_read_late_is_an_error() -> None:
    book = book_of(target(1))
    book.take(reading(target(1), 10, depth=9))
    written = at(book, 11)
    soon, late, very_late = written.aged(5), written.aged(5.1), written.aged(60)
    assert (soon[DEPTH].value, soon[DEPTH].age_s) == (9, 6)
    assert (late[DEPTH].value, late[DEPTH].error, late[DEPTH].held) == (None, SignalError.STALE, 9)
    assert (very_late[DEPTH].value, very_late[DEPTH].held) == (None, None)


@pytest.mark.faults
@given(
    beats=st.lists(
        st.tuples(
            st.floats(0.1, 5), st.lists(st.one_of(st.none(), st.integers(0, 50)), min_size=3, max_size=3)
        ),
        max_size=30,
    )
)
def test_F39_a_value_is_always_the_sum_of_fresh_values(
    beats: list[tuple[float, list[int | None]]],
) -> None:
    targets = [target(number) for number in range(3)]
    book = book_of(*targets)
    now, last = 0.0, dict.fromkeys(targets, (math.nan, -math.inf))
    for pause, depths in beats:
        now += pause
        for one, depth in zip(targets, depths, strict=True):
            if depth is None:
                book.take(missed(one, now))
            else:
                book.take(reading(one, now, depth=depth))
                last[one] = (depth, now)
        signal = at(book, now)[DEPTH]
        fresh = [depth for depth, when in last.values() if now - when <= 6]
        assert (signal.value is None) == (signal.error is not None)
        if signal.value is not None:
            assert signal.value == sum(fresh)
            assert signal.age_s is not None
            assert signal.age_s <= 6
        if now > 6 and len(fresh) < 3:
            assert signal.error is SignalError.STALE


def test_a_replica_that_just_became_expected_has_three_periods_to_report() -> None:
    one, two = target(1), target(2)
    book = book_of(one)
    book.take(reading(one, 10, depth=5))
    book.expect({"d1": [one, two]}, now=10)
    signal = at(book, 11)[DEPTH]
    assert (signal.value, signal.reporting, signal.expected) == (5, 1, 2)
    book.take(reading(one, 17, depth=5))
    assert at(book, 17)[DEPTH].error is SignalError.STALE


def test_a_replica_that_is_gone_leaves_the_sum() -> None:
    one, two = target(1), target(2)
    book = book_of(one, two)
    book.take(reading(one, 10, depth=5))
    book.take(reading(two, 10, depth=6))
    book.expect({"d1": [two]}, now=11)
    assert at(book, 11)[DEPTH].value == 6
    book.take(reading(one, 12, depth=5))
    assert at(book, 12)[DEPTH].value == 6
    book.expect({}, now=13)
    assert at(book, 13)[DEPTH].error is SignalError.NO_REPLICAS


def test_a_replaced_process_does_not_inherit_the_value() -> None:
    old = target(1)
    new = replace(old, incarnation="pid 8")
    book = book_of(old)
    book.take(reading(old, 10, depth=50))
    book.expect({"d1": [new]}, now=11)
    assert at(book, 11)[DEPTH].value is None
    book.take(reading(new, 12, depth=0))
    assert at(book, 12)[DEPTH].value == 0


def test_one_revision_alone() -> None:
    old, new = target(1, revision=1), target(2, revision=2)
    book = book_of(old, new)
    book.take(reading(old, 10, depth=5))
    book.take(reading(new, 10, depth=7))
    assert book.signals("d1", now=10, at_wall=10, revision=2)[DEPTH].value == 7
    assert at(book, 10)[DEPTH].value == 12


def test_signals_survive_json() -> None:
    book = book_of(target(1), target(2))
    book.take(reading(target(1), 10, depth=5, latencies=(0.1, 0.2)))
    for now in (10.0, 30.0):
        signals = at(book, now)
        assert DeploymentSignals.from_json(signals.to_json()) == signals


def test_a_held_value_ages_with_its_signal() -> None:
    stale = Signal(value=None, age_s=20, error=SignalError.STALE, held=4, held_age_s=20)
    assert stale.aged(30, stale_after_s=6).held == 4
    assert stale.aged(41, stale_after_s=6).held is None


def test_a_queue_that_more_than_doubles_is_a_burst() -> None:
    one = target(1)
    book = book_of(one)
    depths = (0, 1, 2, 5, 7, 0, 0, 40, 80, 161)
    taken = [book.take(reading(one, number, depth=depth)) for number, depth in enumerate(depths)]
    assert taken == [False, True, False, True, False, False, False, True, False, True]
    assert not book.take(missed(one, 11))
    assert not book.take(reading(target(2), 12, depth=9)), "of a replica that is not expected"
