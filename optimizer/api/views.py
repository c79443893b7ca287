"""The REST API of jobs, techniques and workers."""

from typing import Any

from django.http import QueryDict
from django.shortcuts import get_object_or_404
from drf_spectacular.utils import extend_schema
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from controlplane.accounts.access import Actor, actor_of
from controlplane.core.api import page_response, parse, word
from controlplane.core.errors import InvalidInput
from controlplane.core.openapi import PAGING, Page, header, query, refusals, sorting
from controlplane.registry import selectors as registry
from controlplane.registry.models import Dataset
from optimizer import selectors, services
from optimizer.api import documents, inputs, schemas
from optimizer.domain.recipe import Recipe
from optimizer.models import Job as JobRow

KEY = header("Idempotency-Key", "The same key again answers with the first job.")
STATES = ["active", *JobRow.State.values]
AFTER = {"type": "integer", "minimum": 0, "maximum": 10**18 - 1, "default": 0}
QUEUED: dict[Any, Any] = {202: schemas.QueuedJob, **refusals(409, 422, 429)}


def _dataset(actor: Actor, model: str, name: str | None) -> Dataset | None:
    return registry.dataset(actor, model, name) if name else None


class Jobs(APIView):
    @extend_schema(
        parameters=[
            *PAGING,
            *sorting(selectors.SORTS),
            query("state", enum=STATES),
            query("model", description="A model's name."),
        ],
        responses=Page[schemas.Job],
    )
    def get(self, request: Request) -> Response:
        """Jobs of the team, newest first."""
        wanted = {"state": word(request, "state", STATES), "model": request.GET.get("model", "")}
        rows = selectors.filtered(selectors.jobs(actor_of(request)), wanted)
        return page_response(rows, request, documents.job, sorts=selectors.SORTS)

    @extend_schema(request=inputs.NewJob, parameters=[KEY], responses=QUEUED)
    def post(self, request: Request) -> Response:
        """Queue a job. The same Idempotency-Key answers with the first job."""
        actor = actor_of(request)
        wanted = parse(inputs.NewJob, request)
        job, created = services.optimize(
            actor,
            registry.variant(actor, wanted["model"], wanted["version"], wanted["variant"]),
            recipe=Recipe.from_json(wanted["recipe"]),
            evaluation_set=_dataset(actor, wanted["model"], wanted.get("evaluation_set")),
            calibration_set=_dataset(actor, wanted["model"], wanted.get("calibration_set")),
            idempotency_key=request.headers.get("Idempotency-Key"),
        )
        document: schemas.QueuedJob = {**documents.job(job), "created": created}
        return Response(document, status=202, headers={"Location": document["url"]})


def _job(request: Request, job: int) -> tuple[Actor, JobRow]:
    actor = actor_of(request)
    return actor, get_object_or_404(selectors.jobs(actor), pk=job)


class Job(APIView):
    @extend_schema(responses=schemas.OneJob)
    def get(self, request: Request, job: int) -> Response:
        """One job: its state, its step, and the address of what it made."""
        _, row = _job(request, job)
        document: schemas.OneJob = {**documents.job(row), "variant": selectors.result_url(row)}
        return Response(document)


class JobCancel(APIView):
    @extend_schema(request=None, responses={202: schemas.JobStateChange, **refusals(409)})
    def post(self, request: Request, job: int) -> Response:
        """Cancel a job: at once while it is queued, within a heartbeat while it runs."""
        actor, row = _job(request, job)
        return Response({"id": row.pk, "state": services.cancel_job(actor, row)}, status=202)


class JobRetry(APIView):
    @extend_schema(request=None, parameters=[KEY], responses=QUEUED)
    def post(self, request: Request, job: int) -> Response:
        """Queue the same request again, linked to this job. Without a key, a retry that is not over is the answer."""
        actor, row = _job(request, job)
        again, created = services.retry_job(
            actor, row, idempotency_key=request.headers.get("Idempotency-Key")
        )
        document: schemas.QueuedJob = {**documents.job(again), "created": created}
        return Response(document, status=202, headers={"Location": document["url"]})


class JobEvents(APIView):
    @extend_schema(
        parameters=[query("after", AFTER, "The `next` of the last answer.")], responses=schemas.JobEvents
    )
    def get(self, request: Request, job: int) -> Response:
        """The job's log and steps in order, from the one after `after`. `next` is the id to go on from."""
        _, row = _job(request, job)
        after = _after(request.GET)
        events = selectors.events_after(row, after=after)
        return Response(
            {
                "events": [documents.event(event) for event in events],
                "next": events[-1].pk if events else after,
            }
        )


def _after(parameters: QueryDict) -> int:
    text = parameters.get("after", "0")
    if not (text.isascii() and text.isdecimal() and len(text) < 19):
        raise InvalidInput("invalid_after", "“after” cannot be used.", "Send the “next” of the last answer.")
    return int(text)


class Techniques(APIView):
    @extend_schema(responses=Page[schemas.Technique])
    def get(self, request: Request) -> Response:
        """What a recipe can be made of, with the JSON schema of each technique's parameters."""
        return Response({"items": selectors.techniques(), "next": None})


class Workers(APIView):
    @extend_schema(responses=Page[schemas.Worker])
    def get(self, request: Request) -> Response:
        """The workers, with what they run on and when they were last heard."""
        actor_of(request)
        return Response({"items": [documents.worker(row) for row in selectors.workers()], "next": None})
