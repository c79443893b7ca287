"""The REST API of jobs, searches, techniques and workers."""

from collections.abc import Callable
from typing import Any

from django.http import QueryDict
from django.shortcuts import get_object_or_404
from drf_spectacular.utils import extend_schema
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from controlplane.accounts.access import Actor, actor_of
from controlplane.core.api import page_response, parse, word
from controlplane.core.clock import database_now
from controlplane.core.errors import InvalidInput
from controlplane.core.openapi import PAGING, Page, header, query, refusals, sorting
from controlplane.registry import selectors as registry
from controlplane.registry.models import Dataset
from optimizer import ledger, searches, selectors, services, shortlist, waiting
from optimizer.api import documents, inputs, schemas
from optimizer.domain.recipe import Recipe
from optimizer.models import Job as JobRow
from optimizer.models import Search as SearchRow
from optimizer.models import Worker as WorkerRow

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
            priority=JobRow.Priority[wanted["priority"].upper()],
            gpu=wanted.get("gpu") or "",
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
        """One job: its state, its step, why it waits, and the address of what it made."""
        _, row = _job(request, job)
        why = waiting.why(row, now=database_now()) if row.state == JobRow.State.QUEUED else None
        document: schemas.OneJob = {
            **documents.job(row),
            "variant": selectors.result_url(row),
            "waiting": f"{why.title} {why.detail}" if why else None,
        }
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


class Measure(APIView):
    @extend_schema(request=None, parameters=[KEY], responses=QUEUED)
    def post(self, request: Request, name: str, number: int, variant: int) -> Response:
        """Queue a job that measures the variant again, as its first report was made.

        Without a key, one that is not over is the answer.
        """
        actor = actor_of(request)
        job, created = services.measure_again(
            actor,
            registry.variant(actor, name, number, variant),
            idempotency_key=request.headers.get("Idempotency-Key"),
        )
        document: schemas.QueuedJob = {**documents.job(job), "created": created}
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


class Ledger(APIView):
    @extend_schema(parameters=PAGING, responses=Page[schemas.LedgerLine])
    def get(self, request: Request, name: str) -> Response:
        """What was made of each version, newest first: the newest variant of each kind, and whether it is stale."""
        actor = actor_of(request)
        registry.model(actor, name)
        fleet = ledger.fleet(now=database_now())
        rows = ledger.versions(actor, name)
        return page_response(rows, request, lambda row: documents.ledger_line(ledger.line(row, fleet)))


class LedgerRebuild(APIView):
    @extend_schema(request=None, responses={202: schemas.Rebuilt, **refusals(429)})
    def post(self, request: Request, name: str) -> Response:
        """Queue again the jobs of what is stale. Those that are queued already are answered, not queued twice."""
        actor = actor_of(request)
        queued, refused = ledger.rebuild(actor, registry.model(actor, name).name, now=database_now())
        document: schemas.Rebuilt = {"jobs": [documents.job(job) for job in queued], "refused": refused}
        return Response(document, status=202)


SEARCH_KEY = header("Idempotency-Key", "The same key again answers with the first search.")


class Searches(APIView):
    @extend_schema(parameters=[*PAGING], responses=Page[schemas.Search])
    def get(self, request: Request) -> Response:
        """Searches of the team, newest first."""
        return page_response(selectors.searches(actor_of(request)), request, documents.search)

    @extend_schema(
        request=inputs.NewSearch,
        parameters=[SEARCH_KEY],
        responses={202: schemas.StartedSearch, **refusals(409, 422)},
    )
    def post(self, request: Request) -> Response:
        """Start a search: it queues one job after another until everything worth trying is measured or its budget is
        used up. While the same search runs, that one is the answer."""
        actor = actor_of(request)
        wanted = parse(inputs.NewSearch, request)
        row, created = searches.start(
            actor,
            registry.variant(actor, wanted["model"], wanted["version"], wanted["variant"]),
            evaluation_set=_dataset(actor, wanted["model"], wanted.get("evaluation_set")),
            calibration_set=_dataset(actor, wanted["model"], wanted.get("calibration_set")),
            gpu=wanted.get("gpu") or "",
            max_jobs=wanted["max_jobs"],
            max_minutes=wanted["max_minutes"],
            idempotency_key=request.headers.get("Idempotency-Key"),
        )
        document: schemas.StartedSearch = {**documents.search(row), "created": created}
        return Response(document, status=202, headers={"Location": document["url"]})


def _search(request: Request, search: int) -> tuple[Actor, SearchRow]:
    actor = actor_of(request)
    return actor, get_object_or_404(selectors.searches(actor), pk=search)


class Search(APIView):
    @extend_schema(responses=schemas.OneSearch)
    def get(self, request: Request, search: int) -> Response:
        """One search: every recipe of its plan with what it showed, and which points nothing beats."""
        _, row = _search(request, search)
        document: schemas.OneSearch = {
            **documents.search(row),
            "plan": [documents.searched(one) for one in shortlist.rows(row)],
            "left_out": row.left_out,
        }
        return Response(document)


class SearchCancel(APIView):
    @extend_schema(request=None, responses={202: schemas.SearchStateChange, **refusals(409)})
    def post(self, request: Request, search: int) -> Response:
        """Cancel a search and its job. What was measured stays."""
        actor, row = _search(request, search)
        return Response({"id": row.pk, "state": searches.cancel(actor, row)}, status=202)


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
        now = database_now()
        return Response(
            {"items": [documents.worker(row, now=now) for row in selectors.workers()], "next": None}
        )


def _worker(request: Request, worker: int, verb: Callable[[Actor, WorkerRow], bool]) -> Response:
    actor, row = actor_of(request), get_object_or_404(selectors.workers(), pk=worker)
    verb(actor, row)
    row.refresh_from_db()
    return Response(documents.worker(row, now=database_now()))


class WorkerDrain(APIView):
    @extend_schema(request=None, responses={200: schemas.Worker, **refusals(409)})
    def post(self, request: Request, worker: int) -> Response:
        """Let a worker take no new job until it is resumed; the one it has is finished. For admins of any team."""
        return _worker(request, worker, services.drain_worker)


class WorkerResume(APIView):
    @extend_schema(request=None, responses=schemas.Worker)
    def post(self, request: Request, worker: int) -> Response:
        """Let a drained worker take jobs again. For admins of any team."""
        return _worker(request, worker, services.resume_worker)
