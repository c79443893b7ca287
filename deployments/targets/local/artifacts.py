"""Says whether a model file still has the bytes it is named by, before anything is started from it.

A digest is computed once per state of the file: a changed size, time or inode makes it computed again. That
catches edits, truncation and replacement at the price of one `stat` per start. Refused: hashing gigabytes each
time a replica is replaced.
"""

import asyncio
import hashlib
import os
from pathlib import Path

type _State = tuple[int, int, int, int, int]


class Artifacts:
    def __init__(self) -> None:
        self._digests: dict[str, tuple[_State, str]] = {}
        self._hashing = asyncio.Lock()

    async def fault(self, path: Path, *, sha256: str) -> str | None:
        """Why the file must not be served, in words; None when it is whole. Reads it off the event loop."""
        async with self._hashing:
            try:
                found = await self._digest(path)
            except OSError as error:
                return f"integrity: the artifact cannot be read ({error.strerror})"
        if found == sha256:
            return None
        return f"integrity: the artifact's SHA-256 is {found}, but {sha256} was expected"

    async def _digest(self, path: Path) -> str:
        state = _state(path)
        known = self._digests.get(str(path))
        if known is None or known[0] != state:
            known = state, await asyncio.to_thread(_sha256, path)
            self._digests[str(path)] = known
        return known[1]


def _state(path: Path) -> _State:
    found = path.stat()
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        if hasattr(os, "posix_fadvise"):
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_SEQUENTIAL)
        return hashlib.file_digest(file, "sha256").hexdigest()
