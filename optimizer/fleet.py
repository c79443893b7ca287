"""The workers as their page shows them, and why a job waits, in words.

Workers and queues are shared by all teams: how long a queue is concerns everybody, what is in it only its team.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from django.db.models import Count, Q

from controlplane.accounts.access import Actor
from controlplane.core import formats
from optimizer.domain.jobs import JobState
from optimizer.models import Job, Worker

SILENT_AFTER = timedelta(seconds=15)
"""Three announcements missed."""

OFFLINE_AFTER = timedelta(seconds=60)
OWN_QUEUES = "optimize."


@dataclass(frozen=True, kw_only=True)
class WorkerRow:
    """`job` is the current job if it is the reader's team's; `state` a word of the vocabulary."""

    worker: Worker
    state: str
    fresh: bool
    job: Job | None
    memory_used_bytes: int | None
    memory_share: int | None


@dataclass(frozen=True, kw_only=True)
class QueueRow:
    """`waiting` and `running` are None for queues whose work is not kept as jobs."""

    name: str
    workers: int
    waiting: int | None
    running: int | None


@dataclass(frozen=True, kw_only=True)
class Waiting:
    """Why a job has not started, and what would help."""

    title: str
    detail: str


def worker_rows(actor: Actor, *, now: datetime) -> list[WorkerRow]:
    """One query."""
    return [
        _worker_row(actor, worker, now=now)
        for worker in Worker.objects.select_related("current_job__version__model")
    ]


def _worker_row(actor: Actor, worker: Worker, *, now: datetime) -> WorkerRow:
    state = worker_state(worker, now=now)
    job = worker.current_job
    total, available = worker.load.get("total_bytes"), worker.load.get("available_bytes")
    used = total - available if total and available is not None else None
    return WorkerRow(
        worker=worker,
        state=state,
        fresh=state not in {"silent", "offline"},
        job=job if job is not None and job.team_id == actor.team.pk else None,
        memory_used_bytes=used,
        memory_share=round(100 * used / total) if used is not None and total else None,
    )


def worker_state(worker: Worker, *, now: datetime) -> str:
    age = now - worker.heartbeat_at
    if age > OFFLINE_AFTER:
        return "offline"
    if age > SILENT_AFTER:
        return "silent"
    if worker.draining:
        return "draining"
    return "busy" if worker.current_job_id else "idle"


def queue_rows(rows: list[WorkerRow]) -> list[QueueRow]:
    """Every queue that somebody listens to or that something waits in. One query."""
    counted = {
        row["queue"]: row
        for row in Job.objects.filter(state__in=[JobState.QUEUED, JobState.RUNNING, JobState.CANCELLING])
        .order_by()
        .values("queue")
        .annotate(
            waiting=Count("pk", filter=Q(state=JobState.QUEUED)),
            running=Count("pk", filter=~Q(state=JobState.QUEUED)),
        )
    }
    listening: dict[str, int] = dict.fromkeys(counted, 0)
    for row in rows:
        for name in row.worker.queues:
            listening[name] = listening.get(name, 0) + row.fresh
    return [_queue_row(name, listening[name], counted.get(name)) for name in sorted(listening)]


def _queue_row(name: str, workers: int, counts: Mapping[str, Any] | None) -> QueueRow:
    if counts is None and not name.startswith(OWN_QUEUES):
        return QueueRow(name=name, workers=workers, waiting=None, running=None)
    counts = counts or {"waiting": 0, "running": 0}
    return QueueRow(name=name, workers=workers, waiting=counts["waiting"], running=counts["running"])


def waiting(job: Job, *, now: datetime) -> Waiting | None:
    """None unless the job is queued. Two queries."""
    if job.state != JobState.QUEUED:
        return None
    if job.run_after > now + timedelta(seconds=1):
        soon = formats.duration((job.run_after - now).total_seconds())
        return Waiting(
            title=f"The next attempt starts in {soon}.", detail="The last one ended early; see the log."
        )
    listeners = [worker for worker in Worker.objects.all() if job.queue in worker.queues]
    fresh = [
        worker for worker in listeners if now - worker.heartbeat_at <= SILENT_AFTER and not worker.draining
    ]
    if not fresh:
        return _nobody_listens(job, listeners, now=now)
    before = _jobs_before(job, now=now)
    place = "It is the next one." if not before else f"{_counted(before, 'job')} of this queue before it."
    busy = [worker for worker in fresh if worker.current_job_id]
    if len(busy) == len(fresh):
        return Waiting(title=f"{_all_busy(len(fresh), queue=job.queue)} busy.", detail=place)
    return Waiting(title="A worker is free and takes it in a moment.", detail=place)


def _nobody_listens(job: Job, listeners: list[Worker], *, now: datetime) -> Waiting:
    todo = f"Start one that listens to {job.queue}."
    if listeners:
        last = max(listeners, key=lambda worker: worker.heartbeat_at)
        heard = formats.relative(last.heartbeat_at, now=now)
        todo = f"{last.name} was last heard {heard}. {todo}"
    return Waiting(title=f"No worker for the queue “{job.queue}” is online.", detail=todo)


def _jobs_before(job: Job, *, now: datetime) -> int:
    earlier = Q(run_after__lt=job.run_after) | Q(run_after=job.run_after, pk__lt=job.pk)
    return Job.objects.filter(earlier, state=JobState.QUEUED, queue=job.queue, run_after__lte=now).count()


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _all_busy(workers: int, *, queue: str) -> str:
    return f"The worker of “{queue}” is" if workers == 1 else f"All {workers} workers of “{queue}” are"
