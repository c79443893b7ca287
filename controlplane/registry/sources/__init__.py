"""Models that lie elsewhere, by reference: what may be written, what it is pinned to, and its bytes.

    reference --parse--> Reference --look--> Found (revision pinned, files chosen) --chunks--> what intake reads

Without Django, and without a file on disk: what comes is what an upload would have been, one ONNX file or an archive
of the files in an order of their own, so the same revision gives the same bytes again.
"""

import hashlib
import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType, ModuleType
from typing import Any
from urllib.parse import urlsplit

from controlplane.core.errors import TooLarge, Unprocessable
from controlplane.registry.sources import hub, mlflow
from controlplane.registry.sources.choice import chosen
from controlplane.registry.sources.values import Reference, Remote, RemoteFile, invalid
from controlplane.registry.sources.web import Web

MAX_REFERENCE = 500
SOURCES: Mapping[str, ModuleType] = MappingProxyType({module.KEY: module for module in (hub, mlflow)})
_LONG_AGO = (1980, 1, 1, 0, 0, 0)


def parse(text: str) -> Reference:
    """Raises InvalidInput that says how one is written."""
    for module in SOURCES.values():
        if text.startswith(module.PREFIX):
            found: Reference = module.parse(text)
            return found
    raise invalid(
        "It begins with neither “hf:” nor “models:/”: write “hf:organization/name” or “models:/name/version”."
    )


@dataclass(kw_only=True)
class Found:
    """What a reference leads to. `fetched` grows while `chunks` runs."""

    web: Web
    revision: str
    files: tuple[RemoteFile, ...]
    facts: Mapping[str, Any]
    fetched: list[dict[str, Any]] = field(default_factory=list)

    @property
    def filename(self) -> str:
        name = self.files[0].path.rpartition("/")[2]
        return name if len(self.files) == 1 else f"{name}.zip"

    @property
    def size_bytes(self) -> int | None:
        """None where the source does not say."""
        sizes = [file.size_bytes for file in self.files]
        return None if None in sizes else sum(size for size in sizes if size is not None)

    def provenance(self) -> dict[str, Any]:
        """For the variant of the version's own bytes, when all has come."""
        at = urlsplit(self.web.remote.endpoint).netloc.rpartition("@")[2]
        return {"from": self.web.remote.name, "at": at, **self.facts, "files": self.fetched}

    def chunks(self) -> Iterator[bytes]:
        """Raises as `Web` does, and Unprocessable where a digest is not the announced one."""
        if len(self.files) == 1:
            yield from self._content(self.files[0])
            return
        sink = _Sink()
        with zipfile.ZipFile(sink, "w", zipfile.ZIP_STORED) as archive:
            for file in self.files:
                member = zipfile.ZipInfo(file.path.rpartition("/")[2], _LONG_AGO)
                with archive.open(member, "w", force_zip64=True) as out:
                    for chunk in self._content(file):
                        out.write(chunk)
                        yield sink.take()
        yield sink.take()

    def _content(self, file: RemoteFile) -> Iterator[bytes]:
        digest, count = hashlib.sha256(), 0
        for chunk in self.web.content(file):
            digest.update(chunk)
            count += len(chunk)
            yield chunk
        sha256 = digest.hexdigest()
        if file.sha256 not in {None, sha256}:
            raise Unprocessable(
                "digest_mismatch",
                "The bytes that arrived are not the ones announced.",
                f"“{file.path[:200]}” should have the digest {file.sha256} and has {sha256}.",
            )
        self.fetched.append({"path": file.path, "size_bytes": count, "sha256": sha256})


class _Sink:
    """What `zipfile` writes to where nothing can be sought."""

    def __init__(self) -> None:
        self._held = bytearray()

    def write(self, data: bytes, /) -> int:
        self._held += data
        return len(data)

    def flush(self) -> None:
        """Nothing is kept back."""

    def close(self) -> None:
        """Nothing is open."""

    def take(self) -> bytes:
        taken, self._held = bytes(self._held), bytearray()
        return taken


def look(
    remote: Remote,
    reference: Reference,
    *,
    pinned: str,
    limit_bytes: int,
    wall_s: float,
    asking: Callable[[], object],
) -> Found:
    """Asks the source. `pinned` is what an earlier look found the revision to be, or "". `wall_s` is for this look
    and all of `chunks`; `asking` is called before each request. Raises as `Web` does, Unprocessable where nothing can
    be taken, TooLarge."""
    web = Web(remote, wall_s=wall_s, asking=asking)
    listing = SOURCES[reference.source].listing(
        web, replace(reference, revision=pinned or reference.revision)
    )
    found = Found(
        web=web,
        revision=listing.revision,
        files=chosen(listing.files, path=reference.path),
        facts=listing.facts,
    )
    if found.size_bytes is not None and found.size_bytes > limit_bytes:
        raise TooLarge(
            "upload_too_large",
            "The files are too large.",
            f"Together they have {found.size_bytes:,} bytes; the limit is {limit_bytes:,}.",
        )
    return found
