"""What all pages of one deployment share: finding it through the team, its header, its tabs, and refusals.

A verb of a page is a POST that calls the API's own service and comes back by redirect; a refusal is shown as the
same sentence that the API says, on the page it was asked from, with its status.
"""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.urls import reverse

from controlplane.accounts.access import Actor, actor_of
from controlplane.accounts.models import Role
from controlplane.core import refusals
from controlplane.core.errors import SlipwayError
from deployments import selectors
from deployments.domain.plan import Finding, Severity
from deployments.domain.rollouts import Health, RolloutState
from deployments.domain.workload import ReplicaState, TargetStatus
from deployments.models import Deployment

TABS = (
    ("overview", "Overview", "deployment"),
    ("rollouts", "Rollouts", "rollouts"),
    ("revisions", "Revisions", "revisions"),
    ("scaling", "Scaling", "scaling"),
    ("logs", "Logs", "logs"),
    ("drift", "Drift", "drift"),
    ("settings", "Settings", "settings"),
)
ON_CLUSTERS = {"drift"}
"""Tabs of a deployment on a cluster alone."""

_SEVERITY = {Severity.ERROR: "blocking", Severity.WARNING: "warning", Severity.INFO: "info"}
_WORST_FIRST = list(_SEVERITY)


def now() -> datetime:
    return datetime.now(UTC)


def find(request: HttpRequest, name: str) -> tuple[Actor, Deployment]:
    actor = actor_of(request)
    return actor, get_object_or_404(selectors.deployments(actor), name=name)


def page(
    request: HttpRequest,
    actor: Actor,
    row: Deployment,
    *,
    tab: str,
    template: str = "",
    status: int = 200,
    **context: Any,
) -> HttpResponse:
    """A page of the deployment under `tab`."""
    seen = selectors.status(row)
    health = selectors.health_of(row)
    rollout = selectors.active_rollout(row)
    shared = {
        "deployment": row,
        "health": health,
        "detail": detail(row, health, seen),
        "seen": seen,
        "active": rollout,
        "imported": selectors.imported_from(row),
        "ready": seen.ready() if seen else 0,
        "wanted": row.replicas if row.live_revision_id or rollout else 0,
        "endpoint": endpoint(row, seen),
        "may_change": actor.may(Role.ENGINEER) and not row.removing,
        "tabs": [
            {"label": label, "url": reverse(f"deployments:{name}", args=[row.name]), "current": key == tab}
            for key, label, name in TABS
            if row.target.is_cluster or key not in ON_CLUSTERS
        ],
        "live_topic": f"deployment:{row.pk}",
        "metrics_topic": f"metrics:{row.pk}",
        "api": f"/api/v1/deployments/{row.name}/",
    }
    return render(request, template or f"deployments/{tab}.html", shared | context, status=status)


def endpoint(row: Deployment, seen: TargetStatus | None) -> str:
    """Where clients send inferences; empty while nothing has an address."""
    rollout = selectors.active_rollout(row)
    revision = row.live_revision or (rollout.to_revision if rollout else None)
    if seen is None or seen.address is None or revision is None:
        return ""
    return f"{seen.address}/v2/models/{revision.variant.version.model.name}/infer"


def detail(row: Deployment, health: Health, seen: TargetStatus | None) -> str:
    """What the badge means here, in a few words; empty where the word says it all."""
    if health is Health.UNREACHABLE:
        return "the target does not answer; what runs keeps running"
    if health is Health.READ_ONLY:
        return f"others run it, {seen.ready()} of {row.replicas} ready" if seen else "what others ran is gone"
    if health is Health.PENDING:
        return "nothing was rolled out yet"
    rollout = selectors.active_rollout(row)
    if rollout is not None:
        back = rollout.state == RolloutState.ROLLING_BACK and rollout.from_revision
        number = (back or rollout.to_revision).number
        there = seen.ready(number) if seen else 0
        return f"{there} of {row.replicas} of revision {number} ready"
    ready = seen.ready() if seen else 0
    if health is Health.DEGRADED or (health is Health.FAILED and row.live_revision_id):
        starting = sum(one.state is ReplicaState.STARTING for one in seen.replicas) if seen else 0
        more = f", {starting} starting" if starting else ""
        return f"{ready} of {row.replicas} ready{more}"
    return ""


def findings(found: tuple[Finding, ...]) -> list[dict[str, str]]:
    """Of a pre-flight or a test, as components/findings.html takes them."""
    return [
        {
            "severity": _SEVERITY[one.severity],
            "title": one.title,
            "evidence": one.evidence,
            "todo": one.action,
        }
        for one in sorted(found, key=lambda one: _WORST_FIRST.index(one.severity))
    ]


def done(request: HttpRequest, row: Deployment, to: str, said: str, *args: Any) -> HttpResponse:
    messages.success(request, said)
    return redirect(reverse(f"deployments:{to}", args=[row.name, *args]))


def show_key(request: HttpRequest, row: Deployment, key: str, *, onwards: str, label: str) -> HttpResponse:
    """The one page that says an endpoint's API key. `onwards` is where its button leads."""
    context = {"deployment": row, "key": key, "onwards": onwards, "label": label}
    shown = render(request, "deployments/key.html", context, status=201)
    shown["Cache-Control"] = "no-store"
    return shown


def attempt(
    request: HttpRequest, row: Deployment, work: Callable[[], object], *, to: str, said: str
) -> HttpResponse:
    """Runs one verb and goes to the tab `to`; a refusal is said there. For verbs without a form of their own."""
    try:
        work()
    except SlipwayError as error:
        return refusals.back(request, error, reverse(f"deployments:{to}", args=[row.name]))
    return done(request, row, to, said)
