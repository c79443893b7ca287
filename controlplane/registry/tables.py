"""Lists as CSV: the rows of the page with its filters and its order, times in UTC."""

from collections.abc import Iterable

from django.db.models import QuerySet
from django.http import StreamingHttpResponse

from controlplane.core.csv_export import CHUNK, csv_response
from controlplane.registry.models import Dataset, Model, Variant, Version

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
)
DATASETS = ("name", "role", "items", "labels", "bytes", "digest", "added_at")


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
    lines = (
        (
            *(row.number, row.label, row.verdict, row.precision, row.format, row.artifact.size_bytes),
            *(f"sha256:{row.artifact.sha256}", row.parent.number if row.parent else None),
            *(row.job_id, row.created_at),
        )
        for row in rows
    )
    return csv_response(f"{name}-variants.csv", VARIANTS, lines)


def datasets_csv(model: str, rows: QuerySet[Dataset]) -> StreamingHttpResponse:
    lines = (
        (
            *(row.name, row.role, row.items, row.has_labels, row.artifact.size_bytes),
            *(f"sha256:{row.artifact.sha256}", row.created_at),
        )
        for row in rows.iterator(chunk_size=CHUNK)
    )
    return csv_response(f"{model}-data-sets.csv", DATASETS, lines)
