"""Every change of a job's state: guarded updates, each with its event row in the same transaction.

Only the database's clock is compared. A claim takes a lease and a fence that only grows; whoever holds an
older fence can write nothing, whatever it believes. The protocol is FAULTS.md's, rules 1 to 8.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from random import random
from typing import Any

import structlog
from django.conf import settings
from django.db import transaction
from django.db.models import Exists, F, Q, QuerySet
from django.db.models.functions import Now

from controlplane.core import bus, transitions
from optimizer.domain.jobs import EDGES, FailureReason, JobState, backoff_s, may_retry
from optimizer.models import Job, JobEvent, Worker

log = structlog.get_logger(__name__)

HELD = (JobState.RUNNING, JobState.CANCELLING)


@dataclass(frozen=True, kw_only=True)
class Claim:
    """The right to work on a job: valid while the row still has this fence and its lease is renewed."""

    job_id: int
    team_id: int
    fence: int
    attempt: int
    max_attempts: int
    owner: str
    started_at: datetime
    """By the database's clock."""


class LeaseLost(Exception):
    """Somebody else has the job, or it is over. Stop, and write nothing more."""


def lease() -> timedelta:
    return timedelta(seconds=settings.ENVIRONMENT.lease_s)


def record(
    job_id: int,
    *,
    attempt: int,
    message: str,
    kind: str = JobEvent.Kind.STATE,
    level: str = "info",
    data: Mapping[str, Any] | None = None,
) -> None:
    JobEvent.objects.create(
        job_id=job_id,
        attempt=attempt,
        kind=kind,
        level=level,
        message=message,
        data=dict(data or {}),
        at=Now(),
    )
    transaction.on_commit(partial(log.info, message, job=job_id, attempt=attempt))


def announce(job_id: int, *, team_id: int) -> None:
    bus.publish(f"job:{job_id}", "jobs", team_id=team_id)


def _announce_with_worker(job_id: int, *, team_id: int) -> None:
    """A job began or left its worker: pages of both look."""
    bus.publish_each([(f"job:{job_id}", team_id), ("jobs", team_id), ("workers", None)])


def _leave(owner: str, job_id: int, *, team_id: int) -> None:
    """The worker is free, unless it has another job by now; the dispatcher may have room for one."""
    Worker.objects.filter(name=owner, current_job=job_id).update(current_job=None)
    _announce_with_worker(job_id, team_id=team_id)
    bus.wake_dispatcher(bus.Due.JOBS, bus.Due.SEARCHES)


def _drained(owner: str) -> QuerySet[Worker]:
    return Worker.objects.filter(name=owner, drain_since__isnull=False)


def claim(job_id: int, *, owner: str, message_id: str = "") -> Claim | None:
    """Takes a due queued job, or one whose worker fell silent. None: there is nothing to do, which only the log
    tells: repeated messages are counted there. A drained worker takes none: the job goes back to the line.

    `message_id` names the broker's message that led here. Five statements in one transaction.
    """
    due = Q(state=JobState.QUEUED, run_after__lte=Now()) | Q(state=JobState.RUNNING, lease_until__lt=Now())
    rows = Job.objects.filter(
        due, ~Exists(_drained(owner)), pk=job_id, attempt__lt=F("max_attempts"), cancel_requested=False
    )
    with transaction.atomic():
        moved = transitions.move(
            rows,
            edges=EDGES,
            to=JobState.RUNNING,
            changes={
                "owner": owner,
                "attempt": F("attempt") + 1,
                "fence": F("fence") + 1,
                "lease_until": Now() + lease(),
                "heartbeat_at": Now(),
                "started_at": Now(),
                "step": "",
                "step_index": 0,
                "progress_done": 0,
                "progress_total": 0,
            },
        )
        if not moved:
            log.info("claim_refused", job=job_id, owner=owner, message_id=message_id)
            if _drained(owner).exists():
                Job.objects.filter(pk=job_id, state=JobState.QUEUED).update(published_at=None)
            return None
        job = Job.objects.get(pk=job_id)
        assert job.started_at is not None
        record(
            job_id,
            attempt=job.attempt,
            message=f"Attempt {job.attempt} started on {owner}.",
            data={"message_id": message_id},
        )
        Worker.objects.filter(name=owner).update(current_job=job_id)
        _announce_with_worker(job_id, team_id=job.team_id)
        return Claim(
            job_id=job_id,
            team_id=job.team_id,
            fence=job.fence,
            attempt=job.attempt,
            max_attempts=job.max_attempts,
            owner=owner,
            started_at=job.started_at,
        )


def held(claim: Claim) -> QuerySet[Job]:
    """The claim's row if it is still ours."""
    return Job.objects.filter(pk=claim.job_id, fence=claim.fence, state__in=HELD)


def heartbeat(claim: Claim, *, events: Sequence[JobEvent] = (), **progress: Any) -> bool:
    """Extends the lease, writes progress and adds log lines, all or nothing. Raises LeaseLost.

    Returns whether a cancel was asked for. Repeating it after a lost reply adds no line twice: events that
    were sent before have their ids.
    """
    with transaction.atomic():
        if not held(claim).update(lease_until=Now() + lease(), heartbeat_at=Now(), **progress):
            raise LeaseLost
        if events:
            repeated = any(event.pk is not None for event in events)
            JobEvent.objects.bulk_create(events, ignore_conflicts=repeated)
        if events or progress:
            announce(claim.job_id, team_id=claim.team_id)
    return bool(Job.objects.filter(pk=claim.job_id, cancel_requested=True).exists())


def succeed(claim: Claim, *, message: str) -> None:
    """Call inside the transaction that makes the effect visible. Raises LeaseLost, which undoes it."""
    done = transitions.move(
        held(claim),
        edges=EDGES,
        to=JobState.SUCCEEDED,
        changes={"finished_at": Now(), "lease_until": None, "message": message, "reason": ""},
        record=lambda: record(claim.job_id, attempt=claim.attempt, message=message),
    )
    if not done:
        raise LeaseLost
    _leave(claim.owner, claim.job_id, team_id=claim.team_id)


def fail(claim: Claim, *, reason: FailureReason, message: str) -> str:
    """Sends the job back to the queue if another try may help, else ends it. Returns the state reached.

    A cancelling job becomes cancelled, whatever its child ended with.
    """
    with transaction.atomic():
        job = held(claim).select_for_update(no_key=True).first()
        if job is None:
            raise LeaseLost
        if job.state == JobState.CANCELLING:
            return _end(job, JobState.CANCELLED, reason="", message="Cancelled.")
        times = 1 + ended_for(claim.job_id, reason)
        if may_retry(reason, times=times, attempt=claim.attempt, max_attempts=claim.max_attempts):
            return _requeue(job, reason=reason, message=message)
        return _end(job, JobState.FAILED, reason=reason, message=message)


def ended_for(job_id: int, reason: FailureReason) -> int:
    """How many of the job's attempts have ended for this reason. One query."""
    return JobEvent.objects.filter(job_id=job_id, kind=JobEvent.Kind.STATE, data__reason=reason).count()


def succeeded(claim: Claim) -> bool:
    """Whether this very attempt has finished the job already: its commit landed and the reply was lost."""
    return Job.objects.filter(pk=claim.job_id, fence=claim.fence, state=JobState.SUCCEEDED).exists()


def release_lost(job_id: int, *, owner: str, message_id: str) -> bool:
    """Gives back a job whose process died under a worker that lives to tell. Fenced by owner and message:
    the same worker may have begun the next attempt before it heard of the end of this one."""
    with transaction.atomic():
        job = (
            Job.objects.select_for_update(no_key=True).filter(pk=job_id, owner=owner, state__in=HELD).first()
        )
        if job is None or not job.events.filter(attempt=job.attempt, data__message_id=message_id).exists():
            return False
        _take_back(
            job, message="The worker lost the process that ran this attempt (killed, or out of memory)."
        )
    return True


def hand_back(claim: Claim) -> str:
    """Gives back a job because its worker stops. No fault of the job: it costs none of its attempts and no delay.

    Returns the state reached. Raises LeaseLost.
    """
    with transaction.atomic():
        job = held(claim).select_for_update(no_key=True).first()
        if job is None:
            raise LeaseLost
        if job.state == JobState.CANCELLING:
            return _end(job, JobState.CANCELLED, reason="", message="Cancelled.")
        return _back_to_queue(
            job,
            message="The worker was stopped and gave the job back.",
            reason="worker_stopped",
            changes={"run_after": Now(), "max_attempts": F("max_attempts") + 1},
        )


def reap_expired(*, limit: int = 100) -> int:
    """Takes back what silent workers hold. Safe in many copies. Returns how many rows moved."""
    reaped = 0
    with transaction.atomic():
        expired = Job.objects.select_for_update(skip_locked=True, no_key=True).filter(
            state__in=HELD, lease_until__lt=Now()
        )
        for job in expired.order_by("lease_until")[:limit]:
            _take_back(job, message=f"{job.owner} fell silent and its lease ran out.")
            reaped += 1
    return reaped


def cancel(job: Job) -> str | None:
    """Queued jobs end at once, running ones within a heartbeat. None: there was nothing left to cancel."""
    rows = Job.objects.filter(pk=job.pk)
    flagged = {"cancel_requested": True}
    with transaction.atomic():
        if transitions.move(
            rows,
            edges=EDGES,
            to=JobState.CANCELLED,
            only_from=[JobState.QUEUED],
            changes=flagged | {"finished_at": Now(), "message": "Cancelled before it started."},
            record=lambda: record(job.pk, attempt=job.attempt, message="Cancelled before it started."),
        ):
            reached: str | None = JobState.CANCELLED
        elif transitions.move(
            rows,
            edges=EDGES,
            to=JobState.CANCELLING,
            changes=flagged,
            record=lambda: record(job.pk, attempt=job.attempt, message="Cancel requested."),
        ):
            reached = JobState.CANCELLING
        else:
            return None
        announce(job.pk, team_id=job.team_id)
    return reached


def _take_back(job: Job, *, message: str) -> str:
    if job.state == JobState.CANCELLING:
        return _end(job, JobState.CANCELLED, reason="", message="Cancelled; its worker was gone.")
    if job.attempt < job.max_attempts:
        return _requeue(job, reason=None, message=message)
    tries = f"All {job.max_attempts} attempts were used up. The last: {message}"
    return _end(job, JobState.FAILED, reason=FailureReason.ATTEMPTS_EXHAUSTED, message=tries)


def _requeue(job: Job, *, reason: FailureReason | None, message: str) -> str:
    delay_s = backoff_s(job.attempt, jitter=random())  # noqa: S311  spreads load, guards nothing
    soon = f"Trying again in {delay_s:.0f} s." if delay_s else "Trying again now."
    return _back_to_queue(
        job,
        message=f"{message} {soon}",
        reason=reason or "worker_lost",
        changes={"run_after": Now() + timedelta(seconds=delay_s)},
    )


def _back_to_queue(job: Job, *, message: str, reason: str, changes: dict[str, Any]) -> str:
    free = {"owner": "", "lease_until": None, "published_at": None, "fence": F("fence") + 1}
    return _change(
        job,
        to=JobState.QUEUED,
        message=message,
        level="warning",
        data={"reason": reason},
        changes=free | changes,
    )


def _end(job: Job, state: JobState, *, reason: str, message: str) -> str:
    return _change(
        job,
        to=state,
        message=message,
        level="error" if state == JobState.FAILED else "info",
        data={"reason": reason},
        changes={"finished_at": Now(), "lease_until": None, "reason": reason, "message": message},
    )


def _change(
    job: Job, *, to: JobState, message: str, level: str, data: dict[str, Any], changes: dict[str, Any]
) -> str:
    moved = transitions.move(
        Job.objects.filter(pk=job.pk, fence=job.fence),
        edges=EDGES,
        to=to,
        changes=changes,
        record=lambda: record(job.pk, attempt=job.attempt, message=message, level=level, data=data),
    )
    if not moved:
        raise LeaseLost
    _leave(job.owner, job.pk, team_id=job.team_id)
    return to
