"""Whether a canary's step has proved itself: judged on what both revisions did in the same window.

What was judged is kept with the rollout either way, so that a step that failed at 3 a.m. shows in the morning why.
"""

from datetime import datetime

from django.db import transaction

from deployments import moves, transitions
from deployments.domain.canary import StepOutcome, StepVerdict, judge
from deployments.domain.rollouts import RolloutState
from deployments.domain.spec import RevisionSpec
from deployments.domain.strategy import StepState
from deployments.models import Deployment, Rollout
from deployments.telemetry import evidence

LOOK_AGAIN_S = 5.0


def judge_step(deployment: Deployment, rollout: Rollout, move: moves.Move, *, now: datetime) -> float:
    """Passes on to the next step, goes back, or stops for a person; returns after how many seconds to look again."""
    policy = RevisionSpec.from_json(rollout.to_revision.spec).rollout
    step, since = policy.steps[move.state.index], move.state.since
    if since is None or rollout.from_revision is None:
        return LOOK_AGAIN_S
    found = evidence.between(
        deployment.pk,
        stable=rollout.from_revision.number,
        canary=rollout.to_revision.number,
        since=since,
        until=now,
    )
    verdict = judge(found, gate=policy.gate, min_requests=step.min_requests, pause_s=step.pause_s)
    _keep(rollout, verdict, index=move.state.index)
    match verdict.state:
        case StepOutcome.PASSED:
            _go_on(rollout, move.state.next_step(), f"Step {move.state.index + 1} passed. {verdict.sentence}")
            return 0.0
        case StepOutcome.FAILED:
            transitions.move_rollout(rollout, to=RolloutState.ROLLING_BACK, message=verdict.sentence)
            return 0.0
        case StepOutcome.UNDECIDED:
            transitions.move_rollout(rollout, to=RolloutState.PAUSED, message=verdict.sentence)
    return LOOK_AGAIN_S


def promote(rollout: Rollout, *, by: str) -> bool:
    """A person's word instead of the gate's. False where its step was left meanwhile."""
    state = moves.step_of(rollout)
    return _go_on(rollout, state.next_step(), f"{by} let step {state.index + 1} pass without its gate.")


def _go_on(rollout: Rollout, state: StepState, message: str) -> bool:
    with transaction.atomic():
        same = Rollout.objects.filter(pk=rollout.pk, state=rollout.state, step=rollout.step)
        if not same.update(step=state.to_json()):
            return False
        rollout.step = state.to_json()
        transitions.record(rollout, kind="step", message=message)
    return True


def judged(rollout: Rollout) -> dict[str, object]:
    """What of a rollout's evidence stays when it is turned round: the verdicts on its steps."""
    return {name: value for name, value in rollout.evidence.items() if name == "steps"}


def _keep(rollout: Rollout, verdict: StepVerdict, *, index: int) -> None:
    """By step; the last word on each."""
    steps = dict(rollout.evidence.get("steps") or {}) | {str(index): verdict.to_json()}
    rollout.evidence = rollout.evidence | {"steps": steps}
    if Rollout.objects.filter(pk=rollout.pk, state=rollout.state).update(evidence=rollout.evidence):
        transitions.announce(rollout.deployment)
