"""The pages of jobs and workers. Each view parses, asks through the actor's team, calls one verb, renders."""

from functools import partial
from typing import Any

from django.contrib import messages
from django.http import HttpRequest, HttpResponse, HttpResponseBase, StreamingHttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.urls import reverse
from django.views.decorators.http import require_http_methods, require_POST, require_safe

from controlplane.accounts.access import Actor, actor_of
from controlplane.accounts.models import Role
from controlplane.core import formats, lists, refusals
from controlplane.core.addresses import whole_number
from controlplane.core.clock import database_now
from controlplane.core.csv_export import CHUNK
from controlplane.core.errors import Conflict, NotFound, TooMany, Unprocessable
from controlplane.core.lists import Listing
from controlplane.registry import reports
from controlplane.registry import selectors as registry
from controlplane.registry.models import Variant
from optimizer import curves, fleet, selectors, services, tables, timeline, waiting
from optimizer import ledger as book
from optimizer.domain.jobs import TERMINAL
from optimizer.forms import JobFilterForm, OptimizeForm
from optimizer.models import Job, JobEvent

LOG_LINES = 500
NAMED = 5


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


def parent_of(request: HttpRequest, actor: Actor) -> Variant:
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
    parent = parent_of(request, actor)
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
    report = selectors.result(row)
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
        "attempt": attempt,
        "attempts": range(1, row.attempt + 1),
        "steps": timeline.steps(row, attempt=attempt, events=selectors.marks(row), now=now),
        "charts": curves.charts(selectors.points(row)),
        "progress": f"Step {row.step_index} of {row.step_count}: {row.step}" if row.step else "Starting",
        "steps_done": max(0, row.step_index - 1),
        "elapsed_s": elapsed,
        "estimate": estimate,
        "left": left or (None, None),
        "late": "stopping" if row.state == "cancelling" else estimate.exceeded if estimate else "",
        "waiting": waiting.why(row, now=now),
        "retries": list(row.retries.order_by("pk")),
        "events": _lines(request, row, attempt),
        "variant": report.variant if report else None,
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
    except (Conflict, Unprocessable, TooMany) as error:
        return refusals.back(request, error, row.get_absolute_url())
    messages.success(
        request, f"Queued as job {again.pk}." if created else f"It is queued already: job {again.pk}."
    )
    return redirect(again)


@require_POST
def measure(request: HttpRequest, name: str, number: int, variant: int) -> HttpResponse:
    actor = actor_of(request)
    row = registry.variant(actor, name, number, variant)
    try:
        job, created = services.measure_again(actor, row)
    except (Conflict, Unprocessable, TooMany) as error:
        return refusals.back(request, error, row.get_absolute_url())
    said = f"Queued as job {job.pk}." if created else f"It is queued already: job {job.pk}."
    messages.success(request, said)
    return redirect(job)


@require_safe
def ledger(request: HttpRequest, name: str) -> HttpResponseBase:
    actor = actor_of(request)
    model = registry.model(actor, name)
    rows, fleet_now = book.versions(actor, name), book.fleet(now=database_now())
    if part := lists.part(request, rows, csv=partial(tables.ledger_csv, name, fleet_now)):
        return part
    listing = Listing(request, rows, noun="version")
    lines = [book.line(version, fleet_now) for version in listing.rows]
    columns = book.columns(lines)
    context = {
        "model": model,
        "topic": str(model.pk),
        "listing": listing,
        "columns": columns,
        "lines": [
            {
                "version": line.version,
                "row": [(column.label, _shown(line.cells.get(column))) for column in columns],
            }
            for line in lines
        ],
        "stale": any(cell.stale for line in lines for cell in line.cells.values()),
        "may_change": actor.may(Role.ENGINEER),
    }
    return render(request, "optimizer/ledger.html", context)


def _shown(cell: book.Cell | None) -> dict[str, Any] | None:
    if cell is None:
        return None
    data = cell.report.data if cell.report else {}
    speedups = [speedup for speedup in reports.speedups(data) if speedup.value is not None]
    return {
        "variant": cell.variant,
        "speedups": [f"{speedup.headline} at batch {speedup.batch_size}" for speedup in speedups],
        "loss": reports.loss(data),
        "stale": cell.stale,
        "earlier": cell.earlier,
    }


@require_POST
def rebuild(request: HttpRequest, name: str) -> HttpResponse:
    actor = actor_of(request)
    model = registry.model(actor, name)
    try:
        queued, refused = book.rebuild(actor, model.name, now=database_now())
    except TooMany as error:
        return refusals.back(request, error, reverse("optimizer:ledger", args=[name]))
    if not queued and not refused:
        messages.info(request, "Nothing is stale, so nothing was queued.")
    if queued:
        messages.success(request, f"Queued: {', '.join(f'job {job.pk}' for job in queued[:NAMED])}.")
    if refused:
        messages.warning(request, f"Not rebuilt: {' '.join(refused[:NAMED])}")
    return redirect("optimizer:ledger", name)


@require_safe
def workers(request: HttpRequest) -> HttpResponseBase:
    actor = actor_of(request)
    rows = fleet.worker_rows(actor, now=database_now())
    match request.GET.get("part"):
        case "csv":
            return tables.workers_csv(rows)
        case "queues":
            return tables.queues_csv(fleet.queue_rows(rows))
    context = {"workers": rows, "queues": fleet.queue_rows(rows), "may_drain": actor.may(Role.ADMIN)}
    return render(request, "optimizer/workers.html", context)


@require_POST
def drain(request: HttpRequest, worker: int) -> HttpResponse:
    row = get_object_or_404(selectors.workers(), pk=worker)
    try:
        services.drain_worker(actor_of(request), row)
    except Conflict as error:
        return refusals.back(request, error, row.get_absolute_url())
    messages.success(request, f"{row.name} takes no new job. The one it has is finished.")
    return redirect(row)


@require_POST
def resume(request: HttpRequest, worker: int) -> HttpResponse:
    row = get_object_or_404(selectors.workers(), pk=worker)
    services.resume_worker(actor_of(request), row)
    messages.success(request, f"{row.name} takes jobs again within seconds.")
    return redirect(row)
