"""Stored bytes and their rows: how they come in, how they are used again, and how the unused ones go.

An object without a row is garbage that `collect_garbage` finds; a row is written after its object is stored,
so there is never a row without bytes.
"""

import time
from collections.abc import Iterable
from contextlib import AbstractContextManager, suppress
from pathlib import Path

from django.conf import settings
from django.db import transaction

from controlplane.core import storage
from controlplane.core.errors import Conflict, Integrity
from controlplane.registry.models import Artifact, Variant

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


def row_of(blob: storage.Blob) -> Artifact:
    """The row of these bytes. New bytes under a damaged digest mend it."""
    artifact, _ = Artifact.objects.update_or_create(
        sha256=blob.sha256, defaults={"size_bytes": blob.size_bytes, "state": Artifact.State.PRESENT}
    )
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
    Artifact.objects.filter(sha256=sha256).update(state=Artifact.State.DAMAGED)


def collect_garbage(*, older_than_s: float = GARBAGE_AFTER_S) -> int:
    """Removes artifacts that no row uses, objects without a row, and what killed uploads left behind.

    Returns how many rows went.
    """
    unused = Artifact.objects.filter(versions=None, variants=None, datasets=None)
    with transaction.atomic():
        rows = list(unused.select_for_update(of=("self",), skip_locked=True).values_list("pk", flat=True))
        removed, _ = Artifact.objects.filter(pk__in=rows).delete()
    storage.sweep(keep=set(Artifact.objects.values_list("sha256", flat=True)), older_than_s=older_than_s)
    _sweep_forms(older_than_s=older_than_s)
    return removed


def _sweep_forms(*, older_than_s: float) -> None:
    """Files of multipart forms that Django was still writing when its process was killed."""
    before = time.time() - older_than_s
    for file in Path(settings.FILE_UPLOAD_TEMP_DIR).glob("*.upload*"):
        with suppress(FileNotFoundError):
            if file.stat().st_mtime < before:
                file.unlink()
