"""What an attempt leaves behind when it ends: one transaction, which its fence guards."""

from typing import Any

from django.db import transaction

from controlplane.accounts import access, audit
from controlplane.core import storage
from controlplane.registry import services as registry
from controlplane.registry.models import Variant
from optimizer import transitions
from optimizer.domain.jobs import FailureReason, JobState, repeats
from optimizer.models import Job
from optimizer.worker.hold import Hold, StepFailed


def finish(
    job: Job,
    *,
    hold: Hold,
    blob: storage.Blob,
    format: str,
    precision: str,
    provenance: list[dict[str, Any]],
    report: dict[str, Any],
) -> str:
    """The job's one effect: variant, report, audit and the move to succeeded, in one transaction. The
    move comes first: it is what the fence guards.

    May be repeated: what landed before, though its reply was lost, is found and not done again.
    """
    if transitions.succeeded(hold.claim):
        return JobState.SUCCEEDED
    with transaction.atomic():
        transitions.succeed(hold.claim, message=report["sentence"])
        variant = registry.add_variant(
            parent=job.parent,
            blob=blob,
            technique="+".join(step["technique"] for step in job.recipe),
            format=format,
            precision=precision,
            provenance={"steps": provenance, "recipe": job.recipe},
            job_id=job.pk,
            report=report,
        )
        _audit(job, "optimized", variant, verdict=report["verdict"])
    return JobState.SUCCEEDED


def finish_again(job: Job, variant: Variant, *, hold: Hold, report: dict[str, Any]) -> str:
    """As `finish`, where the one effect is a report beside the others."""
    if transitions.succeeded(hold.claim):
        return JobState.SUCCEEDED
    with transaction.atomic():
        transitions.succeed(hold.claim, message=report["sentence"])
        registry.add_report(variant, job_id=job.pk, report=report)
        _audit(job, "measured again", variant, verdict=report["verdict"])
    return JobState.SUCCEEDED


def _audit(job: Job, verb: str, variant: Variant, *, verdict: str) -> None:
    audit.record(
        access.system(job.team),
        verb,
        object_type="variant",
        object_id=variant.pk,
        object_name=str(variant),
        object_url=variant.get_absolute_url(),
        details={"job": job.pk, "verdict": verdict},
    )


def fail(job: Job, claim: transitions.Claim, failure: StepFailed) -> str:
    """A model that keeps crashing what builds it is put away with the same commit."""
    with transaction.atomic():
        state = transitions.fail(claim, reason=failure.reason, message=failure.message)
        crashed = state == JobState.FAILED and failure.reason == FailureReason.CRASHED
        if crashed and repeats(failure.reason, times=transitions.ended_for(job.pk, failure.reason)):
            registry.quarantine(job.version, reason=failure.message)
    return state
