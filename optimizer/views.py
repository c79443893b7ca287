"""The pages of jobs and workers. Each view parses, asks through the actor's team, calls one verb, renders."""

from typing import Any

from django.contrib import messages
from django.http import HttpRequest, HttpResponse, HttpResponseBase, StreamingHttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.views.decorators.http import require_http_methods, require_POST, require_safe

from controlplane.accounts.access import Actor, actor_of
from controlplane.accounts.models import Role
from controlplane.core import formats, lists, refusals
from controlplane.core.addresses import whole_number
from controlplane.core.clock import database_now
from controlplane.core.csv_export import CHUNK
from controlplane.core.errors import Conflict, NotFound
from controlplane.core.lists import Listing
from controlplane.registry import reports
from controlplane.registry import selectors as registry
from controlplane.registry.models import Variant
from optimizer import fleet, selectors, services, tables, timeline
from optimizer.domain.jobs import TERMINAL
from optimizer.forms import JobFilterForm, OptimizeForm
from optimizer.models import Job, JobEvent

LOG_LINES = 500


@require_safe
def jobs(request: HttpRequest) -> HttpResponseBase:
    actor = actor_of(request)
    form = JobFilterForm(request.GET)
    wanted = form.wanted()
    rows = selectors.filtered(selectors.jobs(actor), wanted)
    if part := lists.part(request, rows, csv=tables.jobs_csv, sorts=selectors.SORTS):
        return part
    listing = Listing(request, rows, noun="job", sorts=selectors.SORTS)
    now = database_now()
    results = selectors.results(listing.rows)
    for row in listing.rows:
        row.elapsed_s = timeline.elapsed_s(row, now=now)  # type: ignore[attr-defined]
        row.result = results.get(row.pk)  # type: ignore[attr-defined]
    context = {
        "form": form,
        "listing": listing,
        "filtered": any(wanted.values()),
        "example": _example("file-types", 1, 0),
    }
    return render(request, "optimizer/jobs.html", context)


def _example(model: str, version: int, variant: int) -> dict[str, Any]:
    return {"model": model, "version": version, "variant": variant, "recipe": [{"technique": "int8-dynamic"}]}


def _parent(request: HttpRequest, actor: Actor) -> Variant:
    """The variant that `?model=&version=&variant=` names. Raises NotFound."""
    given = request.GET
    version = whole_number(given.get("version", ""), digits=9)
    variant = whole_number(given.get("variant", "0"), digits=9)
    if version is None or variant is None:
        raise NotFound("not_found", "There is nothing here.", "The address names no version of a model.")
    return registry.variant(actor, given.get("model", ""), version, variant)


@require_http_methods(["GET", "HEAD", "POST"])
def new_job(request: HttpRequest) -> HttpResponse:
    actor = actor_of(request)
    parent = _parent(request, actor)
    actor.require(Role.ENGINEER)
    model = parent.version.model
    chosen = {"technique": request.GET.get("technique", "")}
    datasets = registry.datasets(actor, model.name)[:100]
    form = OptimizeForm(parent, datasets, request.POST if request.method == "POST" else None, initial=chosen)
    made = form.start(actor) if request.method == "POST" else None
    if made is not None:
        return redirect(made)
    context = {
        "form": form,
        "cards": form.cards(),
        "parent": parent,
        "version": parent.version,
        "model": model,
        "action": request.get_full_path(),
        "variants": list(parent.version.variants.order_by("number")),
        "example": _example(model.name, parent.version.number, parent.number),
    }
    part = "#form" if request.headers.get("HX-Request") else ""
    return render(request, f"optimizer/new_job.html{part}", context, status=form.status)


def _job(request: HttpRequest, job: int) -> tuple[Actor, Job]:
    actor = actor_of(request)
    rows = selectors.jobs(actor).select_related("retry_of", "evaluation_set", "calibration_set")
    return actor, get_object_or_404(rows, pk=job)


def _attempt(request: HttpRequest, job: Job) -> int:
    """Which attempt's steps are shown: that of `?attempt=` if there was one, else the last."""
    wanted = whole_number(request.GET.get("attempt", ""), digits=5)
    return wanted if wanted is not None and 1 <= wanted <= job.attempt else job.attempt


def _lines(request: HttpRequest, job: Job, attempt: int) -> list[JobEvent]:
    """The last ones; around `?line=`, or from where the chosen attempt begins, if the address says so."""
    line = whole_number(request.GET.get("line", ""))
    if line is None and attempt != job.attempt:
        line = selectors.beginning(job, attempt=attempt)
    if line is None:
        return selectors.last_events(job, limit=LOG_LINES)
    return selectors.events_around(job, line, limit=LOG_LINES)


@require_safe
def job(request: HttpRequest, job: int) -> HttpResponse:
    actor, row = _job(request, job)
    now, attempt = database_now(), _attempt(request, row)
    made = selectors.result(row)
    report = registry.latest_report(made) if made else None
    elapsed, estimate = (
        timeline.elapsed_s(row, now=now),
        timeline.estimate(row, Job.objects.in_team(actor.team)),
    )
    left = estimate.left(elapsed) if estimate and elapsed is not None and row.state == "running" else None
    context = {
        "job": row,
        "topic": str(row.pk),
        "over": row.state in TERMINAL,
        "beat": "" if row.state in TERMINAL else "2s",
        "may_change": actor.may(Role.ENGINEER),
        "recipe": " + ".join(step["technique"] for step in row.recipe),
        "attempt": attempt,
        "attempts": range(1, row.attempt + 1),
        "steps": timeline.steps(row, attempt=attempt, events=selectors.marks(row), now=now),
        "progress": f"Step {row.step_index} of {row.step_count}: {row.step}" if row.step else "Starting",
        "steps_done": max(0, row.step_index - 1),
        "elapsed_s": elapsed,
        "estimate": estimate,
        "left": left or (None, None),
        "late": "stopping" if row.state == "cancelling" else estimate.exceeded if estimate else "",
        "waiting": fleet.waiting(row, now=now),
        "retries": list(row.retries.order_by("pk")),
        "events": _lines(request, row, attempt),
        "variant": made,
        "report": report,
        "said": reports.said(report) if report else "",
        "shown": reports.presented(report.data) if report else None,
    }
    return render(request, "optimizer/job.html", context)


@require_safe
def job_log(request: HttpRequest, job: int) -> StreamingHttpResponse:
    """Every line, whatever the page still shows."""
    _, row = _job(request, job)
    events = JobEvent.objects.filter(job=row).order_by("pk").iterator(CHUNK)
    lines = (
        f"{formats.machine(event.at)} {event.attempt} {event.level.upper():7} {event.message}\n"
        for event in events
    )
    return StreamingHttpResponse(
        lines,
        content_type="text/plain; charset=utf-8",
        headers={"Content-Disposition": f'attachment; filename="job-{row.pk}.log"'},
    )


@require_POST
def cancel(request: HttpRequest, job: int) -> HttpResponse:
    actor, row = _job(request, job)
    try:
        reached = services.cancel_job(actor, row)
    except Conflict as error:
        return refusals.back(request, error, row.get_absolute_url())
    said = "is cancelled" if reached == "cancelled" else "is being cancelled; its worker stops within seconds"
    messages.success(request, f"Job {row.pk} {said}.")
    return redirect(row)


@require_POST
def retry(request: HttpRequest, job: int) -> HttpResponse:
    actor, row = _job(request, job)
    try:
        again, created = services.retry_job(actor, row)
    except Conflict as error:
        return refusals.back(request, error, row.get_absolute_url())
    messages.success(
        request, f"Queued as job {again.pk}." if created else f"It is queued already: job {again.pk}."
    )
    return redirect(again)


@require_safe
def workers(request: HttpRequest) -> HttpResponseBase:
    actor = actor_of(request)
    rows = fleet.worker_rows(actor, now=database_now())
    match request.GET.get("part"):
        case "csv":
            return tables.workers_csv(rows)
        case "queues":
            return tables.queues_csv(fleet.queue_rows(rows))
    return render(request, "optimizer/workers.html", {"workers": rows, "queues": fleet.queue_rows(rows)})
