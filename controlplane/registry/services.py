"""The verbs of the registry. Pages, API, jobs and the demo call these and nothing else.

Bytes first, row second: an object without a row is garbage that `collect_garbage` finds, a row without an
object can not come to be.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from django.db import IntegrityError, transaction
from django.db.models import ProtectedError

from controlplane.accounts import access, audit
from controlplane.accounts.access import Actor
from controlplane.accounts.models import Role
from controlplane.core import bus, storage
from controlplane.core.errors import Conflict, Unprocessable
from controlplane.core.names import check_name, free_text
from controlplane.core.rows import locked
from controlplane.registry import artifacts, gate, intake, metrics, usage
from controlplane.registry.answers import Answers
from controlplane.registry.artifacts import mark_damaged as mark_damaged
from controlplane.registry.gate import Gate
from controlplane.registry.models import Alias, Artifact, Dataset, Model, Report, Variant, Version

MAX_DESCRIPTION = 2000


def register_model(actor: Actor, *, name: str, description: str = "") -> Model:
    """Raises Conflict if the team has a model of that name."""
    actor.require(Role.ENGINEER)
    check_name(name, what="model")
    description = free_text(description, field="description", most=MAX_DESCRIPTION)
    try:
        with transaction.atomic():
            model = Model.objects.create(
                team=actor.team, name=name, description=description, created_by=actor.user
            )
            _audit(actor, "registered", model)
    except IntegrityError as error:
        raise _taken(name) from error
    return model


def _taken(name: str) -> Conflict:
    return Conflict(
        "model_exists",
        f"The team already has a model “{name}”.",
        "Upload a new version to it, or choose another name.",
        fields={"name": ["This name is taken in your team."]},
    )


def describe_model(actor: Actor, model: Model, *, description: str) -> Model:
    actor.require(Role.ENGINEER)
    description = free_text(description, field="description", most=MAX_DESCRIPTION)
    with transaction.atomic():
        locked(model)
        model.description = description
        model.save(update_fields=["description", "updated_at"])
        _audit(actor, "described", model)
    return model


def set_gate(actor: Actor, model: Model, wanted: Gate) -> Model:
    """What an alias asks of a variant from now on. Aliases stay where they point."""
    actor.require(Role.ENGINEER)
    with transaction.atomic():
        before = Gate.from_json(locked(model).gate)
        model.gate = wanted.to_json()
        model.save(update_fields=["gate", "updated_at"])
        _audit(actor, "changed gate of", model, details={"from": before.in_words(), "to": wanted.in_words()})
    return model


def set_answers(actor: Actor, model: Model, wanted: Answers, *, version: Version) -> Model:
    """How jobs from now on compare answers; what was measured stays. Raises Unprocessable("unknown_output") for an
    output that the version does not have."""
    actor.require(Role.ENGINEER)
    outputs = [port["name"] for port in version.signature["outputs"]]
    if wanted.output and wanted.output not in outputs:
        said = f"It has {', '.join(f'“{name[:60]}”' for name in outputs[:8])}."
        raise Unprocessable(
            "unknown_output",
            f"{version} has no output “{wanted.output[:60]}”.",
            said,
            fields={"output": [said]},
        )
    with transaction.atomic():
        before = locked(model).answers
        model.answers = wanted.to_json()
        model.save(update_fields=["answers", "updated_at"])
        _audit(
            actor,
            "changed the comparison of answers of",
            model,
            details={"from": before, "to": model.answers},
        )
    return model


def _uploaded() -> dict[str, Any]:
    return {"uploaded": True}


def upload_version(
    actor: Actor,
    model: Model,
    *,
    chunks: Iterable[bytes],
    filename: str = "",
    expected_sha256: str | None = None,
    expected_bytes: int | None = None,
    provenance: Callable[[], Mapping[str, Any]] = _uploaded,
    then: Callable[[Version], object] = lambda _: None,
) -> tuple[Version, bool]:
    """Streams, scans and registers. Returns the version and whether it is new: the same bytes again give
    the version that they already are, and mend it if its stored bytes were damaged.

    `provenance` is asked when the bytes are there; `then` runs in the transaction that adds the version, and undoes it
    by raising.

    Raises TooLarge, StorageFull, InvalidInput (length), Unprocessable (what the scan refused); then nothing
    is kept. Takes as long as the upload plus the scan, which is bounded by SLIPWAY_INTAKE_WALL_S.
    """
    actor.require(Role.ENGINEER)
    with artifacts.receiving(
        chunks, expected_sha256=expected_sha256, expected_bytes=expected_bytes
    ) as received:
        known = _known_version(model, received.blob)
        if known is not None and known.artifact.state == Artifact.State.PRESENT:
            then(known)
            return known, False
        scanned = _scan(received, filename=filename)
    with transaction.atomic():
        version, created = _add_version(actor, model, scanned, provenance=provenance())
        then(version)
    return version, created


def register_with_version(
    actor: Actor, *, name: str, description: str = "", chunks: Iterable[bytes], filename: str = ""
) -> Version:
    """A model with its first version: both, or neither. Raises as `register_model` and `upload_version` do."""
    actor.require(Role.ENGINEER)
    check_name(name, what="model")
    free_text(description, field="description", most=MAX_DESCRIPTION)
    if Model.objects.in_team(actor.team).filter(name=name).exists():
        raise _taken(name)
    with artifacts.receiving(chunks) as received:
        scanned = _scan(received, filename=filename)
    with transaction.atomic():
        model = register_model(actor, name=name, description=description)
        version, _ = _add_version(actor, model, scanned, provenance=_uploaded())
    return version


@dataclass(frozen=True, kw_only=True)
class _Scanned:
    """`source` is what was sent, `kept` the object that is served: another one where an archive was repacked."""

    source: storage.Blob
    kept: storage.Blob
    filename: str
    found: intake.Inspection


def _scan(received: storage.Received, *, filename: str) -> _Scanned:
    with intake.inspected(received.path, filename=filename) as found:
        kept = storage.put_file(found.artifact_path) if found.repacked else received.keep()
    return _Scanned(source=received.blob, kept=kept, filename=filename, found=found)


def _known_version(model: Model, source: storage.Blob) -> Version | None:
    rows = Version.objects.filter(model=model, source_sha256=source.sha256)
    return rows.select_related("model", "artifact").first()


def _add_version(
    actor: Actor, model: Model, scanned: _Scanned, *, provenance: Mapping[str, Any]
) -> tuple[Version, bool]:
    with transaction.atomic():
        number = locked(model).version_count + 1
        artifact = artifacts.row_of(scanned.kept, by=actor)
        known = _known_version(model, scanned.source)
        if known is not None:  # the same bytes arrived twice at once, or mend what was damaged
            return known, False
        version = Version.objects.create(
            model=model,
            number=number,
            source_filename=_plain_name(scanned.filename),
            source_sha256=scanned.source.sha256,
            source_bytes=scanned.source.size_bytes,
            artifact=artifact,
            format=scanned.found.format,
            signature=scanned.found.signature,
            summary=scanned.found.summary,
            created_by=actor.user,
        )
        Variant.objects.create(
            version=version,
            artifact=artifact,
            format=version.format,
            signature=version.signature,
            precision=version.summary.get("precision", "fp32"),
            provenance=dict(provenance),
        )
        Model.objects.filter(pk=model.pk).update(version_count=number)
        _audit(actor, "imported" if "imported" in provenance else "uploaded", version)
    return version, True


def _plain_name(filename: str) -> str:
    """The last part of what the client calls the file, for people to recognize; nothing is stored under it."""
    last = Path(filename.replace("\\", "/")).name
    return "".join(character for character in last if character.isprintable())[:255]


def add_variant(
    *,
    parent: Variant,
    blob: storage.Blob,
    technique: str,
    format: str,
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
        artifact=artifacts.row_of(blob),
        technique=technique,
        format=format,
        precision=precision,
        signature=parent.signature,
        provenance=dict(provenance),
        job_id=job_id,
    )
    add_report(variant, job_id=job_id, report=report)
    return variant


def add_report(variant: Variant, *, job_id: int, report: Mapping[str, Any]) -> Report:
    """Evidence beside what is there; the verdict is that of the newest. Call inside the job's finishing transaction."""
    row = Report.objects.create(
        variant=variant,
        job_id=job_id,
        verdict=report["verdict"],
        sentence=report["sentence"],
        data=dict(report),
    )
    variant.verdict = row.verdict
    variant.save(update_fields=["verdict"])
    model = variant.version.model
    bus.publish("models", f"model:{model.pk}", team_id=model.team_id)
    return row


def move_alias(actor: Actor, model: Model, *, name: str, variant: Variant, override: str = "") -> Alias:
    """Points `name` to the variant, whatever it pointed to before. Raises Conflict for what must not serve, and
    for what has not passed its gate unless `override` says why it shall be used; the audit keeps that."""
    actor.require(Role.ENGINEER)
    check_name(name, what="alias")
    override = free_text(override, field="override", most=gate.MAX_OVERRIDE)
    if variant.version.model_id != model.pk:
        raise Unprocessable(
            "foreign_variant", "An alias points inside its own model.", f"{variant} is elsewhere."
        )
    if variant.version.quarantined_reason:
        raise Conflict(
            "quarantined", f"{variant.version} is quarantined.", variant.version.quarantined_reason
        )
    if variant.artifact.state == Artifact.State.DAMAGED:
        raise artifacts.damaged(variant)
    missing = gate.failures(variant, Gate.from_json(model.gate))
    if missing and not override:
        raise gate.refusal(variant, missing)
    with transaction.atomic():
        locked(model)  # first, as a deletion does, so that neither waits for the other
        locked(variant)
        before = Alias.objects.select_for_update().filter(model=model, name=name).first()
        alias, _ = Alias.objects.update_or_create(
            model=model, name=name, defaults={"variant": variant, "moved_by": actor.user}
        )
        details = {"from": str(before.variant) if before else None, "to": str(variant)}
        overridden = {"override": override, "not passed": missing} if missing else {}
        _audit(actor, "moved alias of", model, details=details | {"alias": name} | overridden)
    return alias


def remove_alias(actor: Actor, alias: Alias) -> None:
    actor.require(Role.ENGINEER)
    with transaction.atomic():
        locked(alias).delete()
        _audit(
            actor, "removed alias of", alias.model, details={"alias": alias.name, "from": str(alias.variant)}
        )


def delete_version(actor: Actor, version: Version) -> None:
    """Removes a version with its variants and reports. Raises Conflict that names everything that uses it."""
    actor.require(Role.ENGINEER)
    with _protected(what=str(version)), transaction.atomic():
        current = locked(version)
        _refuse_if_used(version.variants.all(), what=str(version))
        _audit(actor, "deleted", version)
        _remove(current)


def delete_model(actor: Actor, model: Model) -> None:
    """Removes a model with everything below it. Raises Conflict that names everything that uses it."""
    actor.require(Role.ADMIN)
    with _protected(what=model.name), transaction.atomic():
        current = locked(model)
        _refuse_if_used(Variant.objects.filter(version__model=model), what=model.name)
        _audit(actor, "deleted", model)
        for version in model.versions.all():
            _remove(version)
        current.delete()


@contextmanager
def _protected(*, what: str) -> Iterator[None]:
    """Somebody began to use it between the question and the deletion: the database has the last word, and says it
    when the transaction ends."""
    try:
        yield
    except (ProtectedError, IntegrityError) as error:
        raise Conflict(
            "in_use", f"{what} is in use and cannot be deleted.", "Reload to see by whom."
        ) from error


def _refuse_if_used(variants: Iterable[Variant], *, what: str) -> None:
    _refuse(usage.of(variants), what=what)


def _refuse(users: list[str], *, what: str) -> None:
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
    actor: Actor,
    model: Model,
    *,
    name: str,
    role: str,
    version: Version,
    metric: str = "",
    chunks: Iterable[bytes],
    expected_sha256: str | None = None,
    expected_bytes: int | None = None,
) -> Dataset:
    """An npz, Parquet or CSV file that fits the version's signature; an npz is kept. Raises as `upload_version` does,
    and Conflict for a taken name. `metric` is a key of `metrics`; without one its labels choose it."""
    actor.require(Role.ENGINEER)
    check_name(name, what="data set")
    if Dataset.objects.filter(model=model, name=name).exists():
        raise _dataset_taken(name)
    with (
        artifacts.receiving(
            chunks, expected_sha256=expected_sha256, expected_bytes=expected_bytes
        ) as received,
        intake.inspected_dataset(
            received.path,
            signature=version.signature,
            partly_labelled=role == Dataset.Role.CALIBRATION,
        ) as found,
    ):
        metric = metrics.chosen(
            metric,
            labels=found.labels,
            signature=version.signature,
            answers=Answers.from_json(model.answers),
        )
        blob = storage.put_file(found.artifact_path) if found.repacked else received.keep()
    try:
        with transaction.atomic():
            locked(model)
            dataset = Dataset.objects.create(
                model=model,
                name=name,
                role=role,
                artifact=artifacts.row_of(blob, by=actor),
                items=found.items,
                has_labels=found.has_labels,
                metric=metric,
                summary=found.summary,
                created_by=actor.user,
            )
            _audit(actor, "added data set to", model, details={"dataset": name, "items": found.items})
    except IntegrityError as error:
        raise _dataset_taken(name) from error
    return dataset


def _dataset_taken(name: str) -> Conflict:
    return Conflict(
        "dataset_exists",
        f"The model already has a data set “{name}”.",
        "Choose another name.",
        fields={"name": ["This name is taken in the model."]},
    )


def delete_dataset(actor: Actor, dataset: Dataset) -> None:
    """Jobs that used it keep their reports. Raises Conflict while a job still needs it: measured without it,
    that job would say something else than what was asked."""
    actor.require(Role.ENGINEER)
    what = f"The data set “{dataset.name}”"
    with _protected(what=what), transaction.atomic():
        current = locked(dataset)
        _refuse(usage.of_dataset(dataset), what=what)
        _audit(actor, "removed data set of", dataset.model, details={"dataset": dataset.name})
        current.delete()


def quarantine(version: Version, *, reason: str) -> None:
    """Puts the version away, as the system. The first reason stays."""
    with transaction.atomic():
        if Version.objects.filter(pk=version.pk, quarantined_reason="").update(
            quarantined_reason=reason[:200]
        ):
            _audit(access.system(version.model.team), "quarantined", version, details={"reason": reason})


def lift_quarantine(actor: Actor, version: Version) -> Version:
    """Jobs, aliases and deployments may use it again. Done once, however often it is asked for."""
    actor.require(Role.ADMIN)
    with transaction.atomic():
        reason = locked(version).quarantined_reason
        if reason:
            version.quarantined_reason = ""
            version.save(update_fields=["quarantined_reason"])
            _audit(actor, "lifted the quarantine of", version, details={"reason": reason})
    return version


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
