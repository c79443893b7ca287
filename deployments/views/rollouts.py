"""The moves between revisions: a list, one page each with its timeline and evidence, and cancelling."""

from functools import partial

from django.http import HttpRequest, HttpResponse, HttpResponseBase
from django.shortcuts import get_object_or_404
from django.urls import reverse
from django.views.decorators.http import require_POST, require_safe

from controlplane.core import lists, refusals
from controlplane.core.errors import SlipwayError
from controlplane.core.lists import Listing
from deployments import selectors, services
from deployments.domain import loglines
from deployments.domain.plan import Change, counts
from deployments.domain.rollouts import RolloutState
from deployments.views import frame, tables

CANCELLABLE = (RolloutState.PENDING, RolloutState.RUNNING, RolloutState.PAUSED)


@require_safe
def rollouts(request: HttpRequest, name: str) -> HttpResponseBase:
    actor, row = frame.find(request, name)
    rows = selectors.rollouts(row)
    if part := lists.part(request, rows, csv=partial(tables.rollouts_csv, row.name)):
        return part
    return frame.page(
        request,
        actor,
        row,
        tab="rollouts",
        listing=Listing(request, rows, noun="rollout"),
    )


@require_safe
def rollout(request: HttpRequest, name: str, rollout: int) -> HttpResponse:
    actor, row = frame.find(request, name)
    found = get_object_or_404(selectors.rollouts(row), pk=rollout)
    events = list(found.events.all())
    return frame.page(
        request,
        actor,
        row,
        tab="rollouts",
        template="deployments/rollout.html",
        rollout=found,
        events=events,
        took_s=(found.finished_at - found.created_at).total_seconds() if found.finished_at else None,
        failing=[
            one | {"lines": [loglines.read(text) for text in one["log_tail"]]}
            for one in found.evidence.get("replicas", [])
        ],
        plan=found.plan,
        plan_counts=counts([Change.from_json(change) for change in found.plan]),
        after_label=f"Revision {found.to_revision.number}",
        rollout_path=f"/api/v1/deployments/{row.name}/rollouts/{found.pk}/",
        cancel_path=f"/api/v1/deployments/{row.name}/rollouts/{found.pk}/cancel/",
        may_cancel=found.state in CANCELLABLE,
    )


@require_POST
def cancel(request: HttpRequest, name: str, rollout: int) -> HttpResponse:
    actor, row = frame.find(request, name)
    found = get_object_or_404(selectors.rollouts(row), pk=rollout)
    try:
        services.cancel_rollout(actor, found)
    except SlipwayError as error:
        return refusals.back(request, error, reverse("deployments:rollout", args=[row.name, rollout]))
    return frame.done(request, row, "rollout", found.message, rollout)
