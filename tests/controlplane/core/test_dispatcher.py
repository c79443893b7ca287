"""The process that owns time: duties run when due or woken, one dispatcher at a time, and survive what fails."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from django.db import InterfaceError, connection

from controlplane.core import bus
from controlplane.core.bus import Due
from controlplane.core.dispatcher import Dispatcher, Duty, perform

pytestmark = pytest.mark.django_db(transaction=True)

LONG_S = 600.0
"""A period that no test lives to see."""
PATIENCE_S = 20.0


class Counted:
    """Something to do, that can be waited for."""

    def __init__(self, then: Callable[[int], None] = lambda number: None) -> None:
        self.count = 0
        self._then = then
        self._changed = threading.Condition()

    def __call__(self) -> None:
        with self._changed:
            self.count += 1
            self._changed.notify_all()
        self._then(self.count)

    def reaches(self, count: int) -> bool:
        with self._changed:
            return self._changed.wait_for(lambda: self.count >= count, timeout=PATIENCE_S)


@contextmanager
def running(*duties: Duty) -> Iterator[Dispatcher]:
    dispatcher = Dispatcher(duties=duties)
    thread = threading.Thread(target=dispatcher.run)
    thread.start()
    try:
        yield dispatcher
    finally:
        dispatcher.stop()
        thread.join(PATIENCE_S)
        assert not thread.is_alive()


def hears() -> bool:
    """Whether a dispatcher listens to the outbox by now."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT count(*) FROM pg_stat_activity WHERE query = %s AND datname = current_database()",
            [f"LISTEN {bus.OUTBOX}"],
        )
        return bool(cursor.fetchone() == (1,))


def until(condition: Callable[[], bool]) -> None:
    pause = threading.Event()
    for _ in range(int(PATIENCE_S / 0.05)):
        if condition():
            return
        pause.wait(0.05)
    pytest.fail("it never came to be")


def test_a_duty_runs_at_once_and_then_by_its_period() -> None:
    often = Counted()
    with running(Duty(name="often", run=often, every_s=0.01)):
        assert often.reaches(5)


def test_a_notification_wakes_who_asked_for_it_and_nobody_else() -> None:
    woken, elsewhere, asleep = Counted(), Counted(), Counted()
    with running(
        Duty(name="woken", run=woken, every_s=LONG_S, woken_by=Due.JOBS),
        Duty(name="woken by other work", run=elsewhere, every_s=LONG_S, woken_by=Due.SEARCHES),
        Duty(name="asleep", run=asleep, every_s=LONG_S),
    ):
        until(hears)
        assert asleep.reaches(1)
        assert elsewhere.reaches(1)
        assert woken.reaches(1)
        for _ in range(4):  # more often than the runs that a start makes by itself
            before = woken.count
            bus.wake_dispatcher(Due.JOBS)
            assert woken.reaches(before + 1)
        assert elsewhere.count <= 2, "a start may wake it once more"
        assert asleep.count == 1
        before = elsewhere.count
        bus.wake_dispatcher(Due.JOBS, Due.SEARCHES)
        assert elsewhere.reaches(before + 1)


def test_a_duty_that_fails_runs_again_and_harms_no_other() -> None:
    def fail(number: int) -> None:
        raise [RuntimeError("x"), InterfaceError()][number % 2]

    failing, other = Counted(fail), Counted()
    with running(
        Duty(name="failing", run=failing, every_s=0.01), Duty(name="other", run=other, every_s=0.01)
    ):
        assert failing.reaches(6)
        assert other.reaches(6)


def test_after_a_lost_connection_it_listens_again_and_looks_at_everything() -> None:
    woken = Counted()
    with running(Duty(name="woken", run=woken, every_s=LONG_S, woken_by=Due.JOBS)):
        until(hears)
        assert woken.reaches(1)
        before = woken.count
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE pid <> pg_backend_pid() AND datname = current_database()"
            )
        assert woken.reaches(before + 1)


def test_a_duty_whose_connection_was_ended_works_on_a_new_one() -> None:
    def query(number: int) -> None:
        with connection.cursor() as cursor:
            if number == 2:
                cursor.execute("SELECT pg_terminate_backend(pg_backend_pid())")
            cursor.execute("SELECT 1")

    asking = Counted(query)
    with running(Duty(name="asking", run=asking, every_s=0.01)):
        assert asking.reaches(5)


def test_of_two_dispatchers_one_works_and_the_other_carries_on_when_it_stops() -> None:
    began, may_end = threading.Event(), threading.Event()

    def hold(number: int) -> None:
        began.set()
        may_end.wait(PATIENCE_S)

    first, second = Counted(hold), Counted()
    with running(Duty(name="shared", run=first, every_s=0.01)) as working:
        assert began.wait(PATIENCE_S)
        assert not perform(Duty(name="shared", run=second, every_s=1))
        assert perform(Duty(name="another", run=second, every_s=1))
        working.stopping.set()
        may_end.set()
    assert perform(Duty(name="shared", run=second, every_s=1))
    assert (first.count, second.count) == (1, 2)


def test_stopping_waits_for_what_is_being_done_and_not_for_a_period() -> None:
    began, may_end = threading.Event(), threading.Event()
    done: list[int] = []

    def work(number: int) -> None:
        began.set()
        may_end.wait(PATIENCE_S)
        done.append(number)

    with running(
        Duty(name="work", run=Counted(work), every_s=LONG_S), Duty(name="rest", run=Counted(), every_s=LONG_S)
    ) as dispatcher:
        assert began.wait(PATIENCE_S)
        dispatcher.stop()
        may_end.set()
    assert done == [1]
