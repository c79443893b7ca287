"""The autoscaler's decision: one pure function that the local loop, the page and the replay of recorded
clusters share.

Exists because a formula that is tried against what a real controller decided can be trusted to explain one.
Source: Kubernetes 1.36, horizontal.go (reconcileAutoscaler). Refused: reading a clock, keeping a memory,
writing a size.

One difference, on purpose: at 0 replicas with minReplicas 0 the metrics are always asked. Kubernetes 1.36
asks only if it went to zero itself.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from deployments.domain.hpa.limits import LimitedBy, allow, stabilize
from deployments.domain.hpa.spec import HpaSpec
from deployments.domain.hpa.state import (
    CLUSTER,
    Condition,
    Controller,
    HpaState,
    Observation,
    Remembered,
    remember,
)
from deployments.domain.hpa.votes import Tally, Vote, tally, tolerance_of

ABLE, ACTIVE, LIMITED = "AbleToScale", "ScalingActive", "ScalingLimited"


@dataclass(frozen=True, kw_only=True)
class Decision:
    """What was decided at one sync and why.

    `desired_replicas` is the size to write. `reported_replicas` is what an HPA shows as desiredReplicas:
    the same, except that a sync without metrics leaves the earlier number standing. `raw_recommendation` is
    the largest vote, `stabilized_recommendation` the same after the windows; both are None when no metric
    was asked or a missing one forbids a decision. `limit_text` is the limiting rule in words.
    """

    at_s: float
    current_replicas: int
    desired_replicas: int
    reported_replicas: int
    limited_by: LimitedBy
    limit_text: str
    conditions: tuple[Condition, ...]
    metrics: tuple[Vote, ...] = ()
    winner: str | None = None
    raw_recommendation: int | None = None
    stabilized_recommendation: int | None = None

    @property
    def changed(self) -> bool:
        return self.desired_replicas != self.current_replicas

    def condition(self, type_: str) -> Condition | None:
        return next((condition for condition in self.conditions if condition.type == type_), None)

    def sentence(self) -> str:
        """The decision for a person who is woken by it."""
        from deployments.domain.hpa.sentence import sentence  # it reads Decision, so it cannot come first

        return sentence(self)

    def to_json(self) -> dict[str, Any]:
        """For the decision log and the API."""
        return {
            "at_s": self.at_s,
            "current_replicas": self.current_replicas,
            "desired_replicas": self.desired_replicas,
            "raw_recommendation": self.raw_recommendation,
            "stabilized_recommendation": self.stabilized_recommendation,
            "winner": self.winner,
            "limited_by": str(self.limited_by),
            "limit": self.limit_text,
            "conditions": {condition.type: str(condition) for condition in self.conditions},
            "metrics": [_written_vote(vote) for vote in self.metrics],
            "sentence": self.sentence(),
        }


def decide(
    spec: HpaSpec, state: HpaState, observation: Observation, *, controller: Controller = CLUSTER
) -> tuple[Decision, HpaState]:
    """One sync. The new state holds if the size was written; where the write failed, keep the old one.

    Pure; costs a pass over the remembered recommendations (a window's worth of syncs).
    """
    state = _opened(state, observation)
    current = observation.spec_replicas
    if current == 0 and spec.min_replicas != 0:
        return _switched_off(state, observation)
    if not spec.min_replicas <= current <= spec.max_replicas:
        return _back_inside(spec, state, observation)
    counted = tally(spec, observation, controller)
    if counted.replicas is None:
        return _frozen(state, observation, counted)
    return _sized(spec, state, observation, counted, counted.replicas, controller)


def _opened(state: HpaState, observation: Observation) -> HpaState:
    """The first sync remembers the size it found as a recommendation, so that nothing shrinks at once."""
    found = Remembered(observation.spec_replicas, observation.now_s)
    return replace(state, recommendations=state.recommendations or (found,)).with_condition(
        ABLE, status=True, reason="SucceededGetScale"
    )


def _switched_off(state: HpaState, observation: Observation) -> tuple[Decision, HpaState]:
    state = state.with_condition(ACTIVE, status=False, reason="ScalingDisabled")
    state = replace(state, reported_replicas=0)
    text = "the size was set to 0, which switches autoscaling off until it is set to 1 or more"
    return _decision(state, observation, 0, LimitedBy.SWITCHED_OFF_AT_ZERO, text), state


def _back_inside(spec: HpaSpec, state: HpaState, observation: Observation) -> tuple[Decision, HpaState]:
    above = observation.spec_replicas > spec.max_replicas
    size = spec.max_replicas if above else spec.min_replicas
    text = f"above the maximum of {size:,}" if above else f"below the minimum of {size:,}"
    state = _rescaled(spec, state, observation, size)
    return _decision(state, observation, size, LimitedBy.OUTSIDE_BOUNDS, text), state


def _frozen(state: HpaState, observation: Observation, counted: Tally) -> tuple[Decision, HpaState]:
    """A missing metric keeps the size. Earlier conditions and the reported size stay as they were."""
    state = state.with_condition(ACTIVE, status=False, reason="FailedGetExternalMetric")
    text = "the size is kept until every metric can be read"
    held = _decision(state, observation, observation.spec_replicas, LimitedBy.MISSING_METRIC, text)
    winner = counted.winner.name if counted.winner else None
    return replace(held, metrics=counted.votes, winner=winner), state


def _sized(
    spec: HpaSpec,
    state: HpaState,
    observation: Observation,
    counted: Tally,
    asked: int,
    controller: Controller,
) -> tuple[Decision, HpaState]:
    now_s, current = observation.now_s, observation.spec_replicas
    held = stabilize(spec, state, asked=asked, current=current, now_s=now_s, controller=controller)
    allowed = allow(spec, state, wanted=held.replicas, current=current, now_s=now_s, controller=controller)
    state = (
        state.with_condition(ACTIVE, status=True, reason="ValidMetricFound")
        .with_condition(ABLE, status=True, reason=held.reason)
        .with_condition(LIMITED, status=allowed.replicas != held.replicas, reason=allowed.reason)
    )
    memory = remember(
        state.recommendations,
        Remembered(asked, now_s),
        now_s=now_s,
        forget_after_s=held.forget_after_s,
    )
    state = _rescaled(spec, replace(state, recommendations=memory), observation, allowed.replicas)
    limited_by, text = allowed.limited_by, allowed.text
    if _window_decides(asked=asked, held=held.replicas, current=current, limited_by=limited_by):
        limited_by, text = LimitedBy.STABILIZATION, held.text
    if limited_by is LimitedBy.NONE and _tolerance_decides(counted.winner):
        limited_by = LimitedBy.TOLERANCE
        text = f"that is within {tolerance_of(spec, controller).words()}"
    decision = _decision(state, observation, allowed.replicas, limited_by, text)
    return replace(
        decision,
        metrics=counted.votes,
        winner=counted.winner.name if counted.winner else None,
        raw_recommendation=asked,
        stabilized_recommendation=held.replicas,
    ), state


def _window_decides(*, asked: int, held: int, current: int, limited_by: LimitedBy) -> bool:
    """A window that turned a wish to move into none is the reason, even if a bound would have cut what it
    held.
    """
    turned = asked < current <= held or asked > current >= held
    return turned or (held != asked and limited_by is LimitedBy.NONE)


def _tolerance_decides(winner: Vote | None) -> bool:
    return winner is not None and winner.exact != winner.replicas


def _rescaled(spec: HpaSpec, state: HpaState, observation: Observation, size: int) -> HpaState:
    """Notes the change of size, if there is one. Events are kept only for a behavior: nothing else reads
    them.
    """
    change = size - observation.spec_replicas
    state = replace(state, reported_replicas=size)
    if change == 0:
        return state
    state = state.with_condition(ABLE, status=True, reason="SucceededRescale")
    if spec.behavior is None:
        return state
    now_s, event = observation.now_s, Remembered(abs(change), observation.now_s)
    if change > 0:
        period_s = spec.behavior.scale_up.longest_period_s
        ups = remember(state.scale_ups, event, now_s=now_s, forget_after_s=period_s)
        return replace(state, scale_ups=ups)
    period_s = spec.behavior.scale_down.longest_period_s
    downs = remember(state.scale_downs, event, now_s=now_s, forget_after_s=period_s)
    return replace(state, scale_downs=downs)


def _decision(
    state: HpaState, observation: Observation, size: int, limited_by: LimitedBy, text: str
) -> Decision:
    return Decision(
        at_s=observation.now_s,
        current_replicas=observation.spec_replicas,
        desired_replicas=size,
        reported_replicas=state.reported_replicas,
        limited_by=limited_by,
        limit_text=text,
        conditions=state.conditions,
    )


def _written_vote(vote: Vote) -> dict[str, Any]:
    return {
        "name": vote.name,
        "value": None if vote.value is None else str(vote.value),
        "age_s": vote.age_s,
        "target": str(vote.target),
        "target_type": str(vote.target_type),
        "replicas": vote.replicas,
        "exact": vote.exact,
        "error": vote.error,
    }
