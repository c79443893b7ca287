"""What Celery messages mean. Each is "go and look": idempotent by id, refused quietly when there is nothing to do."""

from typing import Any

from billiard.exceptions import WorkerLostError
from celery import shared_task
from celery.signals import task_failure, worker_process_init
from celery.utils.nodenames import gethostname
from django.db import connections

from optimizer import transitions
from optimizer.worker import announce, attempt  # noqa: F401  `announce` listens to the worker's signals

RUN_JOB = "optimizer.run_job"


@shared_task(name=RUN_JOB, bind=True)
def run_job(self: Any, job_id: int) -> None:
    attempt.run(job_id, owner=self.request.hostname or gethostname())


@task_failure.connect
def give_back_a_lost_job(
    sender: Any = None, exception: BaseException | None = None, args: tuple[Any, ...] = (), **_: Any
) -> None:
    """Runs in the worker's parent process, within seconds of its child being killed."""
    if sender is not None and sender.name == RUN_JOB and isinstance(exception, WorkerLostError):
        transitions.release_lost(args[0], owner=sender.request.hostname or gethostname())


@worker_process_init.connect
def forget_inherited_connections(**_: Any) -> None:
    """A pool child must not share its parent's database socket."""
    for connection in connections.all(initialized_only=True):
        connection.inc_thread_sharing()
        connection.close()
