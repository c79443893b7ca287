"""What a rollout asks for next: replicas and traffic by revision, by its strategy.

Level-triggered: everything follows from what is asked, ready and routed now. Only two things cannot be seen and
are kept with the rollout: which step it is at, and since when (`StepState`). A step is left by one act alone,
`StepState.next_step`, when its gate is passed; so a rollout that is held is simply planned again with the state
it has, and autoscaling goes on in it.

In order, and each only when the one before it is seen: replicas come up, traffic follows them, what has no
traffic goes. The most that is asked for in all is `most_replicas`.

Weights are percent by revision; None lets every ready replica take the same share. Where a target cannot split
traffic by weight, a canary goes by its number of replicas, which is coarse and said (`Share`). Blue/green needs
only all or nothing, which a Service's selector can do.

Refused: keeping the stable revision at full size beside every canary. Going back would be instant, but a step
of 50 % would cost half as many replicas again; who wants that takes blue/green.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum

from deployments.domain.rolling import Count, finished, next_counts
from deployments.domain.spec import CanaryStep, RolloutPolicy, Strategy
from deployments.domain.wire import Document, refuse

NONE = Count(asked=0, ready=0)
ALL = 100

type Weights = Mapping[int, int]


class Phase(StrEnum):
    """What is waited for: replicas (the progress deadline counts), a gate, the end of the hold, or nothing."""

    MOVING = "moving"
    JUDGING = "judging"
    HOLDING = "holding"
    FINISHED = "finished"


@dataclass(frozen=True, kw_only=True)
class StepState(Document):
    """What the rollout's row keeps. `since`: when the step's traffic was first seen to be as it shall be, from
    which the evidence is collected; for blue/green, when all traffic was first seen to have moved."""

    index: int = 0
    since: datetime | None = None

    def __post_init__(self) -> None:
        if self.index < 0:
            raise refuse("step.index", "cannot be negative")

    def next_step(self) -> "StepState":
        """The gate was passed."""
        return StepState(index=self.index + 1)


@dataclass(frozen=True, kw_only=True)
class Situation:
    """All that is seen when a rollout from `stable` to `to` is looked at; `back` while it is rolled back.

    `traffic` are the weights that the target has now, None where it goes by replicas. `weighted`: the target
    can split traffic in any proportion. `policy` is that of revision `to`, also on the way back.
    """

    policy: RolloutPolicy
    to: int
    stable: int | None
    wanted: int
    counts: Mapping[int, Count]
    now: datetime
    traffic: Weights | None = None
    weighted: bool = False
    state: StepState = field(default_factory=StepState)
    back: bool = False

    @property
    def goal(self) -> int:
        return self.stable if self.back and self.stable is not None else self.to

    @property
    def step(self) -> CanaryStep | None:
        """The canary's present step; None after the last, and for what has none."""
        steps = self.policy.steps if self.policy.strategy is Strategy.CANARY else ()
        return steps[self.state.index] if not self.back and self.state.index < len(steps) else None

    def of(self, revision: int) -> Count:
        return self.counts.get(revision, NONE)

    def has_all(self, revision: int) -> bool:
        """Whether all traffic goes to it by weight."""
        return _routed(self.traffic) == {revision: ALL}


@dataclass(frozen=True, kw_only=True)
class Share(Document):
    """The percent of the traffic that the step asks for, and what it really gives."""

    asked: int
    real: float
    sentence: str


@dataclass(frozen=True, kw_only=True)
class Move:
    """What to ask for, and the state to keep once the target has it."""

    counts: Mapping[int, int]
    weights: Weights | None
    phase: Phase
    state: StepState
    share: Share | None = None


def most_replicas(policy: RolloutPolicy, wanted: int) -> int:
    """The most that a rollout asks for in all, if there were not more before it."""
    match policy.strategy:
        case Strategy.ROLLING:
            return wanted + policy.max_surge
        case Strategy.RECREATE:
            return wanted
        case Strategy.BLUE_GREEN:
            return wanted + max(wanted, policy.max_surge)
        case Strategy.CANARY:
            # A step of 1 % is one replica, and the stable revision cannot spare one for it.
            return wanted + max(1, policy.max_surge)


def next_move(situation: Situation) -> Move:
    """Repeated without a change it gives the same; carried out, it comes to rest until a replica, the clock or a
    verdict moves. Phase FINISHED says that the goal alone is asked for, is ready, and has the traffic."""
    if situation.wanted == 0:
        return _by_replicas(situation)
    if situation.stable is not None and _crowded(situation, situation.stable):
        return replace(steady(replace(situation, to=situation.stable)), phase=Phase.MOVING)
    match situation.policy.strategy:
        case Strategy.RECREATE:
            return _recreate(situation)
        case Strategy.BLUE_GREEN if situation.stable is not None:
            return _blue_green(situation, situation.stable)
        case Strategy.CANARY if situation.stable is not None and situation.step is not None:
            return _canary_step(situation, situation.stable, situation.step)
        case Strategy.CANARY if situation.weighted:
            return _weighted(situation)
    return _by_replicas(situation)


def steady(situation: Situation) -> Move:
    """While no rollout is active: `to` is the live revision, and whatever else is left makes way for it."""
    situation = replace(situation, stable=None, back=False)
    if situation.traffic is None or situation.wanted == 0:
        return _by_replicas(situation)
    return _weighted(situation) if situation.weighted else _switch(situation)


def _crowded(situation: Situation, stable: int) -> bool:
    """Whether an earlier rollout left what has to go before two revisions can be set side by side: a third one,
    or the new one with a share of the traffic that nobody gave it."""
    asked = {revision for revision, one in situation.counts.items() if one.asked}
    match situation.policy.strategy:
        case Strategy.CANARY:
            return situation.step is not None and not asked <= {situation.to, stable}
        case Strategy.BLUE_GREEN:
            return not asked <= ({stable} if situation.traffic is None else {situation.to, stable})
    return False


def _finish(situation: Situation, counts: Mapping[int, int], weights: Weights | None) -> Move:
    """The move, finished when there is nothing left to move."""
    goal = situation.goal
    there = finished(to=goal, wanted=situation.wanted, counts=situation.counts)
    routed = situation.has_all(goal) or (weights is None and situation.traffic is None)
    phase = Phase.FINISHED if there and routed else Phase.MOVING
    return Move(counts=counts, weights=weights, phase=phase, state=situation.state)


def _by_replicas(situation: Situation) -> Move:
    counts = next_counts(
        to=situation.goal, wanted=situation.wanted, counts=situation.counts, policy=situation.policy
    )
    return _finish(situation, counts, None)


def _recreate(situation: Situation) -> Move:
    """The old ones go first, and what shall come waits until none of them exists any more."""
    goal = situation.goal
    old = {revision: count for revision, count in situation.counts.items() if revision != goal}
    if any(count.asked or count.ready or count.present for count in old.values()):
        return _finish(situation, {goal: 0} | dict.fromkeys(old, 0), None)
    return _finish(situation, {goal: situation.wanted}, None)


def _canary_step(situation: Situation, stable: int, step: CanaryStep) -> Move:
    to, state = situation.to, situation.state
    rest, canary = _split(situation, step)
    weights = _in_proportion(situation, to, most=step.weight) if situation.weighted else None
    counts = _toward(situation, {stable: rest, to: canary}, weights)
    enough = max(1, rest - situation.policy.max_unavailable)
    begun = (
        {revision: one.asked for revision, one in situation.counts.items() if one.asked}
        == {stable: rest, to: canary}
        and situation.of(stable).ready >= enough
        and (weights is None or weights[to] == step.weight)
        and _routed(weights) == _routed(situation.traffic)
    )
    serving = situation.of(to).ready >= canary
    if serving and begun and state.since is None:
        state = replace(state, since=situation.now)
    return Move(
        counts=counts,
        weights=weights,
        phase=Phase.JUDGING if serving and state.since is not None else Phase.MOVING,
        state=state,
        share=_share(canary, rest, step, weighted=situation.weighted),
    )


def _split(situation: Situation, step: CanaryStep) -> tuple[int, int]:
    """Replicas of the stable revision and of the canary, each enough for its traffic and never none."""
    wanted = situation.wanted
    canary = math.ceil(step.weight * wanted / ALL)
    if situation.weighted:
        return math.ceil((ALL - step.weight) * wanted / ALL), canary
    return max(1, wanted - canary), canary


def _share(canary: int, rest: int, step: CanaryStep, *, weighted: bool) -> Share:
    asked, total = step.weight, canary + rest
    if weighted:
        sentence = f"{asked} % of the requests go to the canary."
        return Share(asked=asked, real=float(asked), sentence=sentence)
    real = ALL * canary / total
    takes = f"{canary} of {total} replicas {'takes' if canary == 1 else 'take'} {real:.0f} %"
    sentence = f"{asked} % was asked; {takes}, because every replica takes the same share."
    return Share(asked=asked, real=real, sentence=sentence)


def _weighted(situation: Situation) -> Move:
    """Replica by replica to the goal, traffic in proportion to what is ready."""
    weights = _in_proportion(situation, situation.goal, most=ALL)
    return _finish(situation, _toward(situation, {situation.goal: situation.wanted}, weights), weights)


def _blue_green(situation: Situation, stable: int) -> Move:
    to, wanted = situation.to, situation.wanted
    if situation.back:
        return _switch(situation)
    since = (situation.state.since or situation.now) if situation.has_all(to) else None
    state = replace(situation.state, since=since)
    if since is not None and (situation.now - since).total_seconds() >= situation.policy.hold_s:
        return replace(_switch(situation), state=state)
    weights = _all_at_once(situation, to, enough=wanted)
    counts = _toward(situation, {stable: wanted, to: wanted}, weights, most=2 * wanted)
    held = since is not None and situation.of(to).ready >= wanted
    return Move(counts=counts, weights=weights, phase=Phase.HOLDING if held else Phase.MOVING, state=state)


def _switch(situation: Situation) -> Move:
    """All traffic to the goal as soon as enough of it is ready; then the others go."""
    goal, wanted = situation.goal, situation.wanted
    enough = max(1, wanted - situation.policy.max_unavailable)
    weights = _all_at_once(situation, goal, enough=enough)
    others = {} if situation.has_all(goal) and situation.of(goal).ready >= enough else situation.counts
    kept = {revision: min(one.asked, wanted) for revision, one in others.items() if revision != goal}
    counts = _toward(situation, {goal: wanted} | kept, weights, most=2 * wanted)
    return _finish(situation, counts, weights)


def _all_at_once(situation: Situation, goal: int, *, enough: int) -> Weights:
    """All to the goal once `enough` of it are ready, and as long as any is. Before that, as it is now; if that
    reaches no ready replica while another revision has some, to the one that has most."""
    weights = dict.fromkeys(sorted({*situation.counts, goal}), 0)
    ready, now = situation.of(goal).ready, _routed(situation.traffic)
    if ready and (situation.has_all(goal) or ready >= enough):
        return weights | {goal: ALL}
    nothing = not any(one.ready for one in situation.counts.values())
    if now and (nothing or any(situation.of(revision).ready for revision in now)):
        return weights | now
    return weights | {max(weights, key=lambda one: (situation.of(one).ready, situation.of(one).asked)): ALL}


def _in_proportion(situation: Situation, goal: int, *, most: int) -> Weights:
    """To the goal what its ready replicas can carry, up to `most`; then to the others, the stable one first.

    What nobody can carry goes to the first of the others, and where none of them is ready, to the goal. Where
    nothing is ready at all, all stays as it is.
    """
    weights = dict.fromkeys(sorted({*situation.counts, goal}), 0)
    now = _routed(situation.traffic)
    if now and not any(one.ready for one in situation.counts.values()):
        return weights | now
    left, ready = ALL, 0
    others = sorted((one for one in weights if one != goal), key=lambda one: (one != situation.stable, one))
    for revision in (goal, *others):
        mine = situation.of(revision).ready
        ready += mine
        # Rounded in the sum, so that no share is off by a whole percent. At least 1: one of two hundred replicas
        # would otherwise never begin.
        carried = max(1, ALL * ready // situation.wanted - (ALL - left)) if mine else 0
        weights[revision] = min(left, carried, most if revision == goal else ALL)
        left -= weights[revision]
    weights[next((one for one in others if weights[one]), goal)] += left
    return weights


def _toward(
    situation: Situation, goals: Mapping[int, int], weights: Weights | None, *, most: int | None = None
) -> dict[int, int]:
    """Replicas to ask for on the way to `goals` (0 for a revision that it does not name).

    The arithmetic of `rolling.next_counts` for several goals: up as far as `most` allows, down only what
    readiness has paid for, and never below what a revision's traffic needs, now or by `weights`.
    """
    wanted, counts = situation.wanted, situation.counts
    floor = max(0, wanted - situation.policy.max_unavailable)
    asked = {revision: situation.of(revision).asked for revision in (*goals, *counts)}
    room = (most_replicas(situation.policy, wanted) if most is None else most) - sum(asked.values())
    for revision, goal in goals.items():
        more = max(0, min(goal - asked[revision], room))
        asked[revision] += more
        room -= more
    least = {
        revision: max(goals.get(revision, 0), _needed(situation, revision, weights)) for revision in asked
    }
    falling = [revision for revision, number in asked.items() if number > least[revision]]
    starting = sum(
        max(0, number - situation.of(revision).ready)
        for revision, number in asked.items()
        if revision not in falling
    )
    spare = sum(asked.values()) - floor - starting
    spare_ready = sum(one.ready for one in counts.values()) - floor
    for revision in sorted(falling, key=lambda one: (situation.of(one).ready > 0, one)):
        idle = max(0, asked[revision] - situation.of(revision).ready)
        gone = max(0, min(asked[revision] - least[revision], spare, idle + max(0, spare_ready)))
        spare -= gone
        spare_ready -= max(0, gone - idle)
        asked[revision] -= gone
    return asked


def _needed(situation: Situation, revision: int, weights: Weights | None) -> int:
    """Replicas that the revision's traffic takes, the larger of what it has and what it shall have."""
    share = max(_routed(one).get(revision, 0) for one in (situation.traffic, weights))
    # Percent are rounded down, by less than one.
    return situation.wanted if share == ALL else math.ceil(max(0, share - 1) * situation.wanted / ALL)


def _routed(weights: Weights | None) -> dict[int, int]:
    return {revision: weight for revision, weight in (weights or {}).items() if weight}
