"""What Celery messages mean. Each is "go and look": idempotent by id, refused quietly when there is nothing to do."""

from typing import Any

import structlog
from billiard.exceptions import WorkerLostError
from celery import shared_task
from celery.signals import celeryd_after_setup, task_failure, worker_init, worker_process_init
from django.db import InterfaceError, OperationalError, close_old_connections, connections

from optimizer import queues, toolchains, transitions
from optimizer.worker import announce, attempt, gpus, hardware

log = structlog.get_logger(__name__)

RUN_JOB = "optimizer.run_job"
this_worker: list[str] = []
"""The name of the worker that this process is the parent of; empty in every other process."""


@shared_task(name=RUN_JOB, bind=True)
def run_job(self: Any, job_id: int) -> None:
    attempt.run(job_id, owner=self.request.hostname, message_id=self.request.id)


@celeryd_after_setup.connect
def listen_for_all_it_serves(sender: str = "", instance: Any = None, **_: Any) -> None:
    """A worker of the CPU's queue also takes the jobs that need the GPU and the toolchains that are here; one of the
    GPUs' queue those that need a GPU, and nothing where it sees none. One that was drained begins with none: it would
    take jobs until its first beat."""
    listening = instance.app.amqp.queues
    if _runs_jobs(listening):
        gpu, cpu = hardware.served_gpu(), toolchains.CPU_QUEUE in listening.consume_from
        for name in queues.served(toolchains=hardware.toolchains(), gpu=gpu, cpu=cpu):
            listening.select_add(name)
        if gpu is None and queues.GPU_QUEUE in listening.consume_from:
            log.warning(
                "no_gpu", because=gpus.found().problem or "nvidia-smi finds none that this worker may use"
            )
            listening.deselect(queues.GPU_QUEUE)
    announce.own_queues[:] = listening.consume_from
    try:
        if announce.drained(sender):
            listening.deselect(list(announce.own_queues))
    except (OperationalError, InterfaceError) as error:  # what it takes until it can ask is put back
        log.warning("drain_unknown", cause=str(error).partition("\n")[0])
    finally:
        connections.close_all()  # or the pool's processes would share it


def _runs_jobs(listening: Any) -> bool:
    return not {toolchains.CPU_QUEUE, queues.GPU_QUEUE}.isdisjoint(listening.consume_from)


@worker_init.connect
def serve_one_job_on_a_gpu(sender: Any = None, **_: Any) -> None:
    """Two builds or measurements on one GPU spoil each other, whatever `-c` says."""
    if not _runs_jobs(sender.app.amqp.queues) or hardware.served_gpu() is None:
        return
    gpus.keep_to_the_first()
    gpus.make_devices()
    if sender.concurrency != 1:
        log.warning("one_job_at_a_time", asked=sender.concurrency, because="this worker serves a GPU")
        sender.concurrency = 1


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
