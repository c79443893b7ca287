"""Lists as CSV: the rows of the page with its filters and its order, times in UTC."""

from collections.abc import Iterable, Iterator
from itertools import batched

from django.db.models import QuerySet
from django.http import StreamingHttpResponse

from controlplane.core.csv_export import CHUNK, csv_response
from controlplane.registry.models import Version
from controlplane.registry.tables import SPEEDUPS, speedups
from optimizer import ledger, selectors
from optimizer.fleet import QueueRow, WorkerRow
from optimizer.models import Job, Search

JOBS = (
    *(
        "job",
        "state",
        "reason",
        "model",
        "version",
        "parent",
        "recipe",
        "verdict",
        "queue",
        "priority",
        "attempt",
    ),
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


LEDGER = (
    *("version", "technique", "precision", "software", "hardware"),
    *("variant", "verdict", "sentence", "stale", "earlier", *SPEEDUPS),
)


def ledger_csv(name: str, fleet: ledger.Fleet, rows: QuerySet[Version]) -> StreamingHttpResponse:
    lines = (ledger.line(row, fleet) for row in rows.iterator(ledger.CHUNK))
    cells = (
        (line.version.number, column, cell) for line in lines for column, cell in sorted(line.cells.items())
    )
    return csv_response(
        f"{name}-ledger.csv",
        LEDGER,
        (
            (
                *(number, column.technique, column.precision, column.software, column.hardware),
                *(cell.variant.number, cell.variant.verdict, cell.report.sentence if cell.report else ""),
                *(" ".join(cell.stale), cell.earlier, *speedups(cell.report.data if cell.report else {})),
            )
            for number, column, cell in cells
        ),
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
                    "+".join(step["technique"] for step in row.recipe) or row.does,
                    made.verdict if made else "",
                    row.queue,
                    row.priority_word,
                ),
                *(row.attempt, row.created_by, row.created_at, row.started_at, row.finished_at, row.message),
            )


SEARCHES = (
    *("search", "state", "model", "version", "parent", "recipes", "max_jobs", "max_minutes"),
    *("created_by", "created_at", "finished_at", "message"),
)


def searches_csv(rows: QuerySet[Search]) -> StreamingHttpResponse:
    lines = (
        (
            *(row.pk, row.state, row.version.model.name, row.version.number, row.parent.number),
            *(len(row.plan), row.max_jobs, row.max_minutes),
            *(row.created_by, row.created_at, row.finished_at, row.message),
        )
        for row in rows.iterator(CHUNK)
    )
    return csv_response("searches.csv", SEARCHES, lines)


def queues_csv(rows: Iterable[QueueRow]) -> StreamingHttpResponse:
    lines = ((row.name, row.workers, row.waiting, row.running) for row in rows)
    return csv_response("queues.csv", ("queue", "workers", "waiting", "running"), lines)


def workers_csv(rows: Iterable[WorkerRow]) -> StreamingHttpResponse:
    return csv_response("workers.csv", WORKERS, (_worker(row) for row in rows))


def _worker(row: WorkerRow) -> tuple[object, ...]:
    worker, hardware = row.worker, row.worker.hardware
    return (
        *(worker.name, row.state, row.job.pk if row.job else None),
        *(hardware.get("cpu"), hardware.get("cores"), "; ".join(gpu.title for gpu in row.gpus)),
        *(worker.load.get("load_1m"), row.memory_used_bytes, " ".join(worker.queues), worker.heartbeat_at),
    )
