"""Lists as CSV: the rows of the page with its filters and its order, times in UTC."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from django.db.models import QuerySet
from django.http import StreamingHttpResponse

from controlplane.core.csv_export import CHUNK, csv_response
from controlplane.registry import reports
from controlplane.registry.models import Dataset, Model, Report, Variant, Version

MODELS = (
    "name",
    "description",
    "latest_version",
    "aliases",
    "best_verdict",
    "versions",
    "latest_at",
    "created_at",
)


BATCHES = (1, 8, 32)
"""Those that are timed where a model takes batches."""
SPEEDUPS = tuple(f"speedup_batch_{size}{end}" for size in BATCHES for end in ("", "_low", "_high"))
VERSIONS = ("version", "format", "file", "bytes", "digest", "quarantined", "by", "uploaded_at")
VARIANTS = (
    "variant",
    "label",
    "verdict",
    "precision",
    "format",
    "bytes",
    "digest",
    "parent",
    "job",
    "made_at",
    *SPEEDUPS,
    "basis",
    "measure",
    "loss",
    "loss_high",
    "processor",
    "measured_at",
)
"""With the newest report of each, so that the reports of one version can be compared."""
DATASETS = ("name", "role", "items", "labels", "metric", "bytes", "digest", "added_at")


def models_csv(rows: QuerySet[Model]) -> StreamingHttpResponse:
    """`rows` as `selectors.with_findings` annotates them."""
    lines = (_line(row) for row in rows.iterator(chunk_size=CHUNK))
    return csv_response("models.csv", MODELS, lines)


def _line(row: Model) -> tuple[object, ...]:
    aliases = " ".join(f"{alias.name}={alias.variant}" for alias in row.aliases.all())
    return (
        *(row.name, row.description, row.latest_number, aliases),  # type: ignore[attr-defined]
        *(row.best_verdict, row.versions_kept, row.latest_at, row.created_at),  # type: ignore[attr-defined]
    )


def versions_csv(model: str, rows: QuerySet[Version]) -> StreamingHttpResponse:
    lines = (
        (
            *(row.number, row.format, row.source_filename, row.source_bytes, f"sha256:{row.source_sha256}"),
            *(row.quarantined_reason, row.created_by, row.created_at),
        )
        for row in rows.iterator(chunk_size=CHUNK)
    )
    return csv_response(f"{model}-versions.csv", VERSIONS, lines)


def variants_csv(name: str, rows: Iterable[Variant]) -> StreamingHttpResponse:
    """`rows` as `selectors.variants_with_reports` gives them."""
    lines = (
        (
            *(row.number, row.label, row.verdict, row.precision, row.format, row.artifact.size_bytes),
            *(f"sha256:{row.artifact.sha256}", row.parent.number if row.parent else None),
            *(row.job_id, row.created_at, *_measured(row.latest)),  # type: ignore[attr-defined]
        )
        for row in rows
    )
    return csv_response(f"{name}-variants.csv", VARIANTS, lines)


def speedups(data: Mapping[str, Any]) -> Iterator[float | None]:
    """Cells of SPEEDUPS, empty where it was not measured."""
    found = {timing["batch_size"]: timing["speedup"] for timing in data.get("timings") or ()}
    for size in BATCHES:
        yield from (found.get(size, {}).get(end) for end in ("value", "low", "high"))


def _measured(report: Report | None) -> Iterator[object]:
    data = report.data if report else {}
    yield from speedups(data)
    accuracy = data.get("accuracy") or {}
    loss = accuracy.get("loss") or {}
    yield from (accuracy.get("basis"), accuracy.get("measure"), loss.get("value"), loss.get("high"))
    yield from (reports.hardware(data) or None, report.created_at if report else None)


def datasets_csv(model: str, rows: QuerySet[Dataset]) -> StreamingHttpResponse:
    lines = (
        (
            *(row.name, row.role, row.items, row.has_labels, row.metric, row.artifact.size_bytes),
            *(f"sha256:{row.artifact.sha256}", row.created_at),
        )
        for row in rows.iterator(chunk_size=CHUNK)
    )
    return csv_response(f"{model}-data-sets.csv", DATASETS, lines)
