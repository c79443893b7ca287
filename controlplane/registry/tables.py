"""Models as CSV: the rows of the page with its filters, times in UTC."""

from django.db.models import QuerySet
from django.http import StreamingHttpResponse

from controlplane.core import formats
from controlplane.core.csv_export import csv_response
from controlplane.registry.models import Model

COLUMNS = (
    "name",
    "description",
    "latest_version",
    "aliases",
    "best_verdict",
    "versions",
    "latest_at",
    "created_at",
)
CHUNK = 500


def models_csv(rows: QuerySet[Model]) -> StreamingHttpResponse:
    """`rows` as `selectors.with_findings` annotates them."""
    lines = (_line(row) for row in rows.order_by("-pk").iterator(chunk_size=CHUNK))
    return csv_response("models.csv", COLUMNS, lines)


def _line(row: Model) -> tuple[object, ...]:
    aliases = " ".join(f"{alias.name}={alias.variant}" for alias in row.aliases.all())
    latest_at = row.latest_at  # type: ignore[attr-defined]
    return (
        *(row.name, row.description, row.latest_number, aliases),  # type: ignore[attr-defined]
        *(row.best_verdict, row.versions_kept),  # type: ignore[attr-defined]
        *(formats.machine(latest_at) if latest_at else "", formats.machine(row.created_at)),
    )
