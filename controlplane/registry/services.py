"""The verbs of the registry. Pages, API, jobs and the demo call these and nothing else.

Bytes first, row second: an object without a row is garbage that `collect_garbage` finds, a row without an
object can not come to be.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from django.conf import settings
from django.db import IntegrityError, transaction

from controlplane.accounts import audit
from controlplane.accounts.access import Actor
from controlplane.accounts.models import Role
from controlplane.core import bus, storage
from controlplane.core.errors import Conflict, SlipwayError, Unprocessable
from controlplane.core.names import check_name
from controlplane.registry import intake, usage
from controlplane.registry.models import Alias, Artifact, Dataset, Model, Report, Variant, Version

MAX_DESCRIPTION = 2000

GARBAGE_AFTER_S = 3600.0


def register_model(actor: Actor, *, name: str, description: str = "") -> Model:
    """Raises Conflict if the team has a model of that name."""
    actor.require(Role.ENGINEER)
    check_name(name, what="model")
    try:
        with transaction.atomic():
            model = Model.objects.create(
                team=actor.team, name=name, description=description.strip(), created_by=actor.user
            )
            _audit(actor, "registered", model)
    except IntegrityError as error:
        raise Conflict(
            "model_exists",
            f"The team already has a model “{name}”.",
            "Upload a new version to it, or choose another name.",
            fields={"name": ["This name is taken in your team."]},
        ) from error
    return model


def describe_model(actor: Actor, model: Model, *, description: str) -> Model:
    actor.require(Role.ENGINEER)
    with transaction.atomic():
        model.description = description.strip()
        model.save(update_fields=["description", "updated_at"])
        _audit(actor, "described", model)
    return model


def upload_version(
    actor: Actor,
    model: Model,
    *,
    chunks: Iterable[bytes],
    filename: str = "",
    expected_sha256: str | None = None,
    expected_bytes: int | None = None,
) -> tuple[Version, bool]:
    """Streams, scans and registers. Returns the version and whether it is new: the same bytes again give
    the version that they already are.

    Raises TooLarge, StorageFull, InvalidInput (length), Unprocessable (what the scan refused); then nothing
    is kept. Takes as long as the upload plus the scan, which is bounded by SLIPWAY_INTAKE_WALL_S.
    """
    actor.require(Role.ENGINEER)
    blob = storage.put(
        chunks,
        limit_bytes=settings.ENVIRONMENT.max_upload_bytes,
        expected_sha256=expected_sha256,
        expected_bytes=expected_bytes,
    )
    known = Version.objects.filter(model=model, source_sha256=blob.sha256).select_related("model").first()
    if known is not None:
        return known, False
    try:
        with intake.inspected(storage.path(blob.sha256), filename=filename) as found:
            kept = storage.put_file(found.artifact_path) if found.repacked else blob
    except SlipwayError:
        _forget(blob)
        raise
    if kept != blob:
        _forget(blob)
    return _add_version(actor, model, source=blob, kept=kept, filename=filename, found=found)


def _add_version(
    actor: Actor,
    model: Model,
    *,
    source: storage.Blob,
    kept: storage.Blob,
    filename: str,
    found: intake.Inspection,
) -> tuple[Version, bool]:
    with transaction.atomic():
        number = _next_number(model)
        known = Version.objects.filter(model=model, source_sha256=source.sha256).first()
        if known is not None:  # the same bytes arrived twice at once
            return known, False
        version = Version.objects.create(
            model=model,
            number=number,
            source_filename=Path(filename.replace("\\", "/")).name[:255],
            source_sha256=source.sha256,
            source_bytes=source.size_bytes,
            artifact=_artifact(kept),
            signature=found.signature,
            summary=found.summary,
            created_by=actor.user,
        )
        Variant.objects.create(
            version=version,
            artifact=version.artifact,
            signature=found.signature,
            precision=found.summary.get("precision", "fp32"),
            provenance={"uploaded": True},
        )
        Model.objects.filter(pk=model.pk).update(version_count=number)
        _audit(actor, "uploaded", version)
    return version, True


def _next_number(model: Model) -> int:
    """Locks the model row, so that numbers are given one at a time."""
    return Model.objects.select_for_update().get(pk=model.pk).version_count + 1


def add_variant(
    *,
    parent: Variant,
    blob: storage.Blob,
    technique: str,
    precision: str,
    provenance: Mapping[str, Any],
    job_id: int,
    report: Mapping[str, Any],
) -> Variant:
    """A job's result with its evidence. Call inside the job's finishing transaction."""
    Version.objects.select_for_update().get(pk=parent.version_id)
    last = (
        Variant.objects.filter(version_id=parent.version_id)
        .order_by("-number")
        .values_list("number", flat=True)
    )
    variant = Variant.objects.create(
        version_id=parent.version_id,
        number=last[0] + 1,
        parent=parent,
        artifact=_artifact(blob),
        technique=technique,
        precision=precision,
        signature=parent.signature,
        provenance=dict(provenance),
        job_id=job_id,
        verdict=report["verdict"],
    )
    Report.objects.create(
        variant=variant, verdict=report["verdict"], sentence=report["sentence"], data=dict(report)
    )
    bus.publish("models", f"model:{parent.version.model_id}", team_id=parent.version.model.team_id)
    return variant


def move_alias(actor: Actor, model: Model, *, name: str, variant: Variant) -> Alias:
    """Points `name` to the variant, whatever it pointed to before. Raises Conflict for what must not serve."""
    actor.require(Role.ENGINEER)
    check_name(name, what="alias")
    if variant.version.model_id != model.pk:
        raise Unprocessable(
            "foreign_variant", "An alias points inside its own model.", f"{variant} is elsewhere."
        )
    if variant.version.quarantined_reason:
        raise Conflict(
            "quarantined", f"{variant.version} is quarantined.", variant.version.quarantined_reason
        )
    with transaction.atomic():
        before = Alias.objects.select_for_update().filter(model=model, name=name).first()
        alias, _ = Alias.objects.update_or_create(
            model=model, name=name, defaults={"variant": variant, "moved_by": actor.user}
        )
        details = {"from": str(before.variant) if before else None, "to": str(variant)}
        _audit(actor, "moved alias of", model, details=details | {"alias": name})
    return alias


def remove_alias(actor: Actor, alias: Alias) -> None:
    actor.require(Role.ENGINEER)
    with transaction.atomic():
        _audit(
            actor, "removed alias of", alias.model, details={"alias": alias.name, "from": str(alias.variant)}
        )
        alias.delete()


def delete_version(actor: Actor, version: Version) -> None:
    """Removes a version with its variants and reports. Raises Conflict that names everything that uses it."""
    actor.require(Role.ENGINEER)
    with transaction.atomic():
        Version.objects.select_for_update().get(pk=version.pk)
        _refuse_if_used(version.variants.all(), what=str(version))
        _audit(actor, "deleted", version)
        _remove(version)


def delete_model(actor: Actor, model: Model) -> None:
    """Removes a model with everything below it. Raises Conflict that names everything that uses it."""
    actor.require(Role.ADMIN)
    with transaction.atomic():
        Model.objects.select_for_update().get(pk=model.pk)
        _refuse_if_used(Variant.objects.filter(version__model=model), what=model.name)
        _audit(actor, "deleted", model)
        for version in model.versions.all():
            _remove(version)
        model.delete()


def _refuse_if_used(variants: Iterable[Variant], *, what: str) -> None:
    users = usage.of(variants)
    if users:
        raise Conflict(
            "in_use",
            f"{what} is in use and cannot be deleted.",
            "; ".join(users[:5]) + (f"; and {len(users) - 5} more" if len(users) > 5 else "") + ".",
        )


def _remove(version: Version) -> None:
    """Children first, because a variant protects its parent."""
    for variant in version.variants.order_by("-number"):
        variant.delete()
    version.delete()


def add_dataset(
    actor: Actor, model: Model, *, name: str, role: str, version: Version, chunks: Iterable[bytes]
) -> Dataset:
    """An npz that fits the version's signature. Raises as `upload_version` does, and Conflict for a taken name."""
    actor.require(Role.ENGINEER)
    check_name(name, what="data set")
    blob = storage.put(chunks, limit_bytes=settings.ENVIRONMENT.max_upload_bytes)
    try:
        found = intake.inspect_dataset(storage.path(blob.sha256), signature=version.signature)
    except SlipwayError:
        _forget(blob)
        raise
    try:
        with transaction.atomic():
            dataset = Dataset.objects.create(
                model=model,
                name=name,
                role=role,
                artifact=_artifact(blob),
                items=found.items,
                has_labels=found.has_labels,
                summary=found.summary,
                created_by=actor.user,
            )
            _audit(actor, "added data set to", model, details={"dataset": name, "items": found.items})
    except IntegrityError as error:
        raise Conflict(
            "dataset_exists", f"The model already has a data set “{name}”.", "Choose another name."
        ) from error
    return dataset


def delete_dataset(actor: Actor, dataset: Dataset) -> None:
    """Jobs that used it keep their reports, which quote its digest."""
    actor.require(Role.ENGINEER)
    with transaction.atomic():
        _audit(actor, "removed data set of", dataset.model, details={"dataset": dataset.name})
        dataset.delete()


def quarantine(version: Version, *, reason: str) -> None:
    Version.objects.filter(pk=version.pk).update(quarantined_reason=reason[:200])


def mark_damaged(*, sha256: str) -> None:
    """Bytes that no longer have their digest are never used again; see `Artifact.State`."""
    Artifact.objects.filter(sha256=sha256).update(state=Artifact.State.DAMAGED)


def _artifact(blob: storage.Blob) -> Artifact:
    """The row of these bytes. New bytes under a damaged digest mend it."""
    artifact, _ = Artifact.objects.update_or_create(
        sha256=blob.sha256, defaults={"size_bytes": blob.size_bytes, "state": Artifact.State.PRESENT}
    )
    return artifact


def _forget(blob: storage.Blob) -> None:
    """Drops bytes that nothing refers to."""
    if not Artifact.objects.filter(sha256=blob.sha256).exists():
        storage.delete(blob.sha256)


def collect_garbage(*, older_than_s: float = GARBAGE_AFTER_S) -> int:
    """Removes artifacts that no row uses, and objects and temporary files without a row. Returns how many rows."""
    unused = Artifact.objects.filter(versions=None, variants=None, datasets=None)
    with transaction.atomic():
        rows = list(unused.select_for_update(of=("self",), skip_locked=True).values_list("pk", flat=True))
        removed, _ = Artifact.objects.filter(pk__in=rows).delete()
    storage.sweep(keep=set(Artifact.objects.values_list("sha256", flat=True)), older_than_s=older_than_s)
    return removed


def _audit(
    actor: Actor, verb: str, row: Model | Version, *, details: Mapping[str, Any] | None = None
) -> None:
    model = row if isinstance(row, Model) else row.model
    audit.record(
        actor,
        verb,
        object_type=row._meta.model_name or "",
        object_id=row.pk,
        object_name=str(row),
        object_url=row.get_absolute_url(),
        details=details,
    )
    bus.publish("models", f"model:{model.pk}", team_id=actor.team.pk)
