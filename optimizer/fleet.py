"""The workers as their page shows them.

Workers and queues are shared by all teams: how long a queue is concerns everybody, what is in it only its team.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from django.db.models import Count, Q

from controlplane.accounts.access import Actor
from optimizer.domain.jobs import JobState
from optimizer.line import SILENT_AFTER
from optimizer.models import Job, Worker
from optimizer.queues import Needs, label

OFFLINE_AFTER = timedelta(seconds=60)
OWN_QUEUES = "optimize."


@dataclass(frozen=True, kw_only=True)
class WorkerRow:
    """`job` is the current job if it is the reader's team's; `state` a word of the vocabulary.

    `listens` names its queues but for those with toolchains, which `toolchains` tells shorter: each with its label and
    what is installed of it. `drainable` is what has jobs to be spared."""

    worker: Worker
    state: str
    fresh: bool
    takes_jobs: bool
    drainable: bool
    job: Job | None
    memory_used_bytes: int | None
    memory_share: int | None
    gpus: list["GpuRow"]
    listens: list[str]
    toolchains: list[tuple[str, str]]


@dataclass(frozen=True, kw_only=True)
class GpuRow:
    """`title` is such as "NVIDIA L4, compute capability 8.9"; `instances` its MIG profiles, empty without any."""

    title: str
    memory_bytes: int | None
    memory_used_bytes: int | None
    utilization_percent: int | None
    instances: str


@dataclass(frozen=True, kw_only=True)
class QueueRow:
    """`waiting` and `running` are None for queues whose work is not kept as jobs."""

    name: str
    workers: int
    waiting: int | None
    running: int | None


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
        takes_jobs=takes_jobs(worker, now=now),
        drainable=drainable(worker),
        job=job if job is not None and job.team_id == actor.team.pk else None,
        memory_used_bytes=used,
        memory_share=round(100 * used / total) if used is not None and total else None,
        gpus=_gpu_rows(worker),
        listens=[name for name in worker.queues if not _toolchains_of(name)],
        toolchains=[
            (label(key), ", ".join(f"{name} {number}" for name, number in versions.items()))
            for key, versions in worker.hardware.get("toolchains", {}).items()
        ],
    )


def gpu_classes() -> list[tuple[str, list[str]]]:
    """The compute capabilities that workers have, each with the names of its GPUs. One query."""
    found: dict[str, set[str]] = {}
    for hardware in Worker.objects.values_list("hardware", flat=True):
        for gpu in hardware.get("gpus", []):
            if gpu["capability"]:
                found.setdefault(gpu["capability"], set()).add(gpu["name"])
    return [(key, sorted(names)) for key, names in sorted(found.items())]


def drainable(worker: Worker) -> bool:
    """Whether it runs jobs: what else a worker does takes seconds and is repeated elsewhere."""
    return any(name.startswith(OWN_QUEUES) for name in worker.queues)


def _toolchains_of(queue: str) -> frozenset[str]:
    needs = Needs.read(queue)
    return needs.toolchains if needs is not None else frozenset()


def _gpu_rows(worker: Worker) -> list[GpuRow]:
    loads = {row["uuid"]: row for row in worker.load.get("gpus", [])}
    return [_gpu_row(gpu, loads.get(gpu["uuid"], {})) for gpu in worker.hardware.get("gpus", [])]


def _gpu_row(gpu: Mapping[str, Any], load: Mapping[str, Any]) -> GpuRow:
    known = f", compute capability {gpu['capability']}" if gpu["capability"] else ""
    match gpu["mig"]:
        case None:
            instances = ""
        case []:
            instances = "MIG without instances"
        case profiles:
            instances = f"MIG {', '.join(profiles)}"
    return GpuRow(
        title=f"{gpu['name']}{known}",
        memory_bytes=gpu["memory_bytes"],
        memory_used_bytes=load.get("memory_used_bytes"),
        utilization_percent=load.get("utilization_percent"),
        instances=instances,
    )


def takes_jobs(worker: Worker, *, now: datetime) -> bool:
    """Whether it takes the next job of its queues, now or when it is free."""
    return worker_state(worker, now=now) in {"idle", "busy"}


def served_queues(*, now: datetime) -> set[str]:
    """Those that a worker takes jobs from. One query."""
    return {name for row in Worker.objects.all() if takes_jobs(row, now=now) for name in row.queues}


def worker_state(worker: Worker, *, now: datetime) -> str:
    """`draining` finishes its job and takes no other, `drained` has none left; `stopping` is its process."""
    age = now - worker.heartbeat_at
    if age > OFFLINE_AFTER:
        return "offline"
    if age > SILENT_AFTER:
        return "silent"
    if worker.draining:
        return "stopping"
    if worker.drain_since is not None:
        return "draining" if worker.current_job_id else "drained"
    return "busy" if worker.current_job_id else "idle"


def queue_rows(rows: list[WorkerRow]) -> list[QueueRow]:
    """Every queue that something waits or runs in, and those that somebody listens to; but of the many with toolchains
    only the former. One query."""
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
            if name in counted or name in row.listens:
                listening[name] = listening.get(name, 0) + row.takes_jobs
    return [_queue_row(name, listening[name], counted.get(name)) for name in sorted(listening)]


def _queue_row(name: str, workers: int, counts: Mapping[str, Any] | None) -> QueueRow:
    if counts is None and not name.startswith(OWN_QUEUES):
        return QueueRow(name=name, workers=workers, waiting=None, running=None)
    counts = counts or {"waiting": 0, "running": 0}
    return QueueRow(name=name, workers=workers, waiting=counts["waiting"], running=counts["running"])
