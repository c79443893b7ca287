"""What a rollout asks of a target that rolls and scales by itself: which revision has the main place, and what stands
beside it as a candidate.

The main place is the one that the autoscaler scales, all the way through a rollout; a candidate follows its size. At
the end of every strategy there is the main place alone, as after a plain update, so that nothing in the cluster tells
how a revision came to be live. Level-triggered like `strategy`, whose step state and phases these are.
"""

import math
from dataclasses import dataclass, field, replace
from datetime import datetime

from deployments.domain.spec import CanaryStep, RolloutPolicy, Strategy
from deployments.domain.strategy import ALL, Phase, Share, StepState


@dataclass(frozen=True, kw_only=True)
class Part:
    """Replicas of one revision in one place; `weight` as `Workload.weight`."""

    revision: int
    replicas: int
    candidate: bool = False
    weight: int | None = None


@dataclass(frozen=True, kw_only=True)
class Places:
    """What is seen. `main` has the main place now (None before the first rollout), of which `main_ready` of `wanted`
    are ready and `settled` says that nothing of an older template is left there; `beside` is the candidate, if any.

    `weighted`: requests can be split in any proportion, by a route.
    """

    policy: RolloutPolicy
    to: int
    stable: int | None
    wanted: int
    main: int | None
    main_ready: int
    settled: bool
    now: datetime
    beside: Part | None = None
    beside_ready: int = 0
    weighted: bool = False
    state: StepState = field(default_factory=StepState)
    back: bool = False

    @property
    def step(self) -> CanaryStep | None:
        steps = self.policy.steps if self.policy.strategy is Strategy.CANARY else ()
        return steps[self.state.index] if self.state.index < len(steps) else None


@dataclass(frozen=True, kw_only=True)
class PlacesMove:
    """What to ask for, and the state to keep once the target has it."""

    parts: tuple[Part, ...]
    phase: Phase
    state: StepState
    share: Share | None = None


def next_places(seen: Places) -> PlacesMove:
    """Repeated without a change it gives the same. FINISHED: the goal alone, in the main place, ready."""
    if seen.back and seen.stable is not None:
        return _into_the_main_place(seen, seen.stable)
    if seen.stable is None or seen.stable == seen.to or seen.wanted == 0:
        return _into_the_main_place(seen, seen.to)
    match seen.policy.strategy:
        case Strategy.CANARY if seen.step is not None:
            return _canary(seen, seen.stable, seen.step)
        case Strategy.BLUE_GREEN if seen.main != seen.to:
            return _blue_green(seen, seen.stable)
    return _into_the_main_place(seen, seen.to)


def steady_places(live: int, wanted: int) -> tuple[Part, ...]:
    return (Part(revision=live, replicas=wanted),)


def _into_the_main_place(seen: Places, goal: int) -> PlacesMove:
    """The target rolls the main place itself. A candidate of the goal carries its share until that is done; one that
    is not wanted any more goes at once: the main place was never without what it needs."""
    main = Part(revision=goal, replicas=seen.wanted)
    done = seen.main == goal and seen.settled and seen.main_ready >= seen.wanted
    if seen.beside is not None and seen.beside.revision == goal and not done:
        return PlacesMove(parts=(main, seen.beside), phase=Phase.MOVING, state=seen.state)
    finished = done and seen.beside is None
    return PlacesMove(parts=(main,), phase=Phase.FINISHED if finished else Phase.MOVING, state=seen.state)


def _canary(seen: Places, stable: int, step: CanaryStep) -> PlacesMove:
    replicas = candidates(seen.wanted, step.weight, weighted=seen.weighted)
    weight = step.weight if seen.weighted else None
    candidate = Part(revision=seen.to, replicas=replicas, candidate=True, weight=weight)
    there = seen.beside == candidate and seen.main == stable and seen.beside_ready >= replicas
    state = seen.state
    if there and state.since is None:
        state = replace(state, since=seen.now)
    return PlacesMove(
        parts=(Part(revision=stable, replicas=seen.wanted), candidate),
        phase=Phase.JUDGING if there else Phase.MOVING,
        state=state,
        share=_share(step.weight, replicas, seen.wanted, weighted=seen.weighted),
    )


def candidates(wanted: int, weight: int, *, weighted: bool) -> int:
    """How many replicas carry `weight` percent beside `wanted` others, at least one."""
    if weighted:
        return max(1, math.ceil(weight * wanted / ALL))
    return max(1, math.ceil(weight * wanted / (ALL - weight)))


def _share(asked: int, replicas: int, wanted: int, *, weighted: bool) -> Share:
    if weighted:
        return Share(asked=asked, real=float(asked), sentence=f"{asked} % of the requests go to the canary.")
    total = replicas + wanted
    real = ALL * replicas / total
    takes = f"{replicas} of {total} replicas {'takes' if replicas == 1 else 'take'} {real:.0f} %"
    sentence = f"{asked} % was asked; {takes}, because every replica takes the same share."
    return Share(asked=asked, real=real, sentence=sentence)


def _blue_green(seen: Places, stable: int) -> PlacesMove:
    """The new set comes up beside the old one without traffic, then all of it moves at once. Until the hold is over
    going back is only a switch."""
    switched = seen.beside is not None and seen.beside.revision == seen.to and seen.beside.weight == ALL
    ready = seen.beside is not None and seen.beside.revision == seen.to and seen.beside_ready >= seen.wanted
    since = (seen.state.since or seen.now) if switched else None
    state = replace(seen.state, since=since)
    if since is not None and ready and (seen.now - since).total_seconds() >= seen.policy.hold_s:
        return replace(_into_the_main_place(seen, seen.to), state=state)
    weight = ALL if ready or (switched and seen.beside_ready) else 0
    candidate = Part(revision=seen.to, replicas=seen.wanted, candidate=True, weight=weight)
    return PlacesMove(
        parts=(Part(revision=stable, replicas=seen.wanted), candidate),
        phase=Phase.HOLDING if switched and ready else Phase.MOVING,
        state=state,
    )
