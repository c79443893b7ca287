"""Stored bytes and their rows: how they come in, how they are used again, and how the unused ones go.

An object without a row is garbage that `collect_garbage` finds; a row is written after its object is stored,
so there is never a row without bytes.
"""

import shutil
import time
from collections.abc import Iterable
from contextlib import AbstractContextManager, suppress
from pathlib import Path

from django.conf import settings
from django.db import transaction
from django.db.models import Q

from controlplane.accounts import access, audit
from controlplane.accounts.access import Actor
from controlplane.core import bus, storage
from controlplane.core.errors import Conflict, Integrity
from controlplane.registry import intake
from controlplane.registry.models import Artifact, Model, Variant

GARBAGE_AFTER_S = 3600.0


def receiving(
    chunks: Iterable[bytes], *, expected_sha256: str | None = None, expected_bytes: int | None = None
) -> AbstractContextManager[storage.Received]:
    """Bytes of a user, up to the limit that the installation sets. See `storage.receiving`."""
    return storage.receiving(
        chunks,
        limit_bytes=settings.ENVIRONMENT.max_upload_bytes,
        expected_sha256=expected_sha256,
        expected_bytes=expected_bytes,
    )


def row_of(blob: storage.Blob, *, by: Actor | None = None) -> Artifact:
    """The row of these bytes, held until the transaction ends. New bytes under a damaged digest mend it."""
    artifact, _ = Artifact.objects.select_for_update().get_or_create(
        sha256=blob.sha256, defaults={"size_bytes": blob.size_bytes}
    )
    rows = Artifact.objects.filter(pk=artifact.pk)
    if rows.filter(state=Artifact.State.DAMAGED).update(state=Artifact.State.PRESENT):
        _tell(rows.get(), "mended the bytes of", by=by)
    return artifact


def intact(variant: Variant) -> Path:
    """The variant's bytes after hashing them. Raises Conflict if they are damaged, which is then written down."""
    if variant.artifact.state == Artifact.State.DAMAGED:
        raise damaged(variant)
    try:
        return storage.path(variant.artifact.sha256, verify=True)
    except Integrity as error:
        mark_damaged(sha256=variant.artifact.sha256)
        raise damaged(variant) from error


def damaged(variant: Variant) -> Conflict:
    return Conflict(
        "integrity",
        f"The stored bytes of {variant} no longer have their digest.",
        "Upload the file again: the same bytes mend the version. A variant is made again by its job."
        if variant.number
        else "Upload the file again; the same bytes mend it.",
    )


def mark_damaged(*, sha256: str) -> None:
    """Bytes that no longer have their digest are never used again; see `Artifact.State`."""
    with transaction.atomic():
        rows = Artifact.objects.filter(sha256=sha256)
        if rows.filter(state=Artifact.State.PRESENT).update(state=Artifact.State.DAMAGED):
            _tell(rows.get(), "found damaged bytes of")


def _tell(artifact: Artifact, verb: str, *, by: Actor | None = None) -> None:
    """In the trail of every model that uses the bytes; as Slipway where `by` is not of its team."""
    using = Q(versions__variants__artifact=artifact) | Q(datasets__artifact=artifact)
    for model in Model.objects.filter(using).distinct().select_related("team"):
        audit.record(
            by if by is not None and by.team == model.team else access.system(model.team),
            verb,
            object_type="model",
            object_id=model.pk,
            object_name=model.name,
            object_url=model.get_absolute_url(),
            details={"sha256": artifact.sha256},
        )
        bus.publish("models", f"model:{model.pk}", team_id=model.team.pk)


def collect_garbage(*, older_than_s: float = GARBAGE_AFTER_S) -> int:
    """Removes artifacts that no row uses, objects without a row, and what killed uploads left behind.

    Returns how many rows went.
    """
    unused = Artifact.objects.filter(versions=None, variants=None, datasets=None)
    with transaction.atomic():
        rows = list(unused.select_for_update(of=("self",), skip_locked=True).values_list("pk", flat=True))
        removed, _ = Artifact.objects.filter(pk__in=rows).delete()
    storage.sweep(keep=set(Artifact.objects.values_list("sha256", flat=True)), older_than_s=older_than_s)
    _sweep(Path(settings.FILE_UPLOAD_TEMP_DIR).glob("*.upload*"), older_than_s=older_than_s)
    _sweep(intake.scratch_root().glob(f"{intake.SCRATCH_PREFIX}*"), older_than_s=older_than_s)
    return removed


def _sweep(left: Iterable[Path], *, older_than_s: float) -> None:
    """Files of multipart forms that Django was still writing, and folders of looks, when a process was killed."""
    before = time.time() - older_than_s
    for path in left:
        with suppress(FileNotFoundError):
            if path.stat().st_mtime >= before:
                continue
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink()
