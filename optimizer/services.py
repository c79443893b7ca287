"""The verbs on jobs. The job row is the outbox: nothing here talks to the broker."""

import hashlib
import json

from django.conf import settings
from django.db import IntegrityError, transaction
from django.db.models.functions import Now

from controlplane.accounts import audit
from controlplane.accounts.access import Actor
from controlplane.accounts.models import Role
from controlplane.core import bus
from controlplane.core.errors import Conflict, TooMany, Unprocessable
from controlplane.registry import artifacts
from controlplane.registry.models import Artifact, Dataset, Variant
from optimizer import transitions
from optimizer.domain.jobs import TERMINAL, JobState
from optimizer.domain.recipe import Recipe
from optimizer.models import Job
from optimizer.techniques import check_recipe

CANCEL_TRIES = 3
"""A job may change hands between a look and the write; it cannot do so for long."""


def optimize(
    actor: Actor,
    parent: Variant,
    *,
    recipe: Recipe,
    evaluation_set: Dataset | None = None,
    calibration_set: Dataset | None = None,
    idempotency_key: str | None = None,
    retry_of: Job | None = None,
) -> tuple[Job, bool]:
    """Queues a job. Returns it and whether it is new: the same key gives the first job again, as does a retry
    without a key while an earlier one is not over.

    Raises Unprocessable with each technique's reasons, Conflict for damaged or quarantined input and for a
    key that came with another request, TooMany where as many jobs wait as the installation lets a team have.
    """
    actor.require(Role.ENGINEER)
    recipe = check_recipe(
        recipe,
        signature=parent.signature,
        summary=parent.version.summary | {"precision": parent.precision},
        has_calibration=calibration_set is not None or evaluation_set is not None,
    )
    digest = _request_digest(parent, recipe, evaluation_set, calibration_set)
    known = _known(actor, idempotency_key, digest, retry_of=retry_of)
    if known is not None:
        return known, False
    _refuse_unusable(parent)
    _refuse_a_full_queue(actor)
    try:
        with transaction.atomic():
            if retry_of is not None and idempotency_key is None:
                active = _active_retry(retry_of)
                if active is not None:
                    return active, False
            job = Job.objects.create(
                team=actor.team,
                version=parent.version,
                parent=parent,
                recipe=recipe.to_json(),
                evaluation_set=evaluation_set,
                calibration_set=calibration_set,
                idempotency_key=idempotency_key,
                request_digest=digest,
                retry_of=retry_of,
                run_after=Now(),
                created_by=actor.user,
            )
            transitions.record(job.pk, attempt=0, message=f"Queued: {recipe.name}.")
            _audit(actor, "queued", job)
            transitions.announce(job.pk, team_id=actor.team.pk)
            bus.wake_dispatcher()
    except IntegrityError as error:
        known = _known(actor, idempotency_key, digest, retry_of=retry_of)
        if known is None:
            raise Conflict(
                "input_gone", "The version or a data set was deleted in the meantime.", "Choose another one."
            ) from error
        return known, False
    job.refresh_from_db(fields=["run_after"])
    return job, True


def cancel_job(actor: Actor, job: Job) -> str:
    """Returns the state reached; cancelling what is already cancelling changes nothing. Conflict when over."""
    actor.require(Role.ENGINEER)
    for _ in range(CANCEL_TRIES):
        with transaction.atomic():
            reached = transitions.cancel(job)
            if reached is not None:
                _audit(actor, "cancelled", job)
                return reached
        job.refresh_from_db(fields=["state"])
        if job.state in TERMINAL:
            raise Conflict(
                "job_is_over", f"Job {job.pk} has already {job.state}.", "There is nothing to cancel."
            )
        if job.state == JobState.CANCELLING:
            break
    return job.state


def retry_job(actor: Actor, job: Job, *, idempotency_key: str | None = None) -> tuple[Job, bool]:
    """Queues the same request again, linked to this job: a button pressed twice queues one. Conflict while this one
    is not over, and when a data set of it is gone: without it the request would be another one."""
    actor.require(Role.ENGINEER)
    if job.state not in TERMINAL:
        raise Conflict("job_is_active", f"Job {job.pk} is {job.state}.", "Cancel it first, or wait.")
    recipe = Recipe.from_json(job.recipe)
    if _request_digest(job.parent, recipe, job.evaluation_set, job.calibration_set) != job.request_digest:
        raise Conflict(
            "dataset_gone",
            f"A data set that job {job.pk} used was deleted.",
            "Start a new job and choose another one.",
        )
    return optimize(
        actor,
        job.parent,
        recipe=recipe,
        evaluation_set=job.evaluation_set,
        calibration_set=job.calibration_set,
        idempotency_key=idempotency_key,
        retry_of=job,
    )


def _active_retry(job: Job) -> Job | None:
    """Locks the job, so that of two who ask at once the second sees what the first queued."""
    list(Job.objects.select_for_update(no_key=True).filter(pk=job.pk).values_list("pk"))
    return job.retries.exclude(state__in=TERMINAL).order_by("-pk").first()


def _refuse_unusable(parent: Variant) -> None:
    if parent.version.quarantined_reason:
        raise Conflict("quarantined", f"{parent.version} is quarantined.", parent.version.quarantined_reason)
    if parent.artifact.state == Artifact.State.DAMAGED:
        raise artifacts.damaged(parent)


def _known(actor: Actor, key: str | None, digest: str, *, retry_of: Job | None) -> Job | None:
    """The job that came with this key before. Conflict if it was asked for otherwise: a retry is another request
    than the one that it repeats."""
    if key is None:
        return None
    if not 1 <= len(key) <= 100 or not key.isprintable():
        raise Unprocessable(
            "invalid_idempotency_key",
            "The idempotency key cannot be used.",
            "Send 1 to 100 printable characters, such as a UUID.",
        )
    job = Job.objects.filter(team=actor.team, idempotency_key=key).first()
    asked = (digest, retry_of.pk if retry_of else None)
    if job is not None and (job.request_digest, job.retry_of_id) != asked:
        raise Conflict(
            "idempotency_key_reused",
            "This idempotency key came with another request before.",
            f"It belongs to job {job.pk}. Use a new key for a new request.",
        )
    return job


def _refuse_a_full_queue(actor: Actor) -> None:
    """Looks no further than the bound, and what a thousand requests at once pass it by does no harm. Refused: a rate
    of requests, which would be one more write of every request and says nothing about the queue."""
    most = settings.ENVIRONMENT.max_queued_jobs
    waiting = Job.objects.filter(team=actor.team, state=JobState.QUEUED).order_by().values("pk")
    if waiting[most - 1 : most].exists():
        raise TooMany(
            "queue_full",
            f"{most:,} jobs of your team are waiting.",
            "Try again when some of them have run, or cancel those that are not needed.",
            retry_after_s=60,
        )


def _request_digest(
    parent: Variant, recipe: Recipe, evaluation_set: Dataset | None, calibration_set: Dataset | None
) -> str:
    parts = [
        parent.pk,
        recipe.digest,
        *(row.pk if row else None for row in (evaluation_set, calibration_set)),
    ]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def _audit(actor: Actor, verb: str, job: Job) -> None:
    audit.record(
        actor,
        verb,
        object_type="job",
        object_id=job.pk,
        object_name=f"job {job.pk} on {job.version}",
        object_url=job.get_absolute_url(),
        details={"recipe": job.recipe},
    )
