"""The registry's rows as the API says them: built by hand, because a list is read far more than written."""

from typing import Any

import orjson

from controlplane.registry import costs
from controlplane.registry.answers import Answers
from controlplane.registry.api import schemas
from controlplane.registry.gate import Gate
from controlplane.registry.listing import VersionLine
from controlplane.registry.models import Alias, Dataset, Import, Model, Report, Variant, Version


def model(row: Model) -> schemas.Model:
    return {
        "name": row.name,
        "description": row.description,
        "latest_version": getattr(row, "latest_number", None),
        "aliases": {alias.name: _pointer(alias.variant) for alias in row.aliases.all()},
        "created_at": row.created_at,
        "url": f"/api/v1/models/{row.name}/",
        "page": row.get_absolute_url(),
    }


def gate(row: Model) -> schemas.Gate:
    asked = Gate.from_json(row.gate)
    return {
        "min_speedup": asked.min_speedup,
        "max_loss_points": asked.max_loss_points,
        "max_relative_loss_percent": asked.max_relative_loss_percent,
        "max_size_mib": asked.max_size_mib,
        "max_latency_ms": asked.max_latency_ms,
    }


def answers(row: Model, latest: Version | None) -> schemas.Answers:
    stated = Answers.from_json(row.answers)
    found = stated.settled(latest.signature) if latest else None
    settled: Any = (
        {"task": found.task, "output": found.output or None, "pooling": found.pooling} if found else None
    )
    return {
        "task": stated.task or None,
        "output": stated.output or None,
        "pooling": stated.pooling or None,
        "settled": settled,
    }


def version(row: Version) -> schemas.Version:
    creator = str(row.created_by) if row.created_by else None
    return _version(row, model=row.model.name, creator=creator, signature=row.signature, summary=row.summary)


def version_line(row: VersionLine) -> schemas.Version:
    """JSON goes out as it came from the database, without being read on the way."""
    return _version(
        row,
        model=row.model_name,
        creator=row.creator,
        signature=orjson.Fragment(row.signature),
        summary=orjson.Fragment(row.summary),
    )


def _version(
    row: Version | VersionLine, *, model: str, creator: str | None, signature: Any, summary: Any
) -> schemas.Version:
    return {
        "model": model,
        "version": row.number,
        "format": row.format,
        "sha256": row.source_sha256,
        "size_bytes": row.source_bytes,
        "filename": row.source_filename,
        "signature": signature,
        "summary": summary,
        "quarantined": row.quarantined_reason or None,
        "trusted_at": row.trusted_at,
        "created_by": creator,
        "created_at": row.created_at,
        "url": f"/api/v1/models/{model}/versions/{row.number}/",
        "page": f"/models/{model}/versions/{row.number}/",
    }


def variant(row: Variant) -> schemas.Variant:
    return {
        "model": row.version.model.name,
        "version": row.version.number,
        "variant": row.number,
        "technique": row.technique or None,
        "precision": row.precision,
        "format": row.format,
        "sha256": row.artifact.sha256,
        "size_bytes": row.artifact.size_bytes,
        "parent": row.parent.number if row.parent else None,
        "job": row.job_id,
        "verdict": row.verdict or None,
        "signature": row.signature,
        "provenance": row.provenance,
        "created_at": row.created_at,
        "url": f"{_version_url(row.version)}variants/{row.number}/",
        "page": row.get_absolute_url(),
    }


def report(of: Variant, row: Report, *, price_per_hour: float | None = None) -> schemas.Report:
    address = f"{_version_url(of.version)}variants/{of.number}/reports/{row.pk}/"
    return {
        "id": row.pk,
        "job": row.job_id,
        "verdict": row.verdict,
        "sentence": row.sentence,
        "created_at": row.created_at,
        "report": row.data,
        "cost": costs.costs(row.data, price_per_hour).to_json() if price_per_hour is not None else None,
        "url": address,
        "html": f"{address}html/",
    }


def one_import(row: Import) -> schemas.Import:
    return {
        "id": row.pk,
        "model": row.model.name,
        "reference": row.reference,
        "revision": row.revision or None,
        "state": row.state,
        "code": row.code or None,
        "message": row.message or None,
        "done_bytes": row.done_bytes,
        "total_bytes": row.total_bytes,
        "version": row.version.number if row.version else None,
        "created_by": str(row.created_by) if row.created_by else None,
        "created_at": row.created_at,
        "finished_at": row.finished_at,
        "url": f"/api/v1/models/{row.model.name}/imports/{row.pk}/",
    }


def alias(row: Alias) -> schemas.Alias:
    return {"alias": row.name, **_pointer(row.variant), "moved_at": row.moved_at}


def dataset(row: Dataset) -> schemas.Dataset:
    return {
        "name": row.name,
        "role": row.role,
        "items": row.items,
        "has_labels": row.has_labels,
        "metric": row.metric or None,
        "sha256": row.artifact.sha256,
        "size_bytes": row.artifact.size_bytes,
        "summary": row.summary,
        "created_at": row.created_at,
    }


def _pointer(row: Variant) -> schemas.Pointer:
    return {"version": row.version.number, "variant": row.number}


def _version_url(row: Version) -> str:
    return f"/api/v1/models/{row.model.name}/versions/{row.number}/"
