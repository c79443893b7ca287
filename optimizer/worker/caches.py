"""What a technique leaves for the next job on the same hardware, such as how long TensorRT's kernels take on a GPU.

It saves time and decides nothing, so whatever is wrong with it, it is dropped. A child gets a copy to write over, and
the kept file is replaced by one move after the child has ended well: two at once cannot spoil it, and what the last one
knew stays. Refused: a folder that children share, where a hostile model's could fill the disk; and merging what two
knew, which only the vendor's library can.
"""

import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from hashlib import sha256
from pathlib import Path

import structlog
from django.conf import settings

from optimizer.domain.jobs import FailureReason
from optimizer.techniques.port import Technique
from optimizer.worker import gpus, hardware
from optimizer.worker.hold import StepFailed

log = structlog.get_logger(__name__)

LIMIT_BYTES = 64 * 1024**2
FILES = 8
_DIGEST_BYTES = 32


@contextmanager
def lent(used: Technique, *, toolchain: str | None, folder: Path) -> Iterator[Path | None]:
    """Where the child of the block finds what was kept, if it was, and leaves what shall be. None for a technique that
    caches nothing, and without a GPU. What was there when a child crashed may be why, and is dropped."""
    gpu = gpus.served()
    if not used.caches or gpu is None:
        yield None
        return
    versions = hardware.toolchains().get(toolchain or "", {})
    kept, copy = _place(used.key, *map(" ".join, sorted(versions.items())), gpu.kind), folder / "cache"
    _lend(kept, to=copy)
    try:
        yield copy
    except StepFailed as failure:
        if failure.reason == FailureReason.CRASHED:
            with suppress(OSError):
                kept.unlink()
        raise
    try:
        _keep(copy, at=kept)
    except OSError as error:
        log.warning("cache_not_kept", file=kept.name, cause=str(error))


def _place(*parts: str) -> Path:
    return Path(settings.ENVIRONMENT.home) / "caches" / re.sub(r"[^A-Za-z0-9.]+", "-", "_".join(parts))


def _lend(kept: Path, *, to: Path) -> None:
    """Not what a disk or a killed process damaged: the vendor's reader never sees that."""
    with suppress(OSError):
        content = kept.read_bytes()
        digest, made = content[:_DIGEST_BYTES], content[_DIGEST_BYTES:]
        if sha256(made).digest() == digest:
            to.write_bytes(made)


def _keep(copy: Path, *, at: Path) -> None:
    """One that grew too large is dropped, so that the next build begins anew; of many, the latest stay."""
    if copy.is_symlink() or not copy.is_file():
        return
    if copy.stat().st_size > LIMIT_BYTES:
        at.unlink(missing_ok=True)
        return
    made = copy.read_bytes()
    at.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=at.parent)
    with os.fdopen(handle, "wb") as file:
        file.write(sha256(made).digest() + made)
    Path(name).replace(at)
    latest = sorted(at.parent.iterdir(), key=lambda path: path.stat().st_mtime, reverse=True)
    for path in latest[FILES:]:
        path.unlink(missing_ok=True)
