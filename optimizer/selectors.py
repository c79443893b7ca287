"""Queries about jobs and workers, each deciding once what it fetches."""

from collections.abc import Iterable, Mapping
from typing import Any

from django.db.models import Q, QuerySet

from controlplane.accounts.access import Actor
from controlplane.registry.models import Report
from optimizer.domain.jobs import TERMINAL
from optimizer.models import Job, JobEvent, Search, Worker
from optimizer.techniques import TECHNIQUES


def jobs(actor: Actor) -> QuerySet[Job]:
    return Job.objects.in_team(actor.team).select_related(
        "version__model", "parent", "measures", "created_by"
    )


SORTS = {"model": "version__model__name", "state": "state", "finished": "finished_at"}


def filtered(rows: QuerySet[Job], parameters: Mapping[str, str]) -> QuerySet[Job]:
    """`state` (one, or `active`), `model` by its whole name or `named` by a part of it; empty filters nothing."""
    state, model = parameters.get("state", ""), parameters.get("model", "")
    if named := parameters.get("named", ""):
        rows = rows.filter(version__model__name__icontains=named)
    if state == "active":
        rows = rows.exclude(state__in=TERMINAL)
    elif state:
        rows = rows.filter(state=state)
    return rows.filter(version__model__name=model) if model else rows


def events_after(job: Job, *, after: int = 0, limit: int = 500) -> list[JobEvent]:
    """Events in order, from the one after id `after`. Index scan on (job, id)."""
    return list(JobEvent.objects.filter(job=job, pk__gt=after).order_by("id")[:limit])


def last_events(job: Job, *, limit: int) -> list[JobEvent]:
    """The newest `limit` events, in order."""
    return list(reversed(JobEvent.objects.filter(job=job).order_by("-id")[:limit]))


def events_around(job: Job, line: int, *, limit: int, before: int = 100) -> list[JobEvent]:
    """`limit` events in order, about the one with id `line`: up to `before` of them come before it."""
    rows = JobEvent.objects.filter(job=job)
    earlier = list(rows.filter(pk__lt=line).order_by("-id")[:before])
    return [*reversed(earlier), *rows.filter(pk__gte=line).order_by("id")[: limit - len(earlier)]]


def beginning(job: Job, *, attempt: int) -> int | None:
    """The id of the attempt's first event."""
    rows = JobEvent.objects.filter(job=job, attempt=attempt).order_by("id")
    return rows.values_list("pk", flat=True).first()


def marks(job: Job) -> list[JobEvent]:
    """Steps and changes of state, in order: few, however long the log is."""
    kinds = [JobEvent.Kind.STEP, JobEvent.Kind.STATE]
    return list(JobEvent.objects.filter(job=job, kind__in=kinds).order_by("id"))


def points(job: Job) -> list[JobEvent]:
    """What its curves are made of, in order. Reads the job's log lines once."""
    return list(
        JobEvent.objects.filter(job=job, kind=JobEvent.Kind.LOG, data__has_key="curve").order_by("id")
    )


def results(jobs: Iterable[Job]) -> dict[int, Report]:
    """The report of each of these jobs, with its variant, by job. One query."""
    made = Report.objects.filter(job_id__in=[job.pk for job in jobs]).select_related(
        "variant__version__model"
    )
    return {row.job_id: row for row in made if row.job_id is not None}


def result(job: Job) -> Report | None:
    """What the job measured, with the variant that it made or found."""
    return Report.objects.filter(job_id=job.pk).select_related("variant__version__model").first()


def result_url(job: Job) -> str | None:
    made = result(job)
    return f"/api/v1{made.variant.get_absolute_url()}" if made else None


def techniques() -> list[dict[str, Any]]:
    """Every technique with what it promises and the schema of its parameters."""
    loaded = [TECHNIQUES.load(key) for key in TECHNIQUES]
    return [
        {
            "key": technique.key,
            "label": technique.label,
            "promises": technique.promises.to_json(),
            "needs_calibration": technique.calibrates(technique.parameters()),
            "parameters": technique.parameters.model_json_schema(),
        }
        for technique in loaded
    ]


def workers() -> QuerySet[Worker]:
    return Worker.objects.select_related("current_job")


def uses(variant_ids: list[int]) -> Iterable[str]:
    """For `registry.usage`: jobs that still need one of these variants."""
    needs = Q(parent__in=variant_ids) | Q(measures__in=variant_ids)
    active = Job.objects.filter(needs).exclude(state__in=TERMINAL)
    searches = Search.objects.filter(parent__in=variant_ids, state=Search.State.RUNNING)
    return _said([*active, *searches])


def uses_of_dataset(dataset_id: int) -> Iterable[str]:
    """For `registry.usage`: jobs that are still to read the data set."""
    needs = Q(evaluation_set=dataset_id) | Q(calibration_set=dataset_id)
    active = Job.objects.filter(needs).exclude(state__in=TERMINAL)
    searches = Search.objects.filter(needs, state=Search.State.RUNNING)
    return _said([*active, *searches])


def _said(rows: Iterable[Job | Search]) -> list[str]:
    return [f"{row} is {row.state}" for row in rows]


def searches(actor: Actor) -> QuerySet[Search]:
    return Search.objects.in_team(actor.team).select_related(
        "version__model", "parent__artifact", "created_by", "evaluation_set", "calibration_set"
    )
