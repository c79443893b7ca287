"""Counters become what happened in between: never negative, never giant, never invented."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deployments.domain.vocabulary import MetricsMap, Source, Word
from deployments.telemetry.exposition import BadPageReason, PageReader
from deployments.telemetry.scrape import Scrape, Target, Unanswered
from deployments.telemetry.series import Measured, NoInterval, Reading, ReplicaSeries, SeriesBook
from tests.deployments.telemetry.fake_exporter import METRICS, FakeReplica, Mode

TARGET = Target(deployment="d1", revision=1, replica="ranker-0", url="http://127.0.0.1:1/", metrics=METRICS)


def scrape(page: bytes | str, at: float, *, target: Target = TARGET) -> Scrape:
    body = page if isinstance(page, bytes) else page.encode()
    page_read = PageReader(names=target.metrics.sample_names).read(body)
    return Scrape(target=target, at_monotonic=at, at_wall=1000 + at, late_s=0, page=page_read)


def failed(at: float, *, target: Target = TARGET) -> Scrape:
    return Scrape(
        target=target, at_monotonic=at, at_wall=1000 + at, late_s=0, failure=Unanswered.TIMEOUT, detail=""
    )


def foreign(words: dict[str, str | Source], *pages: str, every_s: float = 2.0) -> list[Reading]:
    target = replace(TARGET, metrics=MetricsMap.of(words))
    series = ReplicaSeries(metrics=target.metrics)
    return [series.observe(scrape(page, 10 + every_s * n, target=target)) for n, page in enumerate(pages)]


@pytest.fixture
def replica() -> FakeReplica:
    return FakeReplica("ranker-0")


@pytest.fixture
def series() -> ReplicaSeries:
    return ReplicaSeries(metrics=METRICS)


def test_the_first_page_is_a_baseline(series: ReplicaSeries, replica: FakeReplica) -> None:
    replica.serve([0.01] * 1000)
    replica.queue_depth = 3
    reading = series.observe(scrape(replica.page(), 10))
    assert (reading.no_interval, reading.interval) == (NoInterval.BASELINE, None)
    assert reading.queue_depth == Measured(gauge=3)


def test_two_pages_tell_what_happened_between_them(series: ReplicaSeries, replica: FakeReplica) -> None:
    replica.serve([0.01] * 1000, failed=7)
    series.observe(scrape(replica.page(), 10))
    replica.serve([0.02] * 40 + [0.3], failed=2)
    interval = series.observe(scrape(replica.page(), 12)).interval
    assert interval is not None
    assert (interval.seconds, interval.requests, interval.errors) == (2, 43, {"overloaded": 2})
    assert interval.latency.count == 41
    assert interval.latency.sum == pytest.approx(40 * 0.02 + 0.3)
    assert interval.latency.quantile(1) == pytest.approx(0.3, rel=0.01)
    assert not interval.latency.coarse


def test_what_a_process_counts_for_the_first_time_counts_from_zero(
    series: ReplicaSeries, replica: FakeReplica
) -> None:
    series.observe(scrape(replica.page(), 10))
    replica.serve([0.5], failed=3)
    interval = series.observe(scrape(replica.page(), 12)).interval
    assert interval is not None
    assert (interval.requests, interval.errors, interval.latency.count) == (4, {"overloaded": 3}, 1)


@given(
    before=st.lists(st.floats(1e-5, 100), max_size=200),
    after=st.lists(st.floats(1e-5, 100), max_size=200),
)
def test_the_sketch_of_two_pages_is_that_of_the_values_between(
    before: list[float], after: list[float]
) -> None:
    replica, series = FakeReplica("ranker-0"), ReplicaSeries(metrics=METRICS)
    replica.serve(before)
    series.observe(scrape(replica.page(), 10))
    replica.serve(after)
    interval = series.observe(scrape(replica.page(), 12)).interval
    assert interval is not None
    assert interval.latency.count == len(after)
    for q in (0.0, 0.5, 0.99, 1.0):
        if after:
            true = sorted(after)[int(q * (len(after) - 1))]
            assert interval.latency.quantile(q) == pytest.approx(true, rel=0.01 * (1 + 1e-9))


def test_queue_depth_and_in_flight_are_measured_by_gauge_and_by_time_counter(
    series: ReplicaSeries, replica: FakeReplica
) -> None:
    series.observe(scrape(replica.page(), 10))
    replica.queue_seconds, replica.in_flight_seconds = 9.0, 20.0
    replica.queue_depth, replica.in_flight = 0, 64
    reading = series.observe(scrape(replica.page(), 12))
    assert (reading.queue_depth, reading.in_flight) == (Measured(0, 4.5), Measured(64, 10))
    assert (reading.queue_depth.larger, reading.in_flight.larger) == (4.5, 64)


@pytest.mark.parametrize(("gauge", "known"), [(-1, 0), (1e9, None), (1e308, None)])
def test_a_gauge_beyond_belief_is_not_known_and_one_below_zero_is_zero(
    series: ReplicaSeries, gauge: float, known: float | None
) -> None:
    reading = series.observe(scrape(f"slipway_queue_depth {gauge}\nslipway_queue_depth {gauge}\n", 10))
    assert reading.queue_depth == Measured(gauge=known)


def test_an_idle_replica_is_a_measured_zero(series: ReplicaSeries, replica: FakeReplica) -> None:
    series.observe(scrape(replica.page(), 10))
    reading = series.observe(scrape(replica.page(), 12))
    assert reading.interval is not None
    assert reading.queue_depth == reading.in_flight == Measured(0, 0)
    assert reading.interval.requests == 0


@pytest.mark.faults
def test_F37_a_counter_reset_is_a_new_baseline(series: ReplicaSeries, replica: FakeReplica) -> None:
    replica.serve([0.01] * 5000)
    series.observe(scrape(replica.page(), 10))
    replica.restart()
    replica.serve([0.01] * 3)
    reading = series.observe(scrape(replica.page(), 12))
    assert (reading.no_interval, reading.interval) == (NoInterval.RESET, None)
    replica.serve([0.01] * 4)
    after = series.observe(scrape(replica.page(), 14)).interval
    assert after is not None
    assert (after.requests, after.latency.count) == (4, 4)


@pytest.mark.faults
def test_F37_a_process_that_overtook_its_predecessor_is_known_by_its_start(series: ReplicaSeries) -> None:
    page = "slipway_requests_total {count}\nprocess_start_time_seconds {start}\n"
    series.observe(scrape(page.format(count=5, start=1.7e9), 10))
    reading = series.observe(scrape(page.format(count=900, start=1.8e9), 12))
    assert reading.no_interval is NoInterval.RESET


@pytest.mark.faults
def test_F37_a_replaced_replica_is_a_new_series(replica: FakeReplica) -> None:
    book = SeriesBook()
    replica.serve([0.01] * 10)
    book.observe(scrape(replica.page(), 10))
    replica.serve([0.01] * 90_000)
    other = replace(TARGET, incarnation="pid 8")
    assert book.observe(scrape(replica.page(), 12, target=other)).no_interval is NoInterval.BASELINE
    book.keep_only([other])
    assert book.observe(scrape(replica.page(), 14)).no_interval is NoInterval.BASELINE
    assert book.observe(scrape(replica.page(), 14, target=other)).interval is not None


@pytest.mark.faults
@pytest.mark.parametrize("step", [-1, -(2**32) + 7, 10**12], ids=["back by one", "wrapped", "leapt"])
def test_F37_no_step_of_a_counter_makes_a_giant_rate(series: ReplicaSeries, step: int) -> None:
    start = 2**32 - 3
    series.observe(scrape(f"slipway_requests_total {start}\n", 10))
    reading = series.observe(scrape(f"slipway_requests_total {start + step}\n", 12))
    assert (reading.no_interval, reading.interval) == (NoInterval.RESET, None)
    following = series.observe(scrape(f"slipway_requests_total {start + step + 2}\n", 14))
    assert following.interval is not None
    assert following.interval.requests == 2


@pytest.mark.faults
def test_F37_a_series_that_was_left_out_once_does_not_count_its_history_again(series: ReplicaSeries) -> None:
    both = 'slipway_requests_total{{code="200"}} {0}\nslipway_requests_total{{code="500"}} 1000000\n'
    series.observe(scrape(both.format(10), 10))
    series.observe(scrape('slipway_requests_total{code="200"} 11\n', 12))
    interval = series.observe(scrape(both.format(12), 14)).interval
    assert interval is not None
    assert interval.requests == 1


@pytest.mark.faults
@given(
    events=st.lists(
        st.one_of(st.integers(0, 500), st.sampled_from(["restart", "fail", "leave out", "pause"])),
        max_size=25,
    )
)
def test_F37_whatever_happens_rates_stay_between_zero_and_the_truth(events: list[int | str]) -> None:
    replica, series = FakeReplica("ranker-0"), ReplicaSeries(metrics=METRICS)
    truth = counted = 0.0
    at = 10.0
    for event in events:
        at += 30.0 if event == "pause" else 2.0
        if isinstance(event, int):
            replica.serve([0.01] * event)
            truth += event
        elif event == "restart":
            replica.restart()
        elif event == "leave out":
            page = b"\n".join(line for line in replica.page().split(b"\n") if b"requests_total" not in line)
            interval = series.observe(scrape(page, at)).interval
            counted += interval.requests if interval else 0
            continue
        elif event == "fail":
            assert series.observe(failed(at)).interval is None
            continue
        reading = series.observe(scrape(replica.page(), at))
        if reading.interval is not None:
            assert reading.interval.requests >= 0
            assert reading.interval.latency.count >= 0
            counted += reading.interval.requests
    assert counted <= truth


def test_a_gap_stays_a_gap(series: ReplicaSeries, replica: FakeReplica) -> None:
    series.observe(scrape(replica.page(), 10))
    for at in (12, 14, 16):
        reading = series.observe(failed(at))
        assert (reading.failure, reading.interval) == (Unanswered.TIMEOUT, None)
        assert reading.queue_depth == Measured()
    replica.serve([0.01] * 5000)
    assert series.observe(scrape(replica.page(), 18)).no_interval is NoInterval.GAP
    replica.serve([0.01] * 2)
    after = series.observe(scrape(replica.page(), 20)).interval
    assert after is not None
    assert after.requests == 2


def test_one_missed_page_lengthens_the_interval(series: ReplicaSeries, replica: FakeReplica) -> None:
    series.observe(scrape(replica.page(), 10))
    series.observe(failed(12))
    replica.serve([0.01] * 8)
    interval = series.observe(scrape(replica.page(), 14)).interval
    assert interval is not None
    assert (interval.requests, interval.seconds) == (8, 4)


def test_time_counters_may_step_back_by_their_rounding(series: ReplicaSeries, replica: FakeReplica) -> None:
    replica.queue_seconds = 1000.0000001
    series.observe(scrape(replica.page(), 10))
    replica.queue_seconds = 1000.0
    reading = series.observe(scrape(replica.page(), 12))
    assert (reading.no_interval, reading.queue_depth.larger) == (None, 0)


def test_ever_new_series_are_refused(series: ReplicaSeries) -> None:
    reason = None
    for number in range(3):
        page = "".join(f'slipway_requests_total{{n="{number}-{n}"}} 1\n' for n in range(20_000))
        reason = series.observe(scrape(page, 10 + 2 * number)).failure
    assert reason is BadPageReason.TOO_MANY_SERIES


def test_the_words_of_another_stack_are_scaled_summed_and_filtered() -> None:
    words: dict[str, str | Source] = {
        "requests": Source(name="nv_inference_request_success", where={"model": "ranker"}),
        "queue_seconds_total": Source(name="nv_inference_queue_duration_us", scale=1e-6),
        "queue_depth": "nv_inference_pending_request_count",
    }
    page = (
        'nv_inference_request_success{{model="ranker",version="1"}} {0}\n'
        'nv_inference_request_success{{model="ranker",version="2"}} {0}\n'
        'nv_inference_request_success{{model="other",version="1"}} 9{0}\n'
        'nv_inference_queue_duration_us{{model="ranker"}} {1}\n'
        'nv_inference_pending_request_count{{model="ranker"}} 1\n'
        'nv_inference_pending_request_count{{model="other"}} 2\n'
    )
    _, reading = foreign(words, page.format(10, 1_000_000), page.format(30, 9_000_000))
    assert reading.interval is not None
    assert (reading.interval.requests, reading.queue_depth) == (40, Measured(3, 4.0))
    assert reading.in_flight == Measured()


def test_a_time_counter_that_is_not_printed_is_not_a_zero() -> None:
    words: dict[str, str | Source] = {
        "in_flight_seconds_total": "busy_seconds_total",
        "requests": "calls_total",
    }
    first, second = foreign(words, "calls_total 1\n", "calls_total 2\n")
    assert first.in_flight == second.in_flight == Measured()


def test_foreign_buckets_are_marked_coarse_and_counted() -> None:
    words: dict[str, str | Source] = {"latency": "bento_duration_seconds"}
    page = "\n".join(
        [
            'bento_duration_seconds_bucket{{route="a",le="0.005"}} {0}',
            'bento_duration_seconds_bucket{{route="a",le="0.01"}} {1}',
            'bento_duration_seconds_bucket{{route="a",le="0.025"}} {2}',
            'bento_duration_seconds_bucket{{route="a",le="+Inf"}} {2}',
            'bento_duration_seconds_sum{{route="a"}} 1.0',
            'bento_duration_seconds_bucket{{route="b",le="0.005"}} {0}',
            'bento_duration_seconds_bucket{{route="b",le="0.01"}} {0}',
            'bento_duration_seconds_bucket{{route="b",le="0.025"}} {0}',
            'bento_duration_seconds_bucket{{route="b",le="+Inf"}} {0}',
            'bento_duration_seconds_sum{{route="b"}} 1.0',
        ]
    )
    _, reading = foreign(words, page.format(1, 1, 1), page.format(1, 101, 151))
    assert reading.interval is not None
    assert reading.interval.latency.coarse
    assert (reading.interval.requests, reading.interval.latency.count) == (150, 150)
    median = reading.interval.latency.quantile(0.5)
    assert median is not None
    assert 0.005 <= median <= 0.01


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ({"0.5": 5, "1.0": 9, "+Inf": 9}, {"0.5": 8, "+Inf": 12}),
        ({"0.5": 5, "1.0": 9, "+Inf": 9}, {"0.5": 9, "1.0": 8, "+Inf": 12}),
        ({"0.5": 5, "+Inf": 9}, {"0.5": 4, "+Inf": 12}),
        ({"0.5": 5, "+Inf": 9}, {"0.5": 15, "+Inf": 12}),
    ],
    ids=["lost a bucket", "not cumulative", "went back", "more than its count"],
)
def test_a_histogram_that_contradicts_itself_is_a_new_baseline(
    first: dict[str, int], second: dict[str, int]
) -> None:
    pages = [
        "".join(f'h_bucket{{le="{le}"}} {count}\n' for le, count in page.items()) for page in (first, second)
    ]
    _, reading = foreign({"latency": "h"}, *pages)
    assert (reading.no_interval, reading.interval) == (NoInterval.RESET, None)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ((1, 2, 3.0), (2, 3, 1.7e308)),
        ((1, 2, -1.7e308), (2, 3, 1.7e308)),
        ((-1e308, 2, 1), (1e308, 3, 1)),
        ((1, 2, 1), (1e308, 3, 1)),
    ],
    ids=["sum", "sum from below", "bucket from below", "bucket"],
)
@pytest.mark.parametrize("le", ["0.5", "1.0", "1e-9"])
def test_a_histogram_beyond_belief_is_a_new_baseline(
    first: tuple[float, float, float], second: tuple[float, float, float], le: str
) -> None:
    pages = [
        f'h_bucket{{le="{le}"}} {bucket}\nh_bucket{{le="+Inf"}} {count}\nh_sum {total}\n'
        for bucket, count, total in (first, second)
    ]
    _, reading = foreign({"latency": "h"}, *pages)
    assert (reading.no_interval, reading.interval) == (NoInterval.RESET, None)


def test_a_reason_is_cut_and_holds_nothing_that_cannot_be_stored_or_shown(
    series: ReplicaSeries, replica: FakeReplica
) -> None:
    series.observe(scrape(replica.page(), 10))
    replica.serve([], failed=2, reason="a\0b\u202e" + 100 * "c")
    interval = series.observe(scrape(replica.page(), 12)).interval
    assert interval is not None
    assert interval.errors == {"a b " + 76 * "c": 2}


def test_percentiles_of_a_known_distribution_come_out_of_pages_within_one_percent(
    series: ReplicaSeries, replica: FakeReplica
) -> None:
    values = np.random.default_rng(3).lognormal(-4, 0.8, 4000)
    series.observe(scrape(replica.page(), 10))
    replica.serve(values)
    interval = series.observe(scrape(replica.page(), 12)).interval
    assert interval is not None
    for q in (0.5, 0.95, 0.99):
        true = float(np.quantile(values, q, method="lower"))
        assert interval.latency.quantile(q) == pytest.approx(true, rel=0.01)


def test_a_map_with_a_foreign_word_is_refused() -> None:
    with pytest.raises(ValueError, match="speed"):
        MetricsMap.of({"speed": "some_total"})


def test_a_map_names_the_samples_it_needs() -> None:
    assert METRICS.speaks(Word.LATENCY)
    assert not METRICS.speaks(Word.GPU_UTILIZATION, Word.BATCH_SIZE)
    assert {"slipway_latency_seconds_bucket", "slipway_queue_depth"} < METRICS.sample_names


def test_a_nan_gauge_never_reaches_a_reading(replica: FakeReplica) -> None:
    replica.mode = Mode.NAN
    with pytest.raises(Exception, match="not_finite"):
        PageReader(names=METRICS.sample_names, finite=True).read(replica.page())
