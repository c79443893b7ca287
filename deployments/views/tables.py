"""Lists as CSV: the same rows as the page with its filters, safe to open in a spreadsheet, times in UTC.

Streamed, so that a year of decisions costs no memory.
"""

import csv
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from django.db.models import QuerySet
from django.http import StreamingHttpResponse

from controlplane.core import formats
from deployments import selectors
from deployments.models import Decision, Deployment

_FORMULA = ("=", "+", "-", "@", "\t", "\r")
CHART_COLUMNS = (
    "p50_ms",
    "p95_ms",
    "p99_ms",
    "throughput",
    "error_rate",
    "queue_depth",
    "queue_depth_max",
    "in_flight",
    "in_flight_max",
    "replicas",
)


class _Line:
    """What the csv module writes to: it only hands the line on."""

    def write(self, text: str) -> str:
        return text


def _safe(value: Any) -> Any:
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULA) else value


def streamed(name: str, head: Sequence[str], rows: Iterable[Sequence[Any]]) -> StreamingHttpResponse:
    writer = csv.writer(_Line())

    def lines() -> Iterator[str]:
        yield writer.writerow(head)
        for row in rows:
            yield writer.writerow([_safe(value) for value in row])

    return StreamingHttpResponse(
        lines(),
        content_type="text/csv; charset=utf-8",
        headers={"Content-Disposition": f'attachment; filename="{name}.csv"'},
    )


def deployments_csv(rows: QuerySet[Deployment]) -> StreamingHttpResponse:
    found = list(rows)
    figures = selectors.overview_figures(found)
    head = (
        "name",
        "health",
        "revision",
        "variant",
        "replicas_ready",
        "replicas_wanted",
        "p99_ms",
        "requests_per_s",
    )
    return streamed("deployments", head, (_deployment(row, figures[row.pk]) for row in found))


def _deployment(row: Deployment, figures: selectors.Figures) -> Sequence[Any]:
    seen, live = selectors.status(row), row.live_revision
    return (
        row.name,
        selectors.health_of(row),
        live.number if live else "",
        str(live.variant) if live else "",
        seen.ready() if seen else 0,
        row.replicas if live else 0,
        figures.latest_p99_ms,
        figures.latest_requests_per_s,
    )


def decisions_csv(name: str, rows: QuerySet[Decision]) -> StreamingHttpResponse:
    head = ("at", "last_at", "repeats", "current", "desired", "raw_recommendation", "limited_by", "sentence")
    lines = (
        (
            formats.machine(row.at),
            formats.machine(row.last_at),
            row.repeats,
            row.current_replicas,
            row.desired_replicas,
            row.raw_recommendation,
            row.limited_by,
            row.sentence,
        )
        for row in rows.iterator(chunk_size=500)
    )
    return streamed(f"{name}-decisions", head, lines)


def series_csv(name: str, drawn: dict[str, Any]) -> StreamingHttpResponse:
    """A chart's points: epoch seconds and one column per series; a gap is empty."""
    columns = [drawn[column] for column in CHART_COLUMNS]
    return streamed(f"{name}-series", ("t", *CHART_COLUMNS), zip(drawn["t"], *columns, strict=True))
