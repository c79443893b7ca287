"""A deployment at a glance: four numbers, charts on one axis, why it has this many replicas, which they are, what
happened lately, and how to ask it."""

import math
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

from django.contrib import messages
from django.http import HttpRequest, HttpResponse, HttpResponseBase
from django.shortcuts import redirect
from django.urls import reverse
from django.views.decorators.http import require_POST, require_safe

from controlplane.accounts.access import actor_of
from controlplane.accounts.models import Role
from controlplane.core.addresses import whole_number
from controlplane.core.errors import SlipwayError
from deployments import selectors, services
from deployments.domain import cluster_words, words
from deployments.domain.snippets import snippets
from deployments.domain.spec import RevisionSpec
from deployments.forms import LoadForm, take_refusal
from deployments.history import history
from deployments.models import Deployment, Load
from deployments.telemetry.figures import figure
from deployments.views import frame, tables
from deployments.views.revisions import example_revision

HOLD = timedelta(seconds=8)
"""How long a stop of the load can be taken back."""
SENDS_WITHIN = timedelta(seconds=15)
PARTS = ("now", "replicas", "events", "load")
"""What ticks refresh: partials of the page, so that two seconds of life do not cost a whole page."""


@require_safe
def overview(request: HttpRequest, name: str) -> HttpResponseBase:
    _, row = frame.find(request, name)
    if request.GET.get("part") == "csv":
        return tables.replicas_csv(row)
    return _page(request, row, LoadForm())


def _page(request: HttpRequest, row: Deployment, form: LoadForm, *, status: int = 200) -> HttpResponse:
    actor = actor_of(request)
    seen = selectors.status(row)
    now = datetime.now(UTC)
    part = request.GET.get("part")
    load = selectors.load_of(row)
    hpa = RevisionSpec.from_json(row.live_revision.spec).hpa() if row.live_revision else None
    return frame.page(
        request,
        actor,
        row,
        tab="overview",
        template=f"deployments/overview.html#{part}" if part in PARTS else "",
        status=status,
        replica_unit=f"of {row.replicas} ready" if hpa else "ready",
        bounds_note=f"{hpa.min_replicas} to {hpa.max_replicas} allowed" if hpa else "",
        revision_body=example_revision(row),
        newest=row.revision_count,
        load_body={"rate_per_s": 20, "duration_s": 600},
        figures=selectors.overview_figures([row])[row.pk],
        why=words.why(
            selectors.latest_decision(row), paused=row.autoscaling_paused, replicas=row.replicas, now=now
        ),
        autoscaler=cluster_words.autoscaler(seen.autoscaler) if seen and not row.autoscaling_paused else "",
        conditions=cluster_words.conditions(seen.autoscaler) if seen else (),
        replicas=[words.replica(one, now=now) for one in seen.replicas] if seen else [],
        events=partial(history, row),
        snippets=_snippets(row, frame.endpoint(row, seen)),
        series_url=f"/api/v1/deployments/{row.name}/series/",
        csv_url=reverse("deployments:series-csv", args=[row.name]),
        load=_load(load, now=now),
        load_form=form,
        held=_held(request, load, now=now),
        bounds=(services.MAX_LOAD_PER_S, services.MAX_LOAD_S // 60),
    )


def _snippets(row: Deployment, endpoint: str) -> dict[str, str]:
    if not endpoint or row.live_revision is None:
        return {}
    return snippets(endpoint, row.live_revision.variant.signature, protected=bool(row.api_key_sha256))


def _load(load: Load | None, *, now: datetime) -> dict[str, Any] | None:
    if load is None:
        return None
    double = min(load.rate_per_s * 2, services.MAX_LOAD_PER_S)
    left_s = (load.until - now).total_seconds()
    return {
        "row": load,
        "running": left_s > 0,
        "double": double if double > load.rate_per_s else None,
        "silent": left_s > 0 and not load.sent and now - load.updated_at > SENDS_WITHIN,
    }


def _held(request: HttpRequest, load: Load | None, *, now: datetime) -> dict[str, Any] | None:
    """The stop that can still be taken back. `?stopping=` says when the load would have ended.

    The row already ends when the countdown does, so nothing is lost with the page.
    """
    until = _moment(request.GET.get("stopping", ""))
    if load is None or until is None or not now < load.until <= now + HOLD or until <= load.until:
        return None
    return {"at": load.until, "seconds": int(HOLD.total_seconds()), "until": int(until.timestamp())}


def _moment(text: str) -> datetime | None:
    """Epoch seconds as a page's address carries them."""
    seconds = whole_number(text, digits=11)
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC)


@require_safe
def series_csv(request: HttpRequest, name: str) -> HttpResponseBase:
    _, row = frame.find(request, name)
    return tables.series_csv(row.name, figure(row, request.GET))


@require_POST
def start_load(request: HttpRequest, name: str) -> HttpResponse:
    """Starts it, or changes the rate of the one that runs."""
    actor, row = frame.find(request, name)
    actor.require(Role.ENGINEER)
    form = LoadForm(request.POST)
    if not form.is_valid():
        return _page(request, row, form, status=422)
    rate, minutes = form.cleaned_data["rate_per_s"], form.cleaned_data["minutes"]
    try:
        services.start_load(actor, row, rate_per_s=rate, duration_s=60 * minutes)
    except SlipwayError as error:
        take_refusal(form, error)
        return _page(request, row, form, status=error.status)
    return frame.done(request, row, "deployment", f"Sending {rate:g} requests/s for {minutes} min.")


@require_POST
def raise_load(request: HttpRequest, name: str) -> HttpResponse:
    """Doubles the rate up to the cap; it ends when it would have ended."""
    actor, row = frame.find(request, name)

    def work() -> None:
        load = selectors.load_of(row)
        left_s = (load.until - datetime.now(UTC)).total_seconds() if load else 0
        if load is not None and left_s > 1:
            rate = min(load.rate_per_s * 2, services.MAX_LOAD_PER_S)
            services.start_load(actor, row, rate_per_s=rate, duration_s=int(left_s))

    return frame.attempt(request, row, work, to="deployment", said="The rate was doubled.")


@require_POST
def stop_load(request: HttpRequest, name: str) -> HttpResponse:
    """In a few seconds, so that a slip can be taken back; the row holds it."""
    actor, row = frame.find(request, name)
    load = selectors.load_of(row)
    services.stop_load(actor, row, in_s=HOLD.total_seconds())
    to = reverse("deployments:deployment", args=[row.name])
    return redirect(f"{to}?stopping={math.ceil(load.until.timestamp())}" if load else to)


@require_POST
def keep_load(request: HttpRequest, name: str) -> HttpResponse:
    """Cancels the stop that is held; `until` says when the load ends instead."""
    actor, row = frame.find(request, name)
    until = _moment(request.POST.get("until", ""))
    if until is not None and services.keep_load(actor, row, until=until):
        return frame.done(request, row, "deployment", "The load goes on.")
    messages.error(request, "The load had ended already. Start it again below.")
    return redirect(reverse("deployments:deployment", args=[row.name]))
