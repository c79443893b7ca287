"""Ids of log lines: they grow, and a window that moved on names the same line by the same id."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from deployments.domain.loglines import numbered


def _line(at_ms: int, event: str) -> str:
    return f'{{"at": "2026-11-24T10:00:{at_ms // 1000:02}.{at_ms % 1000:03}+00:00", "event": "{event}"}}'


@given(st.lists(st.integers(0, 59_999), min_size=2, max_size=40, unique=True), st.data())
def test_a_line_keeps_its_id_in_a_window_that_begins_later(moments: list[int], data: st.DataObject) -> None:
    texts = []
    for at_ms in sorted(moments):
        texts += [_line(at_ms, "said"), "a line without a time"]
    first = 2 * data.draw(st.integers(0, len(moments) - 1))
    whole = numbered(texts)
    assert numbered(texts[first:]) == whole[first:]
    assert all(before.id < after.id for before, after in pairwise(whole))


def test_lines_before_the_first_time_come_before_it() -> None:
    traceback, timed = numbered(["Traceback", _line(5, "crashed")])
    assert (traceback.id, traceback.at) == (1, None)
    assert timed.id > 1_000_000_000_000_000
    assert timed.id < 2**53, "a browser's numbers hold it"


def test_a_time_without_a_zone_or_sense_is_none() -> None:
    assert [
        line.at for line in numbered(['{"at": "noon", "event": "x"}', '{"at": "2026-01-01", "event": "y"}'])
    ] == [
        None,
        None,
    ]
