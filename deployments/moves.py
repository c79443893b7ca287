"""What a rollout asks its target for next, on targets of both kinds: those whose replicas we count out one by one, and
those that roll and scale by themselves."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from deployments.domain.cluster_strategy import Part, Places, next_places, steady_places
from deployments.domain.rolling import Count
from deployments.domain.spec import RevisionSpec
from deployments.domain.strategy import Phase, Share, Situation, StepState, next_move, steady
from deployments.domain.workload import DesiredDeployment, ReplicaState, ReplicaStatus, TargetStatus
from deployments.models import Deployment, Revision, Rollout
from deployments.targets.port import Target


@dataclass(frozen=True, kw_only=True)
class Move:
    """`parts` are asked for, then `state` is kept with the rollout."""

    parts: tuple[Part, ...]
    phase: Phase
    state: StepState
    share: Share | None = None


def counts(live: DesiredDeployment | None, seen: TargetStatus | None) -> dict[int, Count]:
    """By revision, also of those that are not wished for and still run."""
    asked: dict[int, int] = {}
    for workload in live.workloads if live else ():
        asked[workload.revision] = asked.get(workload.revision, 0) + workload.replicas
    running = {one.revision for one in seen.replicas} if seen else set()
    return {
        revision: Count(
            asked=asked.get(revision, 0),
            ready=seen.ready(revision) if seen else 0,
            present=sum(one.revision == revision for one in seen.replicas) if seen else 0,
        )
        for revision in asked.keys() | running
    }


def of_rollout(
    deployment: Deployment,
    rollout: Rollout,
    target: Target,
    seen: TargetStatus | None,
    *,
    now: datetime,
    back: bool,
) -> Move:
    live = target.desired(deployment.key)
    policy = RevisionSpec.from_json(rollout.to_revision.spec).rollout
    state = step_of(rollout)
    to = rollout.to_revision.number
    stable = rollout.from_revision.number if rollout.from_revision is not None else None
    if target.rolls:
        places = _places(
            deployment,
            live,
            seen,
            policy_of=rollout.to_revision,
            to=to,
            stable=stable,
            now=now,
            state=state,
            back=back,
        )
        moved = next_places(places)
        return Move(parts=moved.parts, phase=moved.phase, state=moved.state, share=moved.share)
    move = next_move(
        Situation(
            policy=policy,
            to=to,
            stable=stable,
            wanted=deployment.replicas,
            counts=counts(live, seen),
            now=now,
            traffic=_traffic(live),
            state=state,
            back=back,
        )
    )
    return Move(parts=_parts(move.counts, move.weights), phase=move.phase, state=move.state, share=move.share)


def step_of(rollout: Rollout) -> StepState:
    return StepState.from_json({name: value for name, value in rollout.step.items() if name != "share"})


def of_steady(
    deployment: Deployment,
    live_revision: Revision,
    target: Target,
    seen: TargetStatus | None,
    *,
    now: datetime,
) -> tuple[Part, ...]:
    """The live revision alone. What else serves goes as a rollout takes it away: when that one is ready."""
    if target.rolls:
        return steady_places(live_revision.number, deployment.replicas)
    live = target.desired(deployment.key)
    move = steady(
        Situation(
            policy=RevisionSpec.from_json(live_revision.spec).rollout,
            to=live_revision.number,
            stable=None,
            wanted=deployment.replicas,
            counts=counts(live, seen),
            now=now,
            traffic=_traffic(live),
        )
    )
    return _parts(move.counts, move.weights)


def _parts(counts: Mapping[int, int], weights: Mapping[int, int] | None) -> tuple[Part, ...]:
    return tuple(
        Part(revision=revision, replicas=number, weight=weights.get(revision) if weights else None)
        for revision, number in sorted(counts.items())
    )


def _traffic(live: DesiredDeployment | None) -> dict[int, int] | None:
    weights = {one.revision: one.weight for one in live.workloads} if live else {}
    known = {revision: weight for revision, weight in weights.items() if weight is not None}
    return known or None


def _places(
    deployment: Deployment,
    live: DesiredDeployment | None,
    seen: TargetStatus | None,
    *,
    policy_of: Revision,
    to: int,
    stable: int | None,
    now: datetime,
    state: StepState,
    back: bool,
) -> Places:
    spec = RevisionSpec.from_json(policy_of.spec)
    workloads = live.workloads if live else ()
    main = next((one for one in workloads if not one.candidate), None)
    beside = next((one for one in workloads if one.candidate), None)
    running = [one for one in seen.replicas if one.state is not ReplicaState.DRAINING] if seen else []
    in_main = [one for one in running if not one.candidate]
    return Places(
        policy=spec.rollout,
        to=to,
        stable=stable,
        wanted=deployment.replicas,
        main=main.revision if main else None,
        main_ready=_ready(in_main, main.revision if main else None),
        settled=seen is not None
        and seen.rolled
        and all(main is not None and one.revision == main.revision for one in in_main),
        now=now,
        beside=Part(revision=beside.revision, replicas=beside.replicas, candidate=True, weight=beside.weight)
        if beside
        else None,
        beside_ready=_ready([one for one in running if one.candidate], beside.revision if beside else None),
        weighted=spec.cluster is not None and spec.cluster.route is not None,
        state=state,
        back=back,
    )


def _ready(replicas: Sequence[ReplicaStatus], revision: int | None) -> int:
    return sum(one.state is ReplicaState.READY and one.revision == revision for one in replicas)
