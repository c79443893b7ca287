"""Queries about deployments, each deciding once what it fetches."""

from collections.abc import Iterable, Mapping
from typing import Any

from django.db.models import Prefetch, QuerySet

from controlplane.accounts.access import Actor
from deployments.domain.rollouts import ACTIVE, Health, health
from deployments.domain.workload import ReplicaState, TargetStatus
from deployments.models import Deployment, Revision, Rollout

ACTIVE_STATES = [str(state) for state in ACTIVE]


def deployments(actor: Actor) -> QuerySet[Deployment]:
    """A team's deployments with what a row needs: target, live revision and variant, active rollout."""
    active = Rollout.objects.filter(state__in=ACTIVE_STATES).select_related("to_revision", "created_by")
    return (
        Deployment.objects.in_team(actor.team)
        .select_related("team", "target", "live_revision__variant__version__model")
        .prefetch_related(Prefetch("rollouts", queryset=active, to_attr="active_rollouts"))
    )


def revisions(deployment: Deployment) -> QuerySet[Revision]:
    return deployment.revisions.select_related("variant__version__model", "created_by")


def rollouts(deployment: Deployment) -> QuerySet[Rollout]:
    return deployment.rollouts.select_related("deployment", "from_revision", "to_revision", "created_by")


def active_rollout(deployment: Deployment) -> Rollout | None:
    prefetched = getattr(deployment, "active_rollouts", None)
    if prefetched is not None:
        return prefetched[0] if prefetched else None
    active = deployment.rollouts.filter(state__in=ACTIVE_STATES)
    return active.select_related("to_revision", "from_revision", "created_by").first()


def status(deployment: Deployment) -> TargetStatus | None:
    """What was last observed; its age is `deployment.observed_at`."""
    return TargetStatus.from_json(deployment.observed) if deployment.observed else None


def health_of(deployment: Deployment) -> Health:
    seen = status(deployment)
    return health(
        removing=deployment.removing,
        reachable=deployment.unreachable_since is None,
        has_revision=deployment.live_revision_id is not None,
        rollout_active=active_rollout(deployment) is not None,
        wanted=deployment.replicas if deployment.live_revision_id else 0,
        ready=seen.ready() if seen else 0,
    )


def failing_replicas(seen: TargetStatus) -> list[Mapping[str, Any]]:
    """Reason and last log lines of what is not ready, for the page and for a rollout's evidence."""
    return [
        {"replica": one.name, "revision": one.revision, "reason": one.reason, "log_tail": list(one.log_tail)}
        for one in seen.replicas
        if one.state is not ReplicaState.READY and (one.reason or one.log_tail)
    ]


def uses(variant_ids: list[int]) -> Iterable[str]:
    """For `registry.usage`: revisions of deployments that exist."""
    rows = Revision.objects.filter(variant__in=variant_ids).select_related("deployment")
    return [f"revision {row.number} of deployment “{row.deployment.name}” uses it" for row in rows]
