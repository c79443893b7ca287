"""A worker's hold on its job: heartbeats, log lines and progress, and letting go in time.

The hold is renewed from the loop that watches the child process, never from a thread beside a build. If no
renewal has succeeded for three quarters of a lease (monotonic clock), the attempt stops itself before the
lease can expire elsewhere. A loop that is itself stuck, in a database that answers nothing or in a frozen
process, cannot do that: so the child is told until when it is held (`until`), and ends by itself then.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import structlog
from django.conf import settings
from django.db import InterfaceError, OperationalError, close_old_connections

from controlplane.core import stopping
from optimizer import transitions
from optimizer.domain.jobs import FailureReason
from optimizer.models import JobEvent
from optimizer.transitions import Claim, LeaseLost

log = structlog.get_logger(__name__)

FLUSH_EVERY_S = 0.1
MAX_BUFFERED = 5_000
LEVEL_LENGTH = 10
RETRY_EVERY_S = 0.2


class Cancelled(Exception):
    """A person asked for it; the child must die and the job end as cancelled."""


class StepFailed(Exception):
    """The child ended without a result: why, and the sentence that the page shows."""

    def __init__(self, reason: FailureReason, message: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message


class Stopped(Exception):
    """The worker was told to stop and has waited long enough; the job goes back to the queue."""


@dataclass(kw_only=True)
class Hold:
    """Use from one thread. `tend` is called a few times a second and does what is due."""

    claim: Claim
    _events: list[JobEvent] = field(default_factory=list)
    _progress: dict[str, Any] = field(default_factory=dict)
    _began_at: float = field(default_factory=time.monotonic)
    _renewed_at: float = field(default_factory=time.monotonic)
    _flushed_at: float = 0.0

    @property
    def renew_every_s(self) -> float:
        return settings.ENVIRONMENT.lease_s / 4

    @property
    def until(self) -> float:
        """On the monotonic clock: from then on somebody else may have the job."""
        return self._renewed_at + 3 * self.renew_every_s

    def _now(self) -> datetime:
        """As the database would say it: pages subtract these times from its own."""
        return self.claim.started_at + timedelta(seconds=time.monotonic() - self._began_at)

    def say(
        self,
        message: str,
        *,
        kind: str = JobEvent.Kind.LOG,
        level: str = "info",
        data: dict[str, Any] | None = None,
    ) -> None:
        """Adds a line; `tend` writes it within a tenth of a second. While the database is away the first
        MAX_BUFFERED wait, and one more says that there were others."""
        if len(self._events) >= MAX_BUFFERED:
            self._events[-1].message = "(more lines than could be written while the database was away)"
            return
        self._events.append(
            JobEvent(
                job_id=self.claim.job_id,
                attempt=self.claim.attempt,
                kind=kind,
                level=level[:LEVEL_LENGTH],
                message=message,
                data=data or {},
                at=self._now(),
            )
        )

    def step(self, name: str, *, index: int, count: int) -> None:
        self._progress |= {
            "step": name,
            "step_index": index,
            "step_count": count,
            "progress_done": 0,
            "progress_total": 0,
        }
        self.say(name, kind=JobEvent.Kind.STEP, data={"index": index, "of": count})

    def progress(self, *, done: float, total: float) -> None:
        self._progress |= {"progress_done": done, "progress_total": total}

    def tend(self) -> None:
        """Writes what waits and renews when due; outlives a database outage. Raises LeaseLost, Cancelled or Stopped."""
        now = time.monotonic()
        self._refuse_if_overdue()
        stopping_s = stopping.asked_for_s()
        if stopping_s is not None and stopping_s > settings.ENVIRONMENT.worker_finish_s:
            raise Stopped
        said = (self._events or self._progress) and now - self._flushed_at > FLUSH_EVERY_S
        if said or now - self._renewed_at > self.renew_every_s:
            try:
                self._renew()
            except (OperationalError, InterfaceError) as error:
                self._wait_for_database(error)

    def flush(self) -> None:
        """Everything said so far is in the database when this returns. Raises LeaseLost or Cancelled."""
        self.persist(self._renew)

    def persist[Result](self, write: Callable[[], Result]) -> Result:
        """Repeats a write that the database's absence prevented, for as long as the job is surely ours.

        Raises LeaseLost after that. `write` must bear that an earlier try did land.
        """
        while True:
            try:
                return write()
            except (OperationalError, InterfaceError) as error:
                self._wait_for_database(error)
                self._refuse_if_overdue()

    def _refuse_if_overdue(self) -> None:
        if time.monotonic() > self.until:
            raise LeaseLost

    def _wait_for_database(self, error: Exception) -> None:
        log.warning("heartbeat_failed", job=self.claim.job_id, cause=str(error).partition("\n")[0])
        close_old_connections()
        time.sleep(RETRY_EVERY_S)

    def _renew(self) -> None:
        now = time.monotonic()
        cancelled = transitions.heartbeat(self.claim, events=self._events, **self._progress)
        self._events, self._progress = [], {}
        self._renewed_at = self._flushed_at = now
        if cancelled:
            raise Cancelled
