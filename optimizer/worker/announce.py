"""A worker tells the fleet page that it is there, what it runs on, and what it works on. Open pages are told
when one appears or begins to stop, not at every beat; of its jobs, `optimizer.transitions` tells them.

From a thread of the worker's parent process: it builds nothing, so nothing can starve the thread. On the
same beat it removes what killed attempts left on this machine, and reads in its row whether it shall take jobs at all:
a drained worker stops consuming by itself, so no request ever talks to the broker.
"""

import threading
import time
from collections.abc import Iterable
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
own_queues: list[str] = []
"""What this worker listens to unless it is drained; empty in every other process."""


def announce(name: str, *, queues: list[str], slots: int, tell: bool, **changes: Any) -> bool:
    """One row per worker name, which runs `slots` jobs at once; with what else `changes` says of it. `tell` lets open
    pages look. Returns whether it shall take jobs. Four statements."""
    current = Job.objects.filter(owner=name, state__in=[JobState.RUNNING, JobState.CANCELLING]).first()
    now = {
        "queues": queues,
        "hardware": hardware.inventory() | {"slots": slots},
        "versions": hardware.toolchain(),
        "load": hardware.load(),
        "current_job": current,
        "heartbeat_at": Now(),
        **changes,
    }
    with transaction.atomic():
        row, _ = Worker.objects.update_or_create(
            name=name, defaults=now, create_defaults={"started_at": Now()} | now
        )
        if tell:
            bus.publish("workers", team_id=None)
    return row.drain_since is None


def drained(name: str) -> bool:
    return Worker.objects.filter(name=name, drain_since__isnull=False).exists()


def follow(consumer: Any, queues: Iterable[str], *, takes_jobs: bool) -> None:
    """Lets the worker's own loop begin or end to consume, where that is not so already. What it deselects stays so
    when it connects anew; a message that had come by then is put back by `transitions.claim`."""
    listening = frozenset(consumer.app.amqp.queues.consume_from)
    if takes_jobs:
        for name in frozenset(queues) - listening:
            consumer.call_soon(_begin, consumer, name)
    else:
        for name in listening:
            consumer.call_soon(_end, consumer, name)


def _begin(consumer: Any, queue: str) -> None:
    if consumer.task_consumer is None:  # between two connections: the next one consumes what is selected
        consumer.app.amqp.queues.select_add(queue)
    else:
        consumer.add_task_queue(queue)


def _end(consumer: Any, queue: str) -> None:
    if consumer.task_consumer is None:
        consumer.app.amqp.queues.deselect(queue)
    else:
        consumer.cancel_task_queue(queue)


def _keep_announcing(consumer: Any, name: str, queues: list[str]) -> None:
    """Until the process ends; at once when it begins to stop, so that nobody waits for it to take a job."""
    news: dict[str, Any] = {"started_at": Now()}
    slots = consumer.controller.concurrency
    told: bool | None = None
    told_at = 0.0
    while True:
        stops = _stops()
        tell = stops is not told or time.monotonic() - told_at > MISSED_S
        try:
            takes_jobs = announce(name, queues=queues, slots=slots, tell=tell, **news | {"draining": stops})
            follow(consumer, queues, takes_jobs=takes_jobs)
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
    threading.Thread(
        target=_keep_announcing, args=[sender, sender.hostname, sorted(own_queues)], daemon=True
    ).start()
