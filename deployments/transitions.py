"""Every change of a rollout's state, with its event row; and the outbox of the reconciler."""

from collections.abc import Mapping
from datetime import timedelta
from functools import partial
from typing import Any

import structlog
from django.db import transaction
from django.db.models.functions import Now

from controlplane.core import bus, transitions
from deployments.domain.rollouts import EDGES, RolloutState
from deployments.models import Deployment, Rollout, RolloutEvent

log = structlog.get_logger(__name__)

FINAL = {RolloutState.SUCCEEDED, RolloutState.ROLLED_BACK, RolloutState.FAILED, RolloutState.CANCELLED}


def move_rollout(
    rollout: Rollout,
    *,
    to: RolloutState,
    message: str,
    evidence: Mapping[str, Any] | None = None,
    only_from: list[str] | None = None,
) -> bool:
    """Returns whether it moved. `message` is the sentence that the page shows; `evidence` replaces what was kept."""
    changes: dict[str, Any] = {"message": message}
    if evidence is not None:
        changes["evidence"] = dict(evidence)
    if to in FINAL:
        changes["finished_at"] = Now()
    if to in {RolloutState.RUNNING, RolloutState.ROLLING_BACK}:
        changes["progressed_at"] = Now()
    with transaction.atomic():
        moved = transitions.move(
            Rollout.objects.filter(pk=rollout.pk),
            edges=EDGES,
            to=to,
            changes=changes,
            only_from=only_from,
            record=lambda: record(rollout, kind=to, message=message),
        )
        if moved:
            rollout.state = to
            rollout.message = message
    return moved


def record(rollout: Rollout, *, kind: str, message: str, data: Mapping[str, Any] | None = None) -> None:
    deployment = rollout.deployment
    RolloutEvent.objects.create(rollout_id=rollout.pk, kind=kind, message=message, data=dict(data or {}))
    announce(deployment)
    transaction.on_commit(partial(log.info, message, deployment=deployment.key, rollout=rollout.pk))


def announce(deployment: Deployment) -> None:
    bus.publish(f"deployment:{deployment.pk}", "deployments", team_id=deployment.team_id)


def request_reconcile(deployment_id: int, *, after_s: float = 0) -> None:
    """Makes the deployment due; the dispatcher sends its reconciler there."""
    due = Now() + timedelta(seconds=after_s) if after_s else Now()
    Deployment.objects.filter(pk=deployment_id).update(reconcile_after=due)
    bus.wake_dispatcher(bus.Due.RECONCILES)
