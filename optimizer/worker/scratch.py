"""A folder for each attempt, and one for what a job keeps between attempts. Both are removed when their time is over.

A folder's name carries the job and the fence, so that whose it is can be asked of the database: an attempt's is
garbage once the job is over or has another fence, a job's once the job is over. Refused: removal by the next attempt
alone, which may run elsewhere or never; and moving what is kept into each attempt's folder, where a killed attempt
would hide it.
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

from optimizer.domain.jobs import TERMINAL
from optimizer.models import Job
from optimizer.transitions import HELD, Claim

_NAME = re.compile(r"job-(\d+)-(\d+)-.+")
_KEPT = re.compile(r"kept-(\d+)")


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


def kept(job_id: int) -> Path:
    """The children's to write, found again by a later attempt on this machine. No two attempts write it at once: a
    child ends before its job can be somebody else's."""
    folder = _root() / f"kept-{job_id}"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def collect() -> int:
    """Removes what belongs to no attempt that may still be running, and what is kept for no job that may still run.
    Returns how many. A query for each kind that is there."""
    garbage = [*_left_by_attempts(), *_kept_in_vain()]
    for path in garbage:
        shutil.rmtree(path, ignore_errors=True)
    return len(garbage)


def _left_by_attempts() -> list[Path]:
    found: dict[Path, tuple[int, int]] = {}
    for path in _root().glob("job-*"):
        if (name := _NAME.fullmatch(path.name)) is not None:
            found[path] = (int(name[1]), int(name[2]))
    if not found:
        return []
    jobs = Job.objects.filter(pk__in={job for job, _ in found.values()}, state__in=HELD)
    held = set(jobs.values_list("pk", "fence"))
    return [path for path, attempt in found.items() if attempt not in held]


def _kept_in_vain() -> list[Path]:
    found = {path: int(name[1]) for path in _root().glob("kept-*") if (name := _KEPT.fullmatch(path.name))}
    if not found:
        return []
    jobs = Job.objects.filter(pk__in=found.values()).exclude(state__in=TERMINAL)
    going_on = set(jobs.values_list("pk", flat=True))
    return [path for path, job in found.items() if job not in going_on]
