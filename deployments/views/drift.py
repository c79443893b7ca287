"""What others changed of the deployment in its cluster, and what to do about it."""

from typing import Any

from django.contrib import messages
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.urls import reverse
from django.views.decorators.http import require_POST, require_safe

from controlplane.core import refusals
from controlplane.core.errors import SlipwayError
from deployments import drift as verbs
from deployments.domain import drift as words
from deployments.domain.drift import Drift
from deployments.models import Deployment
from deployments.views import frame

PART = "summary"
"""What the overview asks for once it is there, so that it does not wait for the cluster."""


@require_safe
def drift(request: HttpRequest, name: str) -> HttpResponse:
    actor, row = frame.find(request, name)
    if not row.target.is_cluster:
        raise Http404
    part = request.GET.get("part") == PART
    found: tuple[Drift, ...] = ()
    unreachable = None
    try:
        found = verbs.look(row)
    except SlipwayError as error:
        unreachable = error
    return frame.page(
        request,
        actor,
        row,
        tab="drift",
        template=f"deployments/drift.html#{PART}" if part else "",
        status=unreachable.status if unreachable and not part else 200,
        found=[_shown(one) for one in found],
        owners=sorted({one.owner or "somebody" for one in found}),
        unreachable=unreachable,
        drift_path=f"/api/v1/deployments/{row.name}/drift/",
        **_taking_over(row, found),
    )


def _shown(one: Drift) -> dict[str, Any]:
    return {
        "one": one,
        "ours": words.shown(one.ours),
        "live": words.shown(one.live),
        "can_be_taken": words.can_be_taken(one),
    }


def _taking_over(row: Deployment, found: tuple[Drift, ...]) -> dict[str, Any]:
    """What “take over” would do, in words and as the API's body; nothing where it can do nothing."""
    spec, size = verbs.taken(row, found), words.size(found)
    if (spec is None and size is None) or row.live_revision is None:
        return {"taking": ""}
    hpa = spec.hpa() if spec else None
    parts = []
    if hpa is not None:
        parts.append(f"adds a revision with their bounds, {hpa.min_replicas} to {hpa.max_replicas} replicas")
    if size is not None:
        parts.append(f"takes their size, {size} replicas, as the deployment's")
    variant = row.live_revision.variant
    body = {
        "model": variant.version.model.name,
        "version": variant.version.number,
        "variant": variant.number,
        "spec": spec.to_json() if spec else {},
    }
    return {"taking": " and ".join(parts), "body": body if spec else None}


@require_POST
def put_back(request: HttpRequest, name: str) -> HttpResponse:
    actor, row = frame.find(request, name)
    try:
        found = verbs.put_back(actor, row)
    except SlipwayError as error:
        return refusals.back(request, error, reverse("deployments:drift", args=[row.name]))
    said = (
        f"{len(found)} field{'' if len(found) == 1 else 's'} put back." if found else "Nothing had changed."
    )
    return frame.done(request, row, "drift", said)


@require_POST
def take_over(request: HttpRequest, name: str) -> HttpResponse:
    """To the plan of the revision that it made; nothing is rolled out before that was seen."""
    actor, row = frame.find(request, name)
    try:
        revision = verbs.take_over(actor, row)
    except SlipwayError as error:
        return refusals.back(request, error, reverse("deployments:drift", args=[row.name]))
    if revision is None:
        return frame.done(request, row, "drift", "Their size is the deployment's now.")
    messages.success(
        request, f"Revision {revision.number} says what the cluster has. Roll it out to settle it."
    )
    return redirect(reverse("deployments:plan", args=[row.name, revision.number]))
