"""A worker tells the fleet page that it is there, what it runs on, and what it works on. Open pages are told
when one appears or begins to stop, not at every beat; of its jobs, `optimizer.transitions` tells them.

From a thread of the worker's parent process: it builds nothing, so nothing can starve the thread. On the
same beat it removes what killed attempts left on this machine.
"""

import threading
import time
from typing import Any

import structlog
from celery.signals import worker_ready
from celery.worker import state
from django.db import InterfaceError, OperationalError, close_old_connections, transaction
from django.db.models.functions import Now

from controlplane.core import bus
from optimizer.domain.jobs import JobState
from optimizer.models import Job, Worker
from optimizer.worker import hardware, scratch

log = structlog.get_logger(__name__)
EVERY_S = 5.0
MISSED_S = 2 * EVERY_S
"""After so long without a beat pages may have called it silent."""
LOOK_EVERY_S = 0.25


def announce(name: str, *, queues: list[str], tell: bool, **changes: Any) -> None:
    """One row per worker name, with what else `changes` says of it; `tell` lets open pages look. Four statements."""
    current = Job.objects.filter(owner=name, state__in=[JobState.RUNNING, JobState.CANCELLING]).first()
    now = {
        "queues": queues,
        "hardware": hardware.inventory(),
        "versions": hardware.toolchain(),
        "load": hardware.load(),
        "current_job": current,
        "heartbeat_at": Now(),
        **changes,
    }
    with transaction.atomic():
        Worker.objects.update_or_create(name=name, defaults=now, create_defaults={"started_at": Now()} | now)
        if tell:
            bus.publish("workers", team_id=None)


def _keep_announcing(name: str, queues: list[str]) -> None:
    """Until the process ends; at once when it begins to stop, so that nobody waits for it to take a job."""
    news: dict[str, Any] = {"started_at": Now()}
    told: bool | None = None
    told_at = 0.0
    while True:
        stops = _stops()
        tell = stops is not told or time.monotonic() - told_at > MISSED_S
        try:
            announce(name, queues=queues, tell=tell, **news | {"draining": stops})
            news, told, told_at = {}, stops, time.monotonic()
            scratch.collect()
        except (OperationalError, InterfaceError) as error:
            log.warning("announce_failed", cause=str(error).partition("\n")[0])
            close_old_connections()
        due = time.monotonic() + EVERY_S
        while time.monotonic() < due and _stops() is stops:
            time.sleep(LOOK_EVERY_S)


def _stops() -> bool:
    """Celery's signal of its stop comes when its pool has ended; its state says it before."""
    return state.should_stop is not None or state.should_terminate is not None


@worker_ready.connect
def start(sender: Any = None, **_: Any) -> None:
    queues = sorted(sender.app.amqp.queues.consume_from)
    threading.Thread(target=_keep_announcing, args=[sender.hostname, queues], daemon=True).start()
