"""Artifacts by the digest of their bytes: written once, never changed, found by SHA-256.

    <location>/incoming/<random>      being written; what a crash leaves here, `sweep` collects
    <location>/sha256/ab/cdef...      whole, synced, read-only; appears by an atomic rename or not at all

Bytes come before rows: a row that names a digest is written after `put` returned, so there is never a row
without bytes. Bytes without a row are garbage that `sweep` finds by age. Reading goes through Django's storage
`artifacts`; `put` and `path` need one that keeps files on this machine. Refused: `Storage.save`, whose file is
visible under its name while it is being written.
"""

import errno
import fcntl
import hashlib
import os
import re
import shutil
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from django.core.files.base import File
from django.core.files.storage import Storage, storages

from controlplane.core.errors import Integrity, InvalidInput, NotFound, StorageFull, TooLarge, Unprocessable

_CHUNK = 1024**2
_DIGEST = re.compile(r"[0-9a-f]{64}")
_FULL = {errno.ENOSPC, errno.EDQUOT}


@dataclass(frozen=True, kw_only=True)
class Blob:
    sha256: str
    size_bytes: int


@dataclass(frozen=True, kw_only=True)
class Swept:
    """What `sweep` removed."""

    temporary: int
    objects: int
    size_bytes: int


@dataclass(frozen=True, kw_only=True)
class Received:
    """Whole bytes that are no object yet: `path` may be looked at, `keep` makes them one."""

    path: Path
    blob: Blob

    def keep(self) -> Blob:
        """Call once, as the last thing before the row is written; `path` is gone afterwards."""
        _publish(self.path, self.blob)
        return self.blob


@contextmanager
def receiving(
    chunks: Iterable[bytes],
    *,
    limit_bytes: int,
    expected_sha256: str | None = None,
    expected_bytes: int | None = None,
) -> Iterator[Received]:
    """Takes the bytes in, to be judged before they are kept. What is not kept is gone after the block.

    Nobody has to delete what was refused, so a refusal here can not take the bytes from somebody who is
    registering the same ones right now. Raises as `put` does.
    """
    if expected_sha256 is not None and not _DIGEST.fullmatch(expected_sha256):
        raise InvalidInput(
            "invalid_digest", "The digest is not a SHA-256.", "Send 64 lower-case hexadecimal digits."
        )
    _refuse_declared(expected_bytes, limit_bytes=limit_bytes)
    with _incoming() as temporary:
        blob = _write(temporary, chunks, limit_bytes=limit_bytes, expected_bytes=expected_bytes)
        if expected_bytes is not None and blob.size_bytes < expected_bytes:
            raise InvalidInput(
                "short_body",
                "The upload ended early.",
                f"{blob.size_bytes:,} of {expected_bytes:,} announced bytes arrived. Send the file again.",
            )
        if expected_sha256 is not None and blob.sha256 != expected_sha256:
            raise Unprocessable(
                "digest_mismatch",
                "The bytes that arrived are not the ones announced.",
                f"Announced {expected_sha256}, received {blob.sha256}. Send the file again.",
            )
        yield Received(path=temporary, blob=blob)


def put(
    chunks: Iterable[bytes],
    *,
    limit_bytes: int,
    expected_sha256: str | None = None,
    expected_bytes: int | None = None,
) -> Blob:
    """Stores the bytes; the same bytes again are the same object, whoever sends them and however many at once.

    Raises TooLarge above `limit_bytes`, InvalidInput if the body is shorter or longer than `expected_bytes`
    or `expected_sha256` is no SHA-256, Unprocessable if the digest differs, StorageFull. Whatever is raised,
    also by `chunks`, nothing of the bytes is kept.
    """
    with receiving(
        chunks, limit_bytes=limit_bytes, expected_sha256=expected_sha256, expected_bytes=expected_bytes
    ) as received:
        return received.keep()


def put_file(path: Path, *, limit_bytes: int | None = None) -> Blob:
    """Stores a copy of a local file. Raises TooLarge, StorageFull."""
    size_bytes = path.stat().st_size
    with path.open("rb") as file:
        chunks = iter(lambda: file.read(_CHUNK), b"")
        return put(chunks, limit_bytes=size_bytes if limit_bytes is None else limit_bytes)


def exists(sha256: str) -> bool:
    return bool(_DIGEST.fullmatch(sha256)) and _storage().exists(_name(sha256))


def open(sha256: str) -> "File[Any]":
    """Opens for reading. Raises NotFound."""
    try:
        return _storage().open(_name(sha256))
    except FileNotFoundError as error:
        raise _missing(sha256) from error


def size_bytes(sha256: str) -> int:
    """Raises NotFound."""
    try:
        return _storage().size(_name(sha256))
    except FileNotFoundError as error:
        raise _missing(sha256) from error


def path(sha256: str, *, verify: bool = False) -> Path:
    """A local file for child processes; read it, never write it. Raises NotFound, and Integrity if `verify`
    finds other bytes than the name says (reads the whole file)."""
    found = Path(_storage().path(_name(sha256)))
    if not found.is_file():
        raise (
            Integrity(*_DAMAGED, f"{sha256} is missing.", extra={"sha256": sha256})
            if verify
            else _missing(sha256)
        )
    if verify:
        _verify(found, sha256)
    return found


def verify(sha256: str) -> None:
    """Hashes the stored bytes. Raises Integrity if they are missing or differ; `extra["sha256"]` names them."""
    path(sha256, verify=True)


def delete(sha256: str) -> None:
    """Removes the object if it is there. The caller knows that nothing refers to it, and that nobody is
    registering the same bytes right now; when in doubt leave it to `sweep`."""
    with _lock(exclusive=True):
        _storage().delete(_name(sha256))


def sweep(*, keep: set[str], older_than_s: float) -> Swept:
    """Removes temporary files and objects that are not in `keep` and older than `older_than_s`.

    Read `keep` from the database before calling. `put` makes an object young again, so that bytes which are
    about to get their row survive if `older_than_s` is longer than an upload takes to be registered.
    """
    before = time.time() - older_than_s
    temporary = sum(_remove_if_older(file, before) is not None for file in _files(_root() / "incoming"))
    removed = []
    for file in _files(_root() / "sha256"):
        if file.parent.name + file.name in keep:
            continue
        with _lock(exclusive=True):
            removed.append(_remove_if_older(file, before))
    sizes = [size for size in removed if size is not None]
    return Swept(temporary=temporary, objects=len(sizes), size_bytes=sum(sizes))


_DAMAGED = ("integrity", "A stored artifact is damaged.")


def _storage() -> Storage:
    return storages["artifacts"]


def _root() -> Path:
    return Path(_storage().path(""))


def _name(sha256: str) -> str:
    if not _DIGEST.fullmatch(sha256):
        raise _missing(sha256)
    return f"sha256/{sha256[:2]}/{sha256[2:]}"


def _missing(sha256: str) -> NotFound:
    return NotFound("artifact_missing", "There are no such bytes.", f"Nothing is stored as {sha256[:64]!r}.")


def _refuse_declared(size: int | None, *, limit_bytes: int) -> None:
    if size is None:
        return
    if size > limit_bytes:
        raise _too_large(limit_bytes)
    _root().mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(_root()).free
    if size > free:
        raise _full(f"The upload has {size:,} bytes, {free:,} are free.")


def _too_large(limit_bytes: int) -> TooLarge:
    return TooLarge(
        "upload_too_large", "The file is too large.", f"At most {limit_bytes:,} bytes are accepted."
    )


def _full(detail: str) -> StorageFull:
    return StorageFull(
        "storage_full",
        "The artifact storage is full.",
        f"{detail} Nothing of the upload was kept. An operator has to make room.",
    )


@contextmanager
def _incoming() -> Iterator[Path]:
    """A new file in `incoming`, gone afterwards unless it was published."""
    folder = _root() / "incoming"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=folder)
        os.close(handle)
        temporary = Path(name)
        try:
            yield temporary
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        if error.errno in _FULL:
            raise _full("The disk has no space left.") from error
        raise


def _write(temporary: Path, chunks: Iterable[bytes], *, limit_bytes: int, expected_bytes: int | None) -> Blob:
    digest, size = hashlib.sha256(), 0
    with temporary.open("wb") as file:
        for chunk in chunks:
            size += len(chunk)
            if expected_bytes is not None and size > expected_bytes:
                raise InvalidInput(
                    "long_body",
                    "The upload is longer than announced.",
                    f"{expected_bytes:,} bytes were announced, and more arrived. Send the file again.",
                )
            if size > limit_bytes:
                raise _too_large(limit_bytes)
            digest.update(chunk)
            file.write(chunk)
        file.flush()
        os.fsync(file.fileno())
    return Blob(sha256=digest.hexdigest(), size_bytes=size)


def _publish(temporary: Path, blob: Blob) -> None:
    """The rename also replaces an object that is there already: that makes it young for `sweep`, and mends it
    if its bytes were damaged. Whoever has the old one open keeps reading it."""
    final = _root() / _name(blob.sha256)
    final.parent.mkdir(parents=True, exist_ok=True)
    temporary.chmod(0o444)
    with _lock(exclusive=False):
        temporary.replace(final)
    _sync_folder(final.parent)


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def _lock(*, exclusive: bool) -> Iterator[None]:
    """Between a removal's look at an object's age and its end nobody publishes the same bytes."""
    _root().mkdir(parents=True, exist_ok=True)
    with (_root() / ".lock").open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH)
        yield


def _files(folder: Path) -> Iterator[Path]:
    return (path for path in folder.rglob("*") if path.is_file())


def _remove_if_older(file: Path, before: float) -> int | None:
    """Returns the size of what was removed."""
    try:
        status = file.stat()
        if status.st_mtime >= before:
            return None
        file.unlink()
    except FileNotFoundError:
        return None
    return status.st_size


def _verify(file: Path, sha256: str) -> None:
    with file.open("rb") as source:
        found = hashlib.file_digest(source, "sha256").hexdigest()
    if found != sha256:
        raise Integrity(
            *_DAMAGED, f"The bytes stored as {sha256} have the digest {found}.", extra={"sha256": sha256}
        )
