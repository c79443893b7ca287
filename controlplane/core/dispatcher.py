"""The process that owns time: it publishes due rows, takes back what silent workers hold, and cleans up.

Each app lists its duties in its `dispatch` module; the command puts them together. A duty runs in its own
thread, woken by its notification or its period, under a Postgres advisory lock, so that of two dispatchers one
works and the other carries on when it dies. A duty that fails says so and runs again; nothing it does may matter
when repeated.
"""

import threading
from collections.abc import Callable
from dataclasses import dataclass, field

import psycopg
import structlog
from django.db import InterfaceError, OperationalError, close_old_connections, connection

from controlplane.core.bus import OUTBOX, Due, conninfo

log = structlog.get_logger(__name__)

AGAIN_AFTER_S = 1.0
"""How soon a duty that the database failed runs again, however long its period."""
LOOK_UP_S = 0.2
"""How often the listener asks whether it shall stop: a part of the process's grace of 2 s that a busy machine needs."""


@dataclass(frozen=True, kw_only=True)
class Duty:
    """`run` is short and repeatable. `every_s` bounds how late it can be; `woken_by` is what it runs for at
    once."""

    name: str
    run: Callable[[], object]
    every_s: float
    woken_by: Due | None = None


@dataclass(kw_only=True)
class Dispatcher:
    duties: tuple[Duty, ...]
    stopping: threading.Event = field(default_factory=threading.Event)
    _wakes: dict[str, threading.Event] = field(default_factory=dict)

    def run(self) -> None:
        """Returns after `stop`, when every duty has finished what it was doing."""
        self._wakes = {duty.name: threading.Event() for duty in self.duties}
        threads = [threading.Thread(target=self._loop, args=[duty], name=duty.name) for duty in self.duties]
        for thread in threads:
            thread.start()
        while not self.stopping.is_set():
            try:
                self._listen()
            except psycopg.Error as error:
                log.warning("database_unavailable", cause=_first_line(error))
                self.stopping.wait(1)
        for thread in threads:
            thread.join()

    def stop(self) -> None:
        self.stopping.set()
        for wake in self._wakes.values():
            wake.set()

    def _listen(self) -> None:
        with psycopg.connect(conninfo(), autocommit=True) as listener:
            listener.execute(f"LISTEN {OUTBOX}")
            self._wake(*Due)
            while not self.stopping.is_set():
                for heard in listener.notifies(timeout=LOOK_UP_S, stop_after=1):
                    self._wake(heard.payload)

    def _wake(self, *due: str) -> None:
        """Those that it concerns, and no others: in one process they take the processor from each other."""
        for duty in self.duties:
            if duty.woken_by in due:
                self._wakes[duty.name].set()

    def _loop(self, duty: Duty) -> None:
        wake = self._wakes[duty.name]
        while True:
            wake.clear()
            if self.stopping.is_set():  # asked after clearing, or a stop in between would wait for the period
                break
            pause_s = duty.every_s
            try:
                perform(duty)
            except (OperationalError, InterfaceError) as error:
                log.warning("duty_postponed", duty=duty.name, cause=_first_line(error))
                close_old_connections()
                pause_s = min(pause_s, AGAIN_AFTER_S)
            except Exception:
                log.exception("duty_failed", duty=duty.name)
            wake.wait(pause_s)
        connection.close()


def _first_line(error: BaseException) -> str:
    return str(error).partition("\n")[0]


def perform(duty: Duty) -> bool:
    """Runs the duty unless another dispatcher is at it. Returns whether it ran."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_try_advisory_lock(hashtext(%s))", [f"duty:{duty.name}"])
        if cursor.fetchone() != (True,):
            return False
        try:
            duty.run()
        finally:
            cursor.execute("SELECT pg_advisory_unlock(hashtext(%s))", [f"duty:{duty.name}"])
    return True
