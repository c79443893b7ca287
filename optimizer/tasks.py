"""What Celery messages mean. Each is "go and look": idempotent by id, refused quietly when there is nothing to do."""

from typing import Any

import structlog
from billiard.exceptions import WorkerLostError
from celery import shared_task
from celery.signals import task_failure, worker_init, worker_process_init
from django.db import InterfaceError, OperationalError, close_old_connections, connections

from optimizer import transitions
from optimizer.worker import announce, attempt  # noqa: F401  `announce` listens to the worker's signals

log = structlog.get_logger(__name__)

RUN_JOB = "optimizer.run_job"
this_worker: list[str] = []
"""The name of the worker that this process is the parent of; empty in every other process."""


@shared_task(name=RUN_JOB, bind=True)
def run_job(self: Any, job_id: int) -> None:
    attempt.run(job_id, owner=self.request.hostname, message_id=self.request.id)


@worker_init.connect
def remember_own_name(sender: Any = None, **_: Any) -> None:
    """A task has no request in the parent process, so the worker's name must be known otherwise."""
    this_worker.append(sender.hostname)


@task_failure.connect
def give_back_a_lost_job(
    sender: Any = None,
    task_id: str = "",
    exception: BaseException | None = None,
    args: tuple[Any, ...] = (),
    **_: Any,
) -> None:
    """Runs in the worker's parent process, within seconds of its child being killed."""
    if sender is None or sender.name != RUN_JOB or not isinstance(exception, WorkerLostError):
        return
    try:
        transitions.release_lost(args[0], owner=this_worker[-1], message_id=task_id)
    except (OperationalError, InterfaceError) as error:  # the lease will run out
        log.warning("lost_job_not_released", job=args[0], cause=str(error).partition("\n")[0])
        close_old_connections()


@worker_process_init.connect
def forget_inherited_connections(**_: Any) -> None:
    """A pool child must not share its parent's database socket."""
    for connection in connections.all(initialized_only=True):
        connection.inc_thread_sharing()
        connection.close()
