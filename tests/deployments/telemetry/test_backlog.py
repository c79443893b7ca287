"""Windows wait in order, and where there are too many the oldest go and are counted."""

from deployments.telemetry.backlog import Backlog
from tests.deployments.telemetry.windows import window

WINDOWS = [window(1, ts=10 * place, seconds=[0.01]) for place in range(6)]


def test_the_oldest_come_first_and_stay_until_they_are_written() -> None:
    backlog = Backlog()
    backlog.add(WINDOWS[:4])
    assert backlog.first(3) == backlog.first(3) == WINDOWS[:3]
    backlog.written(3)
    backlog.add(WINDOWS[4:])
    assert backlog.first(100) == WINDOWS[3:]


def test_where_it_is_full_the_oldest_are_dropped_and_counted() -> None:
    backlog = Backlog(most=4)
    backlog.add(WINDOWS)
    assert (backlog.first(100), backlog.dropped) == (WINDOWS[2:], 2)
    backlog.add(WINDOWS[:1])
    assert (backlog.first(100), backlog.dropped) == ([*WINDOWS[3:], WINDOWS[0]], 3)
