"""One reconcile step: read the wish, observe, act once, record. Seconds at most, and safe to repeat.

One deployment in one worker at a time (an advisory lock); the generation is the fence towards the target.
The deployment row is the outbox: a step pushes `reconcile_after` ahead when it begins, so a worker that dies
in the middle is followed by another, and moves it to when the next look is due when it ends.
"""

import random
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from functools import partial
from typing import Any

import structlog
from django.db import connection, transaction
from django.db.models.functions import Now

from controlplane.core.clock import database_now
from controlplane.core.errors import NotFound, SlipwayError
from deployments import canaries, handover, moves, targets, transitions, wishes
from deployments.domain.cluster_strategy import Part
from deployments.domain.loglines import last_error
from deployments.domain.rollouts import RolloutState
from deployments.domain.spec import RevisionSpec
from deployments.domain.strategy import Phase
from deployments.domain.workload import DesiredDeployment, ReplicaState, ReplicaStatus, TargetStatus
from deployments.models import Deployment, Revision, Rollout
from deployments.selectors import ACTIVE_STATES, active_rollout, is_read_only
from deployments.targets.port import StaleGeneration, Target, Unreachable

log = structlog.get_logger(__name__)

STEP_LEASE_S = 5.0
"""After which a step that did not end is looked after. One that still goes on holds its lock, and is left alone."""
SOON_S = 0.3
RESYNC_S = 10.0
UNREACHABLE_S = 2.0
REFUSED_S = 5.0
CLUSTER_S = 3.0
"""A cluster is looked at when something moved in it, and else no oftener than this."""
ABSENT_S = 15.0
"""Longer than any regular pause between two looks or two steps: nobody was there."""
TAIL_LINES = 50


def reconcile(deployment_id: int) -> None:
    """Does nothing if another worker is at it: that one, or the next due step, sees the same rows."""
    with _alone(deployment_id) as alone:
        if not alone:
            return
        marker = database_now() + timedelta(seconds=STEP_LEASE_S)
        row = Deployment.objects.filter(pk=deployment_id)
        in_time = row.filter(reconcile_after__gte=Now() - timedelta(seconds=ABSENT_S))
        overdue = not in_time.update(reconcile_after=marker)
        if overdue and not row.update(reconcile_after=marker):
            return
        deployment = _read(deployment_id)
        if overdue:
            _forgive(deployment)
        delay_s = _step(deployment)
        Deployment.objects.filter(pk=deployment_id, reconcile_after=marker).update(
            reconcile_after=Now() + timedelta(seconds=delay_s)
        )


@contextmanager
def _alone(deployment_id: int) -> Iterator[bool]:
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_try_advisory_lock(hashtext('reconcile'), %s)", [deployment_id])
        row = cursor.fetchone()
        locked = bool(row and row[0])
        try:
            yield locked
        finally:
            if locked:
                cursor.execute("SELECT pg_advisory_unlock(hashtext('reconcile'), %s)", [deployment_id])


def _read(deployment_id: int) -> Deployment:
    return Deployment.objects.select_related("team", "target", "live_revision", "imported_from").get(
        pk=deployment_id
    )


def _step(deployment: Deployment) -> float:
    """Returns after how many seconds to look again."""
    target = targets.of(deployment.target)
    try:
        if is_read_only(deployment):
            return _look_only(deployment, target)
        seen = _observe(target, deployment)
        record_observation(deployment, seen)
        if deployment.removing:
            return _remove(deployment, target, seen)
        rollout = active_rollout(deployment)
        if rollout is None:
            if not handover.is_leaving(deployment):
                _apply_if_different(deployment, target, _steady(deployment, target, seen))
            return handover.step(deployment, target) or RESYNC_S
        return _advance(deployment, rollout, target, seen)
    except Unreachable as error:
        _unreachable(deployment, str(error))
        # Those that lost one target together must not come back together.
        return max(UNREACHABLE_S, error.retry_after_s or 0) * random.uniform(1, 1.3)  # noqa: S311
    except StaleGeneration as error:
        log.info("generation_behind", deployment=deployment.key, cause=error.detail)
        return SOON_S
    except SlipwayError as error:
        # A wish that cannot be made or is refused: what runs stays, and a rollout runs into its deadline.
        log.error("step_refused", deployment=deployment.key, code=error.code, cause=str(error))
        _note_refusal(deployment, str(error))
        return REFUSED_S


def _look_only(deployment: Deployment, target: Target) -> float:
    """At what others run. What a rollout left that failed to take it over goes."""
    record_observation(deployment, handover.observe(deployment, target))
    if target.desired(deployment.key) is not None:
        target.delete(deployment.key)
    return RESYNC_S


def _observe(target: Target, deployment: Deployment) -> TargetStatus | None:
    try:
        return target.observe(deployment.key)
    except NotFound:
        return None


def record_observation(deployment: Deployment, seen: TargetStatus | None) -> bool:
    """Keeps the last known state with its age, and tells open pages when it differs: then returns True.

    Where the target scales by itself, its size is the deployment's.
    """
    document = seen.to_json() if seen else {}
    before = {name: value for name, value in deployment.observed.items() if name != "observed_at"}
    changed = before != {name: value for name, value in document.items() if name != "observed_at"}
    row = Deployment.objects.filter(pk=deployment.pk)
    watched = row.filter(unreachable_since=None, observed_at__gte=Now() - timedelta(seconds=ABSENT_S))
    fields: dict[str, Any] = {"observed": document, "observed_at": Now(), "unreachable_since": None}
    if seen is not None and seen.wanted is not None:
        fields["replicas"] = deployment.replicas = seen.wanted
    with transaction.atomic():
        gap = not watched.update(**fields)
        if gap:
            row.update(**fields)
            _forgive(deployment)
        if changed or gap:
            transitions.announce(deployment)
    deployment.observed = document
    return changed or gap


def _forgive(deployment: Deployment) -> None:
    """While the target or all of us were away nothing could progress: the deadline counts from now."""
    deployment.rollouts.filter(state__in=ACTIVE_STATES).update(progressed_at=Now())


def _unreachable(deployment: Deployment, cause: str) -> None:
    if Deployment.objects.filter(pk=deployment.pk, unreachable_since=None).update(unreachable_since=Now()):
        log.warning("target_unreachable", deployment=deployment.key, cause=cause)
        transitions.announce(deployment)


def _steady(deployment: Deployment, target: Target, seen: TargetStatus | None) -> Sequence[Part]:
    live = deployment.live_revision
    return moves.of_steady(deployment, live, target, seen, now=database_now()) if live is not None else ()


def _apply_if_different(
    deployment: Deployment, target: Target, parts: Sequence[Part], *, rollout: Rollout | None = None
) -> bool:
    """Writes only if the target's wish differs. The new generation is in the row before the target sees it.

    A rollout was asked for by somebody who saw its plan, so it takes over what others wrote, and says so.
    """
    live = target.desired(deployment.key)
    if live is None and not any(part.replicas for part in parts):
        return False
    wanted = wishes.wish(deployment, parts, generation=live.generation if live else 0)
    if live is not None and _content(live.without_sizes()) == _content(wanted.without_sizes()):
        if target.rolls:
            target.apply(wanted)  # others may have taken an object away; and a size is no new generation
        return False
    generation = max(deployment.generation, live.generation if live else 0) + 1
    mine = Deployment.objects.filter(pk=deployment.pk, generation=deployment.generation)
    if not mine.update(generation=generation):
        raise StaleGeneration("stale_generation", "Somebody else wrote this deployment meanwhile.")
    deployment.generation = generation
    told = partial(transitions.record, rollout, kind="took_over") if rollout is not None else None
    target.apply(
        wishes.wish(deployment, parts, generation=generation),
        take_over=(lambda message: told(message=message)) if told is not None else None,
    )
    return True


def _content(wish: DesiredDeployment) -> dict[str, object]:
    return {name: value for name, value in wish.to_json().items() if name != "generation"}


def _advance(deployment: Deployment, rollout: Rollout, target: Target, seen: TargetStatus | None) -> float:
    if rollout.state == RolloutState.PENDING and not transitions.move_rollout(
        rollout, to=RolloutState.RUNNING, message=f"Rolling out revision {rollout.to_revision.number}."
    ):
        return SOON_S
    back = rollout.state == RolloutState.ROLLING_BACK
    goal = rollout.from_revision if back else rollout.to_revision
    if goal is None:
        transitions.move_rollout(rollout, to=RolloutState.FAILED, message=rollout.message)
        return SOON_S
    move = moves.of_rollout(deployment, rollout, target, seen, now=database_now(), back=back)
    if move.phase is Phase.FINISHED:
        return _complete(deployment, rollout, goal, back=back)
    _note_progress(rollout, goal, seen)
    if rollout.state == RolloutState.PAUSED and move.phase is Phase.MOVING:
        return RESYNC_S  # what a person holds goes no further; where it judges or holds it is kept as it is
    policy = RevisionSpec.from_json(goal.spec).rollout
    late = move.phase is Phase.MOVING and _is_late(rollout, policy.progress_deadline_s)
    if late:
        return _give_up(deployment, rollout, goal, target, seen, deadline_s=policy.progress_deadline_s)
    _apply_if_different(deployment, target, move.parts, rollout=rollout)
    handover.follow(deployment, target)
    _keep_step(rollout, move)
    if "refused" in rollout.evidence:
        _keep(rollout, {name: value for name, value in rollout.evidence.items() if name != "refused"})
    if move.phase is Phase.JUDGING and rollout.state == RolloutState.RUNNING:
        return canaries.judge_step(deployment, rollout, move, now=database_now())
    return CLUSTER_S if target.rolls else SOON_S


def _keep_step(rollout: Rollout, move: moves.Move) -> None:
    """Once the target has it. A gate or a hold is no lateness: the deadline counts from its end."""
    step = move.state.to_json() | ({"share": move.share.to_json()} if move.share else {})
    fields: dict[str, Any] = {} if step == rollout.step else {"step": step}
    fields |= {"progressed_at": Now()} if move.phase in (Phase.JUDGING, Phase.HOLDING) else {}
    if fields:
        Rollout.objects.filter(pk=rollout.pk, state=rollout.state).update(**fields)
        rollout.step = step


def _complete(deployment: Deployment, rollout: Rollout, goal: Revision, *, back: bool) -> float:
    state = RolloutState.ROLLED_BACK if back else RolloutState.SUCCEEDED
    message = (
        f"Back on revision {goal.number}. {rollout.message}"
        if back
        else f"Revision {goal.number} serves all traffic."
    )
    with transaction.atomic():
        if not transitions.move_rollout(rollout, to=state, message=message):
            return SOON_S  # it was turned round meanwhile: the other revision is still the goal
        Deployment.objects.filter(pk=deployment.pk).update(live_revision=goal, hpa_state={})
        if not back:
            handover.begin(deployment)
    return RESYNC_S


def _note_progress(rollout: Rollout, goal: Revision, seen: TargetStatus | None) -> None:
    """Another replica became ready: say so, and let the deadline count from here."""
    ready = seen.ready(goal.number) if seen else 0
    best = rollout.evidence.get("ready", 0)
    if ready <= best:
        return
    message = f"{ready} of revision {goal.number} ready."
    with transaction.atomic():
        if _keep(rollout, rollout.evidence | {"ready": ready}, progressed_at=Now()):
            transitions.record(rollout, kind="progress", message=message, data={"ready": ready})


def _note_refusal(deployment: Deployment, sentence: str) -> None:
    """Kept, because what was refused leaves no replica that could say why none became ready."""
    rollout = active_rollout(deployment)
    if rollout is None or rollout.evidence.get("refused") == sentence:
        return
    with transaction.atomic():
        if _keep(rollout, rollout.evidence | {"refused": sentence}):
            transitions.record(rollout, kind="refused", message=sentence)


def _keep(rollout: Rollout, evidence: Mapping[str, Any], **fields: Any) -> bool:
    """Not once it was turned round: what was seen before belongs to the other direction."""
    rollout.evidence = dict(evidence)
    same = Rollout.objects.filter(pk=rollout.pk, state=rollout.state)
    return bool(same.update(evidence=rollout.evidence, **fields))


def _is_late(rollout: Rollout, deadline_s: float) -> bool:
    late = Rollout.objects.filter(pk=rollout.pk, progressed_at__lt=Now() - timedelta(seconds=deadline_s))
    return bool(late.exists())


def _give_up(
    deployment: Deployment,
    rollout: Rollout,
    goal: Revision,
    target: Target,
    seen: TargetStatus | None,
    *,
    deadline_s: int,
) -> float:
    """The deadline passed: back to the old revision, which never stopped serving. Without one, failed."""
    failing = _failing(target, goal, seen)
    complaint = seen.complaint if seen else ""
    reasons = [rollout.evidence.get("refused"), complaint, *(one["reason"] for one in failing)]
    why = next((reason for reason in reasons if reason), "no replica became ready")
    message = f"Not ready within {deadline_s} s: {why.rstrip('.')}."
    evidence = canaries.judged(rollout) | {"replicas": [*rollout.evidence.get("replicas", ()), *failing]}
    if rollout.state == RolloutState.RUNNING and rollout.from_revision_id is not None:
        transitions.move_rollout(rollout, to=RolloutState.ROLLING_BACK, message=message, evidence=evidence)
        return 0.0
    transitions.move_rollout(rollout, to=RolloutState.FAILED, message=message, evidence=evidence)
    if rollout.from_revision_id is None:
        _apply_if_different(deployment, target, [Part(revision=rollout.to_revision.number, replicas=0)])
    return SOON_S


def _failing(target: Target, goal: Revision, seen: TargetStatus | None) -> list[Mapping[str, Any]]:
    """Of the revision that should have become ready: what its other replicas say, with their last log lines."""
    return (
        [
            _said(one, one.log_tail or _last_lines(target, seen.key, one.name))
            for one in seen.replicas
            if one.revision == goal.number and one.state not in (ReplicaState.READY, ReplicaState.DRAINING)
        ]
        if seen
        else []
    )


def _said(one: ReplicaStatus, tail: Sequence[str]) -> Mapping[str, Any]:
    reason = ": ".join(part for part in (one.reason, last_error(tail)) if part)
    return {"replica": one.name, "revision": one.revision, "reason": reason, "log_tail": list(tail)}


def _last_lines(target: Target, key: str, replica: str) -> tuple[str, ...]:
    """A replica that hangs has not ended, so the target has kept nothing of it and must be asked. Where it cannot
    tell (the replica's node may be gone), going back does not wait for that."""
    try:
        return target.logs(key, replica=replica, tail=TAIL_LINES)
    except SlipwayError:
        return ()


def _remove(deployment: Deployment, target: Target, seen: TargetStatus | None) -> float:
    target.delete(deployment.key)
    if seen is not None and seen.replicas:
        return SOON_S
    with transaction.atomic():
        transitions.announce(deployment)
        Deployment.objects.filter(pk=deployment.pk).update(live_revision=None)
        deployment.delete()
    return RESYNC_S
