"""A worker's hold on its job: heartbeats, log lines and progress, and letting go in time.

The hold is renewed from the loop that watches the child process, never from a thread beside a build. If no
renewal has succeeded for three quarters of a lease (monotonic clock), the attempt stops itself before the
lease can expire elsewhere.
"""

import time
from dataclasses import dataclass, field
from typing import Any

import structlog
from django.conf import settings
from django.db import InterfaceError, OperationalError, close_old_connections
from django.utils import timezone

from optimizer import transitions
from optimizer.models import JobEvent
from optimizer.transitions import Claim, LeaseLost

log = structlog.get_logger(__name__)

FLUSH_EVERY_S = 0.5
MAX_BUFFERED = 5_000


class Cancelled(Exception):
    """A person asked for it; the child must die and the job end as cancelled."""


@dataclass(kw_only=True)
class Hold:
    """Use from one thread. `tend` is called a few times a second and does what is due."""

    claim: Claim
    _events: list[JobEvent] = field(default_factory=list)
    _progress: dict[str, Any] = field(default_factory=dict)
    _renewed_at: float = field(default_factory=time.monotonic)
    _flushed_at: float = 0.0

    @property
    def renew_every_s(self) -> float:
        return settings.ENVIRONMENT.lease_s / 4

    def say(
        self,
        message: str,
        *,
        kind: str = JobEvent.Kind.LOG,
        level: str = "info",
        data: dict[str, Any] | None = None,
    ) -> None:
        """Adds a line; it is written within half a second. Past the cap the oldest wait, none is dropped."""
        if len(self._events) >= MAX_BUFFERED:
            self._events[-1].message = "(more lines than could be written while the database was away)"
            return
        self._events.append(
            JobEvent(
                job_id=self.claim.job_id,
                attempt=self.claim.attempt,
                kind=kind,
                level=level,
                message=message,
                data=data or {},
                at=timezone.now(),
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
        """Writes what waits and renews when due. Raises LeaseLost or Cancelled; outlives a database outage."""
        now = time.monotonic()
        if now - self._renewed_at > 3 * self.renew_every_s:
            raise LeaseLost
        try:
            if (self._events or self._progress) and now - self._flushed_at > FLUSH_EVERY_S:
                self.flush()
            elif now - self._renewed_at > self.renew_every_s:
                self._renew()
        except (OperationalError, InterfaceError) as error:
            log.warning("heartbeat_failed", job=self.claim.job_id, cause=str(error).splitlines()[0])
            close_old_connections()
            time.sleep(0.2)

    def flush(self) -> None:
        """Everything said so far is in the database when this returns."""
        if self._events:
            transitions.write_events(self.claim, self._events)
            self._events = []
        self._flushed_at = time.monotonic()
        self._renew()

    def _renew(self) -> None:
        progress, self._progress = self._progress, {}
        try:
            cancelled = transitions.heartbeat(self.claim, **progress)
        except (OperationalError, InterfaceError):
            self._progress = progress | self._progress
            raise
        self._renewed_at = time.monotonic()
        if cancelled:
            raise Cancelled
