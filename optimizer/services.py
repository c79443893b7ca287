"""The verbs on jobs and workers. The job row is the outbox: nothing here talks to the broker."""

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
from controlplane.registry import artifacts, trust
from controlplane.registry.models import Artifact, Dataset, Variant
from optimizer import fleet, measuring, transitions
from optimizer.domain.jobs import TERMINAL, JobState
from optimizer.domain.recipe import Recipe
from optimizer.models import Job, Search, Worker
from optimizer.queues import Needs
from optimizer.techniques import check_recipe, needs_of

CANCEL_TRIES = 3
"""A job may change hands between a look and the write; it cannot do so for long."""


def optimize(
    actor: Actor,
    parent: Variant,
    *,
    recipe: Recipe,
    evaluation_set: Dataset | None = None,
    calibration_set: Dataset | None = None,
    priority: int = Job.Priority.NORMAL,
    gpu: str = "",
    idempotency_key: str | None = None,
    retry_of: Job | None = None,
    search: Search | None = None,
    search_index: int | None = None,
) -> tuple[Job, bool]:
    """Queues a job. Returns it and whether it is new: the same key gives the first job again, as does a retry
    without a key while an earlier one is not over. `gpu` asks for `any` GPU or one of a compute capability, also
    where the recipe would run without: what is measured there holds there.

    Raises Unprocessable with each technique's reasons or for a `gpu` that names none or not the engine's, Conflict for
    damaged or quarantined input and for a key that came with another request, TooMany where as many jobs wait as the
    installation lets a team have.
    """
    actor.require(Role.ENGINEER)
    recipe = check_recipe(
        recipe,
        signature=parent.signature,
        summary=parent.version.summary | {"precision": parent.precision, "format": parent.format},
        has_calibration=calibration_set is not None or evaluation_set is not None,
    )
    needs = needs_of(recipe, parent_format=parent.format)
    chosen = needs_of(recipe, parent_format=parent.format, gpu=gpu)
    digest = _request_digest(
        parent, recipe, evaluation_set, calibration_set, priority=priority, gpu="" if chosen == needs else gpu
    )
    wanted = Job(
        parent=parent,
        recipe=recipe.to_json(),
        queue=chosen.queue,
        priority=priority,
        evaluation_set=evaluation_set,
        calibration_set=calibration_set,
        idempotency_key=idempotency_key,
        request_digest=digest,
        retry_of=retry_of,
        search=search,
        search_index=search_index,
    )
    return _queue(actor, wanted)


def measure_again(
    actor: Actor, variant: Variant, *, idempotency_key: str | None = None, retry_of: Job | None = None
) -> tuple[Job, bool]:
    """Queues a job that measures the variant against its parent as its first report did: same set, same items left
    out, same seed. Its report stands beside the others. Without a key, one that is not over is the answer.

    Raises Unprocessable for what cannot be measured here, Conflict for what is gone since (the data set, the bytes),
    and as `optimize` does.
    """
    actor.require(Role.ENGINEER)
    needs = measuring.needs(variant, capabilities=[capability for capability, _ in fleet.gpu_classes()])
    assert variant.parent is not None
    wanted = Job(
        parent=variant.parent,
        recipe=[],
        measures=variant,
        queue=needs.queue,
        evaluation_set=measuring.evaluation_set(variant),
        idempotency_key=idempotency_key,
        request_digest=_digest("measure", variant.pk),
        retry_of=retry_of,
    )
    return _queue(actor, wanted)


def _queue(actor: Actor, wanted: Job) -> tuple[Job, bool]:
    """The job, and whether it is new."""
    known = _known(actor, wanted)
    if known is not None:
        return known, False
    for used in filter(None, (wanted.parent, wanted.measures)):
        refuse_unusable(used)
    _refuse_a_full_queue(actor)
    wanted.team, wanted.version, wanted.created_by = actor.team, wanted.parent.version, actor.user
    wanted.run_after = Now()
    try:
        with transaction.atomic():
            active = _active(wanted) if wanted.idempotency_key is None else None
            if active is not None:
                return active, False
            wanted.save(force_insert=True)
            transitions.record(wanted.pk, attempt=0, message=f"Queued: {wanted.does}.")
            _audit(actor, "queued", wanted)
            transitions.announce(wanted.pk, team_id=actor.team.pk)
            bus.wake_dispatcher(bus.Due.JOBS)
    except IntegrityError as error:
        known = _known(actor, wanted)
        if known is None:
            raise Conflict(
                "input_gone", "The version or a data set was deleted in the meantime.", "Choose another one."
            ) from error
        return known, False
    wanted.refresh_from_db(fields=["run_after"])
    return wanted, True


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
    if job.measures is not None:
        return measure_again(actor, job.measures, idempotency_key=idempotency_key, retry_of=job)
    recipe = Recipe.from_json(job.recipe)
    gpu = gpu_chosen(job, recipe)
    sets = job.evaluation_set, job.calibration_set
    if _request_digest(job.parent, recipe, *sets, priority=job.priority, gpu=gpu) != job.request_digest:
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
        priority=job.priority,
        gpu=gpu,
        idempotency_key=idempotency_key,
        retry_of=job,
    )


def gpu_chosen(job: Job, recipe: Recipe) -> str:
    """The GPU that was asked for when the job was queued; empty where its recipe alone decided."""
    ran_on = Needs.read(job.queue)
    gpu = ran_on.gpu if ran_on is not None else ""
    return "" if gpu == needs_of(recipe, parent_format=job.parent.format).gpu else gpu


def drain_worker(actor: Actor, worker: Worker) -> bool:
    """From now on it takes no new job; the one it has is finished. Holds until somebody resumes it. Returns whether
    anything changed. Raises Conflict for one that runs no jobs: there is nothing to spare it."""
    actor.require(Role.ADMIN)
    if not fleet.drainable(worker):
        raise Conflict(
            "not_drainable",
            f"{worker.name} runs no jobs.",
            "What it does takes seconds and is repeated elsewhere: just stop its process.",
        )
    with transaction.atomic():
        changed = Worker.objects.filter(pk=worker.pk, drain_since=None).update(drain_since=Now())
        if changed:
            _audit_worker(actor, "drained", worker)
    return bool(changed)


def resume_worker(actor: Actor, worker: Worker) -> bool:
    """It takes jobs again, from its next beat on. Returns whether anything changed."""
    actor.require(Role.ADMIN)
    with transaction.atomic():
        changed = Worker.objects.filter(pk=worker.pk, drain_since__isnull=False).update(drain_since=None)
        if changed:
            _audit_worker(actor, "resumed", worker)
            bus.wake_dispatcher(bus.Due.JOBS)
    return bool(changed)


def _active(wanted: Job) -> Job | None:
    """What a button pressed twice has queued already. Locks what it is about, so that of two who ask at once the
    second sees what the first queued."""
    about = wanted.measures or wanted.retry_of
    if about is None:
        return None
    list(type(about)._default_manager.select_for_update(no_key=True).filter(pk=about.pk).values_list("pk"))
    rows = about.measured_by if isinstance(about, Variant) else about.retries
    return rows.exclude(state__in=TERMINAL).order_by("-pk").first()


def refuse_unusable(parent: Variant) -> None:
    if parent.version.quarantined_reason:
        raise Conflict("quarantined", f"{parent.version} is quarantined.", parent.version.quarantined_reason)
    if parent.artifact.state == Artifact.State.DAMAGED:
        raise artifacts.damaged(parent)
    trust.refuse_untrusted(parent)


def check_key(key: str | None) -> None:
    if key is not None and (not 1 <= len(key) <= 100 or not key.isprintable()):
        raise Unprocessable(
            "invalid_idempotency_key",
            "The idempotency key cannot be used.",
            "Send 1 to 100 printable characters, such as a UUID.",
        )


def _known(actor: Actor, wanted: Job) -> Job | None:
    """The job that came with this key before. Conflict if it was asked for otherwise: a retry is another request
    than the one that it repeats."""
    key = wanted.idempotency_key
    check_key(key)
    if key is None:
        return None
    job = Job.objects.filter(team=actor.team, idempotency_key=key).first()
    asked = (wanted.request_digest, wanted.retry_of_id)
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
    parent: Variant,
    recipe: Recipe,
    evaluation_set: Dataset | None,
    calibration_set: Dataset | None,
    *,
    priority: int = Job.Priority.NORMAL,
    gpu: str = "",
) -> str:
    """What is as usual adds nothing, so that a digest outlives the invention of one more choice."""
    parts = [
        parent.pk,
        recipe.digest,
        *(row.pk if row else None for row in (evaluation_set, calibration_set)),
        *([f"priority {priority:d}"] if priority != Job.Priority.NORMAL else []),
        *([f"gpu {gpu}"] if gpu else []),
    ]
    return _digest(*parts)


def _digest(*parts: int | str | None) -> str:
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def _audit(actor: Actor, verb: str, job: Job) -> None:
    audit.record(
        actor,
        verb,
        object_type="job",
        object_id=job.pk,
        object_name=f"job {job.pk} on {job.version}",
        object_url=job.get_absolute_url(),
        details={"measures": str(job.measures)} if job.measures else {"recipe": job.recipe},
    )


def _audit_worker(actor: Actor, verb: str, worker: Worker) -> None:
    """In the acting team's trail: workers are everybody's."""
    audit.record(
        actor,
        verb,
        object_type="worker",
        object_id=worker.pk,
        object_name=worker.name,
        object_url=worker.get_absolute_url(),
    )
    bus.publish("workers", team_id=None)
