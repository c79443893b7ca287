"""Why the deployment has the size it has: every decision with its signals, and the hand on the wheel."""

from functools import partial
from typing import Any

from django.http import HttpRequest, HttpResponse, HttpResponseBase
from django.views.decorators.http import require_POST, require_safe

from controlplane.accounts.access import actor_of
from controlplane.accounts.models import Role
from controlplane.core import lists
from controlplane.core.errors import InvalidInput, SlipwayError
from controlplane.core.lists import Listing
from deployments import selectors, services, why
from deployments.domain import words
from deployments.domain.spec import RevisionSpec
from deployments.forms import ScaleForm, take_refusal
from deployments.models import Decision, Deployment
from deployments.views import frame, tables


@require_safe
def scaling(request: HttpRequest, name: str) -> HttpResponseBase:
    _, row = frame.find(request, name)
    rows = selectors.decisions(row, changes_only=_changes_only(request))
    if part := lists.part(request, rows, csv=partial(tables.decisions_csv, row.name)):
        return part
    return _page(request, row, ScaleForm(initial={"replicas": row.replicas}))


def _changes_only(request: HttpRequest) -> bool:
    return request.GET.get("show") != "all"


def _page(request: HttpRequest, row: Deployment, form: ScaleForm, *, status: int = 200) -> HttpResponse:
    changes_only = _changes_only(request)
    listing = Listing(request, selectors.decisions(row, changes_only=changes_only), noun="decision")
    points, missing = why.timeline(row)
    hpa = RevisionSpec.from_json(row.live_revision.spec).hpa() if row.live_revision else None
    return frame.page(
        request,
        actor_of(request),
        row,
        tab="scaling",
        status=status,
        form=form,
        hpa=hpa,
        targets=[(words.SIGNAL_NAMES.get(one.name, one.name), one.target.words()) for one in hpa.metrics]
        if hpa
        else [],
        now=words.why(
            selectors.latest_decision(row),
            paused=row.autoscaling_paused,
            replicas=row.replicas,
            now=frame.now(),
        ),
        decided_by=_decided_by(row),
        decisions=[_decision(one) for one in listing.rows],
        scale_body={"replicas": row.replicas},
        pause_body={"paused": not row.autoscaling_paused},
        changes_only=changes_only,
        points=points,
        events_missing=missing,
        asked=_asked(request, row),
        any_decision=row.decisions.exists(),
        listing=listing,
    )


_DECIDED_BY = {
    "hpa": "by the cluster's HorizontalPodAutoscaler",
    "keda": "by KEDA in the cluster",
    "slipway": "deciding every 2 s",
    "none": "off: a person's choice",
}


def _decided_by(row: Deployment) -> str:
    spec = row.live_revision.spec if row.live_revision else {}
    return _DECIDED_BY[(spec.get("cluster") or {}).get("autoscaler", "slipway")]


def _asked(request: HttpRequest, row: Deployment) -> why.Answer | None:
    """What was asked of a moment; an address that names none asks nothing."""
    try:
        return why.answer(row, why.moment(request.GET["at"])) if request.GET.get("at") else None
    except InvalidInput:
        return None


def _decision(row: Decision) -> dict[str, Any]:
    return {
        "row": row,
        "changed": row.current_replicas != row.desired_replicas,
        "grew": row.desired_replicas > row.current_replicas,
        "limit": words.limit(row.limited_by),
        "signals": words.signals(row.signals),
        "lasted_s": (row.last_at - row.at).total_seconds(),
    }


@require_POST
def scale(request: HttpRequest, name: str) -> HttpResponse:
    actor, row = frame.find(request, name)
    actor.require(Role.ENGINEER)
    form = ScaleForm(request.POST)
    if not form.is_valid():
        return _page(request, row, form, status=422)
    replicas = form.cleaned_data["replicas"]
    try:
        services.scale(actor, row, replicas=replicas)
    except SlipwayError as error:
        take_refusal(form, error)
        return _page(request, row, form, status=error.status)
    return frame.done(request, row, "scaling", f"Going from {row.replicas} to {replicas} replicas.")


@require_POST
def pause(request: HttpRequest, name: str) -> HttpResponse:
    """`paused` is 1 or 0."""
    actor, row = frame.find(request, name)
    paused = request.POST.get("paused") == "1"
    said = "Autoscaling is paused; the size is yours." if paused else "The autoscaler decides again."
    return frame.attempt(
        request,
        row,
        lambda: services.pause_autoscaling(actor, row, paused=paused),
        to="scaling",
        said=said,
    )
