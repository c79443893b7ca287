"""Why a job waits, in words: what its worker must have and none has, who is drained, whose turn comes before.

Workers and queues are shared by all teams: how long a line is concerns everybody, what is in it only its team.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from django.conf import settings

from controlplane.core import formats
from optimizer import fleet, line
from optimizer.domain.jobs import JobState
from optimizer.models import Job, Worker
from optimizer.queues import Needs

HERE = ("idle", "busy", "draining", "drained")


@dataclass(frozen=True, kw_only=True)
class Waiting:
    """Why a job has not started, and what would help."""

    title: str
    detail: str


def why(job: Job, *, now: datetime) -> Waiting | None:
    """None unless the job is queued. Five queries at most."""
    if job.state != JobState.QUEUED:
        return None
    if job.run_after > now + timedelta(seconds=1):
        soon = formats.duration((job.run_after - now).total_seconds())
        return Waiting(
            title=f"The next attempt starts in {soon}.", detail="The last one ended early; see the log."
        )
    workers = list(Worker.objects.all())
    able = [row for row in workers if job.queue in row.queues and fleet.takes_jobs(row, now=now)]
    if not able:
        return _nobody_takes(job, workers, now=now)
    before = line.place(job)
    place = "It is the next one." if not before else f"{_counted(before, 'job')} of this queue before it."
    most = settings.ENVIRONMENT.max_running_jobs
    if most and job.published_at is None and line.under_way().by_team.get(job.team_id, 0) >= most:
        title = f"Your team runs {_counted(most, 'job')}, as many as a team may at once."
        return Waiting(title=title, detail=f"It can start when one of them ends. {place}")
    if all(row.current_job_id for row in able):
        return Waiting(title=f"{_all_busy(len(able), queue=job.queue)} busy.", detail=place)
    return Waiting(title="A worker is free and takes it in a moment.", detail=place)


def _nobody_takes(job: Job, workers: Sequence[Worker], *, now: datetime) -> Waiting:
    states = {row.pk: fleet.worker_state(row, now=now) for row in workers}
    here = [row for row in workers if states[row.pk] in HERE]
    listeners = [row for row in workers if job.queue in row.queues]
    if drained := [row for row in listeners if row in here]:
        return Waiting(
            title=_all_drained(len(drained)), detail="An admin can resume one on the workers' page."
        )
    todo = f"Start one that listens to {job.queue}."
    if listeners:
        last = max(listeners, key=lambda worker: worker.heartbeat_at)
        heard = formats.relative(last.heartbeat_at, now=now)
        todo = f"{last.name} was last heard {heard}. {todo}"
    needs = Needs.read(job.queue)
    if needs is None or needs == Needs():
        return Waiting(title=f"No worker for the queue “{job.queue}” is online.", detail=todo)
    offered = {name for row in here for name in row.queues}
    missing = [part for part in needs.parts() if part.queue not in offered]
    words = [word for part in missing or needs.parts() for word in part.in_words()]
    if not missing:
        return Waiting(title=f"No worker with {_listed(words)} at once is online.", detail=todo)
    helps = []
    if any(part.gpu for part in missing):
        helps.append("Start a worker on a machine that has one.")
    if any(part.toolchains for part in missing):
        helps.append("`make toolchains` installs it beside a worker, which offers it after its next start.")
    return Waiting(title=f"No worker with {_listed(words)} is online.", detail=" ".join(helps))


def _listed(words: Sequence[str]) -> str:
    *others, last = words
    return f"{', '.join(others)} and {last}" if others else last


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _all_busy(workers: int, *, queue: str) -> str:
    return f"The worker of “{queue}” is" if workers == 1 else f"All {workers} workers of “{queue}” are"


def _all_drained(workers: int) -> str:
    match workers:
        case 1:
            return "One worker could, and it is draining."
        case 2:
            return "Two workers could, both are draining."
    return f"{workers} workers could, all of them are draining."
