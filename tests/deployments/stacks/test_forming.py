"""The micro-batcher's rule: which waiting requests leave together, and when."""

from hypothesis import given
from hypothesis import strategies as st

from deployments.stacks.batching import Batching
from deployments.stacks.fastapi.forming import Lanes, Waiting
from deployments.stacks.fastapi.load import Gauge

DELAY_S = 0.001


def lanes(*, largest: int = 8, preferred: tuple[int, ...] = ()) -> Lanes:
    return Lanes(
        Batching(
            max_batch_size=largest,
            preferred_batch_size=preferred,
            max_queue_delay_microseconds=round(DELAY_S * 1e6),
        )
    )


def waiting(*, lane: str | None = "a", rows: int = 1, since: float = 0.0) -> Waiting:
    return Waiting(lane=lane, rows=rows, since=since)


def filled(queue: Lanes, *items: Waiting) -> Lanes:
    for item in items:
        queue.add(item)
    return queue


def test_a_lone_request_leaves_when_it_has_waited_the_delay() -> None:
    queue = filled(lanes(), one := waiting(since=5.0))
    assert queue.deadline() == 5.0 + DELAY_S
    assert queue.take(5.0 + DELAY_S / 2) == []
    assert queue.take(5.0 + DELAY_S) == [one]
    assert queue.deadline() is None


def test_a_full_batch_leaves_at_once_and_keeps_the_rest() -> None:
    queue = lanes(largest=3)
    items = [waiting() for _ in range(4)]
    assert [queue.add(item) for item in items] == [False, False, True, True]
    assert queue.take(0.0) == items[:3]
    assert queue.take(0.0) == []


def test_a_preferred_size_leaves_at_once() -> None:
    queue = lanes(preferred=(2, 4))
    items = [waiting() for _ in range(3)]
    queue.add(items[0])
    assert queue.take(0.0) == []
    queue.add(items[1])
    assert queue.take(0.0) == items[:2]


def test_the_largest_preferred_size_that_fits_goes_first() -> None:
    items = [waiting() for _ in range(7)]
    assert filled(lanes(preferred=(2, 4)), *items).take(0.0) == items[:4]


def test_batching_off_means_one_row_at_once() -> None:
    items = [waiting(), waiting()]
    assert filled(lanes(largest=1), *items).take(0.0) == items[:1]


def test_requests_of_different_shapes_never_share_a_batch() -> None:
    first, other, second = waiting(lane="a"), waiting(lane="b"), waiting(lane="a")
    queue = filled(lanes(largest=2), first, other, second)
    assert queue.take(0.0) == [first, second]
    assert queue.take(DELAY_S) == [other]


def test_a_request_without_batch_axis_goes_alone_and_never_waits() -> None:
    items = [waiting(lane=None), waiting(lane=None)]
    queue = filled(lanes(), *items)
    assert queue.take(0.0) == items[:1]
    assert queue.take(0.0) == items[1:]


def test_an_abandoned_request_is_not_in_any_batch() -> None:
    kept, gone = waiting(), waiting()
    queue = filled(lanes(largest=2), kept, gone)
    assert queue.discard(gone)
    assert not queue.discard(gone)
    assert queue.take(0.0) == []
    assert queue.take(DELAY_S) == [kept]


ITEMS = st.lists(
    st.tuples(st.sampled_from(["a", "b", None]), st.integers(1, 4), st.floats(0, 0.002)), max_size=40
)


@given(items=ITEMS, preferred=st.sets(st.integers(1, 4)), doomed=st.sets(st.integers(0, 39)))
def test_every_request_leaves_once_in_order_within_its_lane_and_in_a_batch_that_fits(
    items: list[tuple[str | None, int, float]], preferred: set[int], doomed: set[int]
) -> None:
    queue = lanes(largest=4, preferred=tuple(sorted(preferred)))
    now = 0.0
    queued: list[Waiting] = []
    left: list[list[Waiting]] = []
    for lane, rows, later in items:
        now += later
        queued.append(waiting(lane=lane, rows=rows, since=now))
        queue.add(queued[-1])
        if batch := queue.take(now):
            left.append(batch)
    discarded = {id(item) for number, item in enumerate(queued) if number in doomed and queue.discard(item)}
    now += DELAY_S
    while batch := queue.take(now):
        left.append(batch)
    assert len(queue) == 0
    for lane in ("a", "b", None):
        expected = [item for item in queued if item.lane == lane and id(item) not in discarded]
        assert [item for batch in left for item in batch if item.lane == lane] == expected
    for batch in left:
        assert len({item.lane for item in batch}) == 1
        assert len(batch) == 1 if batch[0].lane is None else sum(item.rows for item in batch) <= 4


@given(st.lists(st.tuples(st.floats(0, 10), st.floats(0, 10)), max_size=20), st.floats(0, 25))
def test_the_time_counter_is_the_sum_of_all_waits_so_far(spans: list[tuple[float, float]], at: float) -> None:
    gauge = Gauge()
    edges = [(start, 1) for start, _ in spans] + [(start + length, -1) for start, length in spans]
    for moment, change in sorted(edges):
        if moment <= at:
            gauge.add(change, moment)
    waited = sum(max(0.0, min(at, start + length) - start) for start, length in spans)
    assert abs(gauge.advance(at) - waited) < 1e-6
    assert gauge.value == sum(start <= at for start, _ in spans) - sum(start + n <= at for start, n in spans)
