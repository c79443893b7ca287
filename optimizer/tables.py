"""Lists as CSV: the rows of the page with its filters and its order, times in UTC."""

from collections.abc import Iterable, Iterator
from itertools import batched

from django.db.models import QuerySet
from django.http import StreamingHttpResponse

from controlplane.core.csv_export import CHUNK, csv_response
from optimizer import selectors
from optimizer.fleet import QueueRow, WorkerRow
from optimizer.models import Job

JOBS = (
    *("job", "state", "reason", "model", "version", "parent", "recipe", "verdict", "queue", "attempt"),
    *("created_by", "created_at", "started_at", "finished_at", "message"),
)
WORKERS = (
    "worker",
    "state",
    "job",
    "cpu",
    "cores",
    "gpus",
    "load_1m",
    "memory_bytes",
    "queues",
    "heartbeat_at",
)


def jobs_csv(rows: QuerySet[Job]) -> StreamingHttpResponse:
    return csv_response("jobs.csv", JOBS, _jobs(rows.iterator(CHUNK)))


def _jobs(rows: Iterable[Job]) -> Iterator[tuple[object, ...]]:
    for chunk in batched(rows, CHUNK):
        results = selectors.results(chunk)
        for row in chunk:
            made = results.get(row.pk)
            yield (
                *(
                    row.pk,
                    row.state,
                    row.reason,
                    row.version.model.name,
                    row.version.number,
                    row.parent.number,
                ),
                *(
                    "+".join(step["technique"] for step in row.recipe),
                    made.verdict if made else "",
                    row.queue,
                ),
                *(row.attempt, row.created_by, row.created_at, row.started_at, row.finished_at, row.message),
            )


def queues_csv(rows: Iterable[QueueRow]) -> StreamingHttpResponse:
    lines = ((row.name, row.workers, row.waiting, row.running) for row in rows)
    return csv_response("queues.csv", ("queue", "workers", "waiting", "running"), lines)


def workers_csv(rows: Iterable[WorkerRow]) -> StreamingHttpResponse:
    return csv_response("workers.csv", WORKERS, (_worker(row) for row in rows))


def _worker(row: WorkerRow) -> tuple[object, ...]:
    worker, hardware = row.worker, row.worker.hardware
    return (
        *(worker.name, row.state, row.job.pk if row.job else None),
        *(hardware.get("cpu"), hardware.get("cores"), " ".join(map(str, hardware.get("gpus", [])))),
        *(worker.load.get("load_1m"), row.memory_used_bytes, " ".join(worker.queues), worker.heartbeat_at),
    )
