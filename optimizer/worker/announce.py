"""A worker tells the fleet page that it is there, what it runs on, and what it works on.

From a thread of the worker's parent process: it builds nothing, so nothing can starve the thread.
"""

import threading
from typing import Any

import structlog
from celery.signals import worker_ready, worker_shutdown, worker_shutting_down
from django.db import InterfaceError, OperationalError, close_old_connections, connection
from django.db.models.functions import Now

from optimizer import transitions
from optimizer.domain.jobs import JobState
from optimizer.models import Job, Worker
from optimizer.worker import hardware

log = structlog.get_logger(__name__)
EVERY_S = 5.0
_stopping = threading.Event()


def announce(name: str, *, queues: list[str]) -> None:
    """One row per worker name. Three statements."""
    current = Job.objects.filter(owner=name, state__in=[JobState.RUNNING, JobState.CANCELLING]).first()
    Worker.objects.update_or_create(
        name=name,
        defaults={
            "queues": queues,
            "hardware": hardware.inventory(),
            "versions": hardware.toolchain(),
            "load": hardware.load(),
            "current_job": current,
            "heartbeat_at": Now(),
        },
        create_defaults={
            "queues": queues,
            "hardware": hardware.inventory(),
            "versions": hardware.toolchain(),
            "started_at": Now(),
            "heartbeat_at": Now(),
        },
    )


def _keep_announcing(name: str, queues: list[str]) -> None:
    while not _stopping.is_set():
        try:
            announce(name, queues=queues)
        except (OperationalError, InterfaceError) as error:
            log.warning("announce_failed", cause=str(error).splitlines()[0])
            close_old_connections()
        _stopping.wait(EVERY_S)
    connection.close()


@worker_ready.connect
def start(sender: Any = None, **_: Any) -> None:
    queues = sorted(sender.app.amqp.queues.consume_from)
    threading.Thread(target=_keep_announcing, args=[sender.hostname, queues], daemon=True).start()


@worker_shutting_down.connect
def stop(**_: Any) -> None:
    _stopping.set()


@worker_shutdown.connect
def give_back(sender: Any = None, **_: Any) -> None:
    """The pool is gone when this runs; whatever it still held goes back at once."""
    for job_id in Job.objects.filter(owner=sender.hostname, state__in=transitions.HELD).values_list(
        "pk", flat=True
    ):
        transitions.release_lost(job_id, owner=sender.hostname)
