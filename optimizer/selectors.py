"""Queries about jobs, each deciding once what it fetches."""

from collections.abc import Iterable

from django.db.models import QuerySet

from controlplane.accounts.access import Actor
from optimizer.domain.jobs import TERMINAL
from optimizer.models import Job, JobEvent


def jobs(actor: Actor) -> QuerySet[Job]:
    return Job.objects.in_team(actor.team).select_related("version__model", "parent", "created_by")


def events_after(job: Job, *, after: int = 0, limit: int = 500) -> list[JobEvent]:
    """Events in order, from the one after id `after`. Index scan on (job, id)."""
    return list(JobEvent.objects.filter(job=job, pk__gt=after).order_by("id")[:limit])


def uses(variant_ids: list[int]) -> Iterable[str]:
    """For `registry.usage`: jobs that still need one of these variants."""
    active = Job.objects.filter(parent__in=variant_ids).exclude(state__in=TERMINAL)
    return [f"job {job.pk} is {job.state}" for job in active]
