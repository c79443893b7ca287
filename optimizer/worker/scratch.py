"""A folder for each attempt, and the removal of those that killed attempts left on this machine.

A folder's name carries the job and the fence, so that whose it is can be asked of the database: it is garbage
once the job is over or has another fence. Refused: removal by the next attempt alone, which may run elsewhere
or never.
"""

import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from django.conf import settings

from optimizer.models import Job
from optimizer.transitions import HELD, Claim

_NAME = re.compile(r"job-(\d+)-(\d+)-.+")


def _root() -> Path:
    return Path(settings.ENVIRONMENT.home) / "scratch"


@dataclass(frozen=True, kw_only=True)
class Scratch:
    """`work` is the children's to write; `inputs` is ours, and they only read what lies there."""

    inputs: Path
    work: Path

    def pin(self, artifact: Path) -> Path:
        """The artifact under a name that keeps meaning these bytes: the storage puts a new file in the place of
        an equal one whenever the same bytes arrive again, and a sandbox lets in the file, not the name.

        A link, or where the storage is on another disk, a copy.
        """
        pinned = self.inputs / f"{artifact.parent.name}{artifact.name}"
        if not pinned.exists():
            try:
                os.link(artifact, pinned)
            except OSError:
                shutil.copyfile(artifact, pinned)
        return pinned


@contextmanager
def folder(claim: Claim) -> Iterator[Scratch]:
    """Empty, the attempt's own, and gone after the block."""
    _root().mkdir(parents=True, exist_ok=True)
    made = Path(tempfile.mkdtemp(prefix=f"job-{claim.job_id}-{claim.fence}-", dir=_root()))
    try:
        own = Scratch(inputs=made / "inputs", work=made / "work")
        own.inputs.mkdir()
        own.work.mkdir()
        yield own
    finally:
        shutil.rmtree(made, ignore_errors=True)


def collect() -> int:
    """Removes what belongs to no attempt that may still be running. Returns how many. One query, if any is there."""
    found: dict[Path, tuple[int, int]] = {}
    for path in _root().glob("job-*"):
        if (name := _NAME.fullmatch(path.name)) is not None:
            found[path] = (int(name[1]), int(name[2]))
    if not found:
        return 0
    jobs = Job.objects.filter(pk__in={job for job, _ in found.values()}, state__in=HELD)
    held = set(jobs.values_list("pk", "fence"))
    garbage = [path for path, attempt in found.items() if attempt not in held]
    for path in garbage:
        shutil.rmtree(path, ignore_errors=True)
    return len(garbage)
