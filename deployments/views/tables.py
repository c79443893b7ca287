"""Lists and charts as rows of a CSV: the same as the page with its filters, times in UTC."""

import json
from collections.abc import Iterable, Iterator, Sequence
from itertools import batched
from typing import Any

from django.db.models import QuerySet
from django.http import StreamingHttpResponse

from controlplane.core.csv_export import CHUNK, csv_response
from deployments import selectors
from deployments.models import Decision, Deployment, Revision, Rollout, Target

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


def deployments_csv(rows: QuerySet[Deployment]) -> StreamingHttpResponse:
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
    return csv_response("deployments.csv", head, _deployments(rows.iterator(chunk_size=CHUNK)))


def targets_csv(rows: QuerySet[Target]) -> StreamingHttpResponse:
    """Of `selectors.targets`; without what they are reached with."""
    head = ("name", "kind", "server", "namespace", "deployments", "last_seen", "unreachable_since")
    found: Iterable[Any] = rows.defer("secret").iterator(chunk_size=CHUNK)
    lines = (
        (
            row.name,
            row.kind,
            row.settings.get("server", ""),
            row.settings.get("namespace", ""),
            row.used_by,
            row.last_seen,
            row.away_since,
        )
        for row in found
    )
    return csv_response("targets.csv", head, lines)


def _deployments(rows: Iterable[Deployment]) -> Iterator[Sequence[Any]]:
    for chunk in batched(rows, CHUNK):
        figures = selectors.overview_figures(chunk)
        yield from (_deployment(row, figures[row.pk]) for row in chunk)


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


def replicas_csv(row: Deployment) -> StreamingHttpResponse:
    """As last observed."""
    seen = selectors.status(row)
    head = ("replica", "state", "revision", "started_at", "ready_at", "restarts", "reason", "observed_at")
    lines = (
        (
            *(one.name, one.state, one.revision, one.started_at, one.ready_at),
            *(one.restarts, one.reason, row.observed_at),
        )
        for one in (seen.replicas if seen else ())
    )
    return csv_response(f"{row.name}-replicas.csv", head, lines)


def rollouts_csv(name: str, rows: QuerySet[Rollout]) -> StreamingHttpResponse:
    head = (
        "rollout",
        "kind",
        "state",
        "from_revision",
        "to_revision",
        "message",
        "by",
        "created_at",
        "finished_at",
    )
    lines = (
        (
            *(row.pk, row.kind, row.state),
            row.from_revision.number if row.from_revision else "",
            *(row.to_revision.number, row.message, row.created_by, row.created_at, row.finished_at),
        )
        for row in rows.iterator(chunk_size=CHUNK)
    )
    return csv_response(f"{name}-rollouts.csv", head, lines)


def revisions_csv(name: str, rows: QuerySet[Revision]) -> StreamingHttpResponse:
    head = ("revision", "variant", "by", "created_at", "spec")
    lines = (
        (row.number, row.variant, row.created_by, row.created_at, json.dumps(row.spec))
        for row in rows.iterator(chunk_size=CHUNK)
    )
    return csv_response(f"{name}-revisions.csv", head, lines)


def decisions_csv(name: str, rows: QuerySet[Decision]) -> StreamingHttpResponse:
    head = ("at", "last_at", "repeats", "current", "desired", "raw_recommendation", "limited_by", "sentence")
    lines = (
        (
            row.at,
            row.last_at,
            row.repeats,
            row.current_replicas,
            row.desired_replicas,
            row.raw_recommendation,
            row.limited_by,
            row.sentence,
        )
        for row in rows.iterator(chunk_size=CHUNK)
    )
    return csv_response(f"{name}-decisions.csv", head, lines)


def series_csv(name: str, drawn: dict[str, Any]) -> StreamingHttpResponse:
    """A chart's points: epoch seconds and one column per series; a gap is empty."""
    columns = [drawn[column] for column in CHART_COLUMNS]
    return csv_response(f"{name}-series.csv", ("t", *CHART_COLUMNS), zip(drawn["t"], *columns, strict=True))
