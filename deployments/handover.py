"""From what others run to what Slipway runs, and back: the steps after a take-over's rollout, and the way home.

Each step is a state of `ImportedFrom`; what it writes is repeatable, so a worker that dies in it is followed by
another. A rollout that takes over has nothing to go back to until it has succeeded: nothing of others was touched.
"""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace

from django.db import transaction
from django.db.models import F
from django.db.models.functions import Now

from controlplane.accounts.access import Actor
from controlplane.accounts.models import Role
from controlplane.core import transitions as guarded
from controlplane.core.clock import database_now
from controlplane.core.errors import Conflict, NotFound
from deployments import targets, trail, transitions
from deployments.domain.origin import EDGES, OURS, Handover, Stage
from deployments.domain.workload import TargetStatus
from deployments.models import Deployment, ImportedFrom
from deployments.selectors import active_rollout, imported_from
from deployments.targets.port import SharedTarget, Target

DRAIN_S = 10.0
"""Until every node has heard that a Service leads elsewhere, and what was begun before has ended."""
SOON_S = 1.0


def observe(deployment: Deployment, target: Target) -> TargetStatus | None:
    """What others run, of a deployment that is read-only; None where they run it no more."""
    imported = imported_from(deployment)
    if imported is None or not isinstance(target, SharedTarget):
        return None
    try:
        return target.origins.observe(imported.value, key=deployment.key)
    except NotFound:
        return None


def logs(deployment: Deployment, *, replica: str, tail: int) -> tuple[str, ...]:
    """Of a replica that others run. Raises NotFound."""
    imported, target = imported_from(deployment), targets.of(deployment.target)
    assert imported is not None
    assert isinstance(target, SharedTarget)
    return target.origins.logs(imported.value, replica=replica, tail=tail)


def plan(deployment: Deployment, target: Target) -> Handover | None:
    """What rolling out would change of others' objects; None where it is no take-over. Raises NotFound where there is
    nothing left to be taken over."""
    imported = imported_from(deployment)
    if imported is None or imported.state != Stage.READ_ONLY or not isinstance(target, SharedTarget):
        return None
    return target.origins.plan(imported.value, key=deployment.key)


def begin(deployment: Deployment) -> None:
    """After the rollout that takes over has succeeded, in its transaction."""
    if imported_from(deployment) is not None:
        _move(deployment, Stage.DIVERTING)


def give_back(actor: Actor, deployment: Deployment) -> None:
    """The way home, while Slipway's replicas serve on. Raises Conflict where it was not taken over, while a rollout is
    under way, and where the Deployment of others is gone."""
    actor.require(Role.ENGINEER)
    imported, target = imported_from(deployment), targets.of(deployment.target)
    if imported is None or imported.state not in OURS or not isinstance(target, SharedTarget):
        raise Conflict(
            "not_taken_over", f"“{deployment.name}” was not taken over.", "Nothing is to give back."
        )
    if active_rollout(deployment) is not None:
        raise Conflict(
            "rollout_active",
            f"A rollout of “{deployment.name}” is under way.",
            "Wait for it, or cancel it first.",
        )
    try:
        target.origins.observe(imported.value, key=deployment.key)
    except NotFound as error:
        raise Conflict("origin_gone", f"“{imported.name}” cannot be given back to.", error.title) from error
    with transaction.atomic():
        # A writer that still leads callers here has an older generation then.
        Deployment.objects.filter(pk=deployment.pk).update(generation=F("generation") + 1)
        if not _move(deployment, Stage.RETURNING):
            raise Conflict("not_taken_over", "It was given back meanwhile.", "Look at it again.")
        trail.record(actor, "gave back", deployment, details={"to": imported.name})
        transitions.request_reconcile(deployment.pk)


def follow(deployment: Deployment, target: Target) -> None:
    """After a step of a rollout: the callers that were led here go where the deployment's own go."""
    imported = imported_from(deployment)
    if imported is not None and imported.state in OURS and isinstance(target, SharedTarget):
        target.origins.divert(imported.value, key=deployment.key, generation=deployment.generation)


def refuse_under_way(deployment: Deployment) -> None:
    """Raises Conflict while callers are being led from one side to the other."""
    imported = imported_from(deployment)
    if imported is not None and imported.state not in (Stage.READ_ONLY, Stage.TAKEN):
        raise Conflict(
            "handover_under_way",
            f"Callers of “{deployment.name}” are being led over.",
            f"It is {imported.get_state_display().lower()}. Wait until that is done.",
        )


def is_leaving(deployment: Deployment) -> bool:
    """Whether what is missing of Slipway's own is missing because it was taken away."""
    imported = imported_from(deployment)
    return imported is not None and imported.state == Stage.LEAVING


def step(deployment: Deployment, target: Target) -> float | None:
    """One step, and after how many seconds to look again; None where there is nothing to do."""
    imported = imported_from(deployment)
    if imported is None or not isinstance(target, SharedTarget):
        return None
    work = _STEPS.get(Stage(imported.state))
    return work(imported, deployment, target) if work is not None else None


def _divert(imported: ImportedFrom, deployment: Deployment, target: SharedTarget) -> float:
    """Where the Services led is noted before the first of them leads elsewhere."""
    origin = imported.value
    if not origin.services:
        with suppress(NotFound):  # what is deleted has no Services that could be noted
            origin = replace(origin, services=target.origins.services(origin))
        ImportedFrom.objects.filter(pk=imported.pk).update(origin=origin.to_json())
    target.origins.divert(origin, key=deployment.key, generation=deployment.generation)
    _move(deployment, Stage.DRAINING)
    return DRAIN_S


def _stop_theirs(imported: ImportedFrom, deployment: Deployment, target: SharedTarget) -> float:
    if (left_s := _drains_for_s(imported)) > 0:
        return left_s
    with suppress(NotFound):  # what is deleted has no replicas
        target.origins.resize(imported.value, 0, key=deployment.key, generation=deployment.generation)
    _move(deployment, Stage.TAKEN)
    return SOON_S


def _bring_back(imported: ImportedFrom, deployment: Deployment, target: SharedTarget) -> float:
    """Its replicas before its callers. One that is deleted meanwhile leaves everything where it is."""
    origin, key, generation = imported.value, deployment.key, deployment.generation
    try:
        seen = target.origins.observe(origin, key=key)
    except NotFound as error:
        _move(deployment, Stage.TAKEN, note=error.title)
        return SOON_S
    if not seen.wanted and origin.replicas:
        target.origins.resize(origin, origin.replicas, key=key, generation=generation)
        return SOON_S
    if seen.ready() < (seen.wanted or 0):
        return SOON_S
    target.origins.restore(origin, key=key, generation=generation)
    _move(deployment, Stage.LEAVING)
    return DRAIN_S


def _take_ours_away(imported: ImportedFrom, deployment: Deployment, target: SharedTarget) -> float:
    if (left_s := _drains_for_s(imported)) > 0:
        return left_s
    target.delete(deployment.key)
    with transaction.atomic():
        if _move(deployment, Stage.READ_ONLY):
            # Noted anew when it is taken over once more.
            origin = replace(imported.value, services=())
            ImportedFrom.objects.filter(pk=imported.pk).update(origin=origin.to_json())
            Deployment.objects.filter(pk=deployment.pk).update(live_revision=None)
    return SOON_S


_STEPS: dict[Stage, Callable[[ImportedFrom, Deployment, SharedTarget], float]] = {
    Stage.DIVERTING: _divert,
    Stage.DRAINING: _stop_theirs,
    Stage.RETURNING: _bring_back,
    Stage.LEAVING: _take_ours_away,
}


def _drains_for_s(imported: ImportedFrom) -> float:
    return DRAIN_S - (database_now() - imported.moved_at).total_seconds()


def _move(deployment: Deployment, stage: Stage, *, note: str = "") -> bool:
    return guarded.move(
        ImportedFrom.objects.filter(deployment=deployment),
        edges=EDGES,
        to=stage,
        changes={"moved_at": Now(), "note": note},
        record=lambda: transitions.announce(deployment),
    )
