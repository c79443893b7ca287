"""What others changed of a deployment in its cluster, and the two answers to it: put back, or take over.

The cluster is asked now, and only here: never while an overview is made. Refused: taking over by itself, which would
make whoever edits last the author of a revision that nobody decided on.
"""

from dataclasses import replace

from django.db import transaction

from controlplane.accounts.access import Actor
from controlplane.accounts.models import Role
from controlplane.core.errors import Conflict
from deployments import services, targets, trail, transitions
from deployments.domain import drift
from deployments.domain.drift import Drift
from deployments.domain.spec import RevisionSpec
from deployments.models import Deployment, Revision
from deployments.selectors import active_rollout
from deployments.targets.port import SharedTarget


def look(deployment: Deployment) -> tuple[Drift, ...]:
    """Empty also for a target that nobody else writes to. Raises what the target raises: Unreachable, for one."""
    target = targets.of(deployment.target)
    return target.drift(deployment.key) if isinstance(target, SharedTarget) else ()


def put_back(actor: Actor, deployment: Deployment) -> tuple[Drift, ...]:
    """Writes what was applied over what others changed; returns what that was. Where nothing differs it does nothing.

    Raises Conflict while a rollout is active: it writes the same objects, and takes over what it needs by itself.
    """
    actor.require(Role.ENGINEER)
    _refuse_while_moving(deployment)
    target, found = targets.of(deployment.target), look(deployment)
    if not found or not isinstance(target, SharedTarget):
        return ()
    target.put_back(deployment.key)
    with transaction.atomic():
        _note(actor, deployment, found)
    return found


def taken(deployment: Deployment, found: tuple[Drift, ...]) -> RevisionSpec | None:
    """The live revision's spec with their bounds of autoscaling; None where they did not change any."""
    bounds, live = drift.bounds(found), deployment.live_revision
    if not bounds or live is None:
        return None
    spec = RevisionSpec.from_json(live.spec)
    return replace(spec, autoscaling=spec.autoscaling | bounds)


def take_over(actor: Actor, deployment: Deployment) -> Revision | None:
    """Makes theirs ours: their bounds as a new revision, which nothing rolls out yet, and their number of replicas as
    the deployment's. What else they changed no revision can say: raises Conflict where there is only that.
    """
    actor.require(Role.ENGINEER)
    _refuse_while_moving(deployment)
    found = look(deployment)
    spec, replicas, live = taken(deployment, found), drift.size(found), deployment.live_revision
    if (spec is None and replicas is None) or live is None:
        raise Conflict(
            "drift_not_expressible",
            "Nothing that was changed can be taken over.",
            "A revision says bounds of autoscaling and a deployment its size; put the rest back, or leave it.",
        )
    with transaction.atomic():
        if replicas is not None:
            services.scale(actor, deployment, replicas=replicas)
        return services.add_revision(actor, deployment, variant=live.variant, spec=spec) if spec else None


def _refuse_while_moving(deployment: Deployment) -> None:
    if (rollout := active_rollout(deployment)) is not None:
        raise Conflict(
            "rollout_active",
            f"A rollout of “{deployment.name}” is under way.",
            "It writes the same objects and takes over what it needs. Wait for it, or cancel it first.",
            extra={"rollout": rollout.pk},
        )


def _note(actor: Actor, deployment: Deployment, found: tuple[Drift, ...]) -> None:
    """With which fields of whom: the values themselves may be long."""
    fields = [f"{one.object} {one.path}".strip() for one in found]
    owners = sorted({one.owner for one in found if one.owner})
    trail.record(
        actor, "put back what others changed of", deployment, details={"fields": fields, "owners": owners}
    )
    transitions.announce(deployment)
    transitions.request_reconcile(deployment.pk)
