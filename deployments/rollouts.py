"""What a person can do to a rollout that is under way, besides cancelling it."""

from django.db import transaction

from controlplane.accounts.access import Actor
from controlplane.accounts.models import Role
from controlplane.core.errors import Conflict
from deployments import canaries, moves, trail, transitions
from deployments.domain.rollouts import RolloutState
from deployments.domain.spec import RevisionSpec, Strategy
from deployments.domain.strategy import StepState
from deployments.models import Rollout


def pause(actor: Actor, rollout: Rollout) -> Rollout:
    """Nothing moves further; what serves goes on serving, and autoscaling goes on. Conflict when it is not running."""
    actor.require(Role.ENGINEER)
    with transaction.atomic():
        if not transitions.move_rollout(
            rollout,
            to=RolloutState.PAUSED,
            message=f"Paused by {actor.user or 'Slipway'}.",
            only_from=[RolloutState.RUNNING],
        ):
            raise _not_so(rollout, "paused", "Only a running rollout can be paused.")
        _note(actor, "paused a rollout of", rollout)
    return rollout


def resume(actor: Actor, rollout: Rollout) -> Rollout:
    """Goes on where it stopped; a canary's step collects its evidence anew. Conflict when it is not paused."""
    actor.require(Role.ENGINEER)
    with transaction.atomic():
        if not transitions.move_rollout(
            rollout,
            to=RolloutState.RUNNING,
            message=f"Resumed by {actor.user or 'Slipway'}.",
            only_from=[RolloutState.PAUSED],
        ):
            raise _not_so(rollout, "resumed", "Only a paused rollout can be resumed.")
        step = StepState(index=moves.step_of(rollout).index)
        Rollout.objects.filter(pk=rollout.pk).update(step=step.to_json())
        _note(actor, "resumed a rollout of", rollout)
        transitions.request_reconcile(rollout.deployment_id)
    return rollout


def promote(actor: Actor, rollout: Rollout) -> Rollout:
    """Lets a canary's step pass by a person's word. Conflict where no step waits for its gate."""
    actor.require(Role.ENGINEER)
    policy = RevisionSpec.from_json(rollout.to_revision.spec).rollout
    under_way = rollout.state in (RolloutState.RUNNING, RolloutState.PAUSED)
    if policy.strategy is not Strategy.CANARY or not under_way or not _in_a_step(rollout, len(policy.steps)):
        raise _not_so(rollout, "promoted", "Only a canary that is in one of its steps can be promoted.")
    with transaction.atomic():
        if not canaries.promote(rollout, by=str(actor.user or "Slipway")):
            raise _not_so(rollout, "promoted", "Its step was left meanwhile; look at it again.")
        if rollout.state == RolloutState.PAUSED:
            transitions.move_rollout(rollout, to=RolloutState.RUNNING, message="Promoted.")
        _note(actor, "promoted a canary of", rollout)
        transitions.request_reconcile(rollout.deployment_id)
    return rollout


def _in_a_step(rollout: Rollout, steps: int) -> bool:
    return moves.step_of(rollout).index < steps


def _not_so(rollout: Rollout, what: str, why: str) -> Conflict:
    rollout.refresh_from_db(fields=["state"])
    return Conflict(
        f"rollout_not_{what}",
        f"This rollout cannot be {what}.",
        f"It is {rollout.get_state_display().lower()}. {why}",
    )


def _note(actor: Actor, verb: str, rollout: Rollout) -> None:
    trail.record(actor, verb, rollout.deployment, details={"rollout": rollout.pk})
