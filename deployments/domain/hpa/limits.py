"""From what the metrics ask for to the size that is allowed now: windows first, then rates and bounds.

Source: Kubernetes 1.36, horizontal.go (stabilizeRecommendation and convertDesiredReplicasWithRules without
a behavior; stabilizeRecommendationWithBehaviors and convertDesiredReplicasWithBehaviorRate with one). The
two branches differ in more than numbers, so they stay two branches: the classic window counts an entry that
is exactly as old as the window and can scale up on an old recommendation; the other does neither.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from deployments.domain.hpa.spec import (
    LARGEST_REPLICAS,
    Behavior,
    HpaSpec,
    Policy,
    PolicyType,
    Rules,
    SelectPolicy,
)
from deployments.domain.hpa.state import Controller, HpaState, Remembered

_CLASSIC_FACTOR = 2
_CLASSIC_LEAST = 4


class LimitedBy(StrEnum):
    """The rule that stood between what the metrics asked for and what was decided."""

    NONE = "none"
    MIN = "min"
    MAX = "max"
    SCALE_UP_POLICY = "scale_up_policy"
    SCALE_DOWN_POLICY = "scale_down_policy"
    STABILIZATION = "stabilization"
    TOLERANCE = "tolerance"
    MISSING_METRIC = "missing_metric"
    SCALE_UP_DISABLED = "scale_up_disabled"
    SCALE_DOWN_DISABLED = "scale_down_disabled"
    OUTSIDE_BOUNDS = "outside_bounds"
    SWITCHED_OFF_AT_ZERO = "switched_off_at_zero"


@dataclass(frozen=True, kw_only=True)
class Stabilized:
    """The recommendation after the windows. `reason` is AbleToScale's, `text` says what the window held."""

    replicas: int
    reason: str
    text: str
    forget_after_s: int


@dataclass(frozen=True, kw_only=True)
class Allowed:
    """The size after rates and bounds. `reason` is ScalingLimited's, `text` the limit in words."""

    replicas: int
    limited_by: LimitedBy
    reason: str
    text: str


def stabilize(
    spec: HpaSpec, state: HpaState, *, asked: int, current: int, now_s: float, controller: Controller
) -> Stabilized:
    if spec.behavior is None:
        return _stabilize_classic(state, asked=asked, now_s=now_s, window_s=controller.down_window_s)
    up_s = spec.behavior.scale_up.window_s or 0
    down = spec.behavior.scale_down.window_s
    down_s = controller.down_window_s if down is None else down
    recent = [(item.replicas, item.age_ms(now_s)) for item in state.recommendations]
    lowest = min([asked, *(size for size, age_ms in recent if age_ms < up_s * 1000)])
    highest = max([asked, *(size for size, age_ms in recent if age_ms < down_s * 1000)])
    held = min(max(current, lowest), highest)
    upward = asked >= current
    return Stabilized(
        replicas=held,
        reason=_able_reason(
            "ScaleUpStabilized" if upward else "ScaleDownStabilized", stabilized=held != asked
        ),
        text=_window_text("lowest", up_s, lowest) if upward else _window_text("highest", down_s, highest),
        forget_after_s=max(up_s, down_s),
    )


def _stabilize_classic(state: HpaState, *, asked: int, now_s: float, window_s: int) -> Stabilized:
    recent = [item.replicas for item in state.recommendations if item.age_ms(now_s) <= window_s * 1000]
    held = max([asked, *recent])
    return Stabilized(
        replicas=held,
        reason=_able_reason("ScaleDownStabilized", stabilized=held != asked),
        text=_window_text("highest", window_s, held),
        forget_after_s=window_s,
    )


def allow(
    spec: HpaSpec, state: HpaState, *, wanted: int, current: int, now_s: float, controller: Controller
) -> Allowed:
    """Cuts `wanted` (the stabilized recommendation) to what rates, minReplicas and maxReplicas allow."""
    if spec.behavior is None:
        return _allow_classic(spec, wanted=wanted, current=current, controller=controller)
    if wanted > current:
        return _allow_up(spec, spec.behavior, state, wanted=wanted, current=current, now_s=now_s)
    if wanted < current:
        return _allow_down(spec, spec.behavior, state, wanted=wanted, current=current, now_s=now_s)
    return _within(wanted)


def _allow_classic(spec: HpaSpec, *, wanted: int, current: int, controller: Controller) -> Allowed:
    fastest = max(_CLASSIC_FACTOR * current, _CLASSIC_LEAST)
    if wanted < spec.min_replicas:
        return _at_min(spec)
    if wanted <= min(fastest, spec.max_replicas):
        return _within(wanted)
    if spec.max_replicas <= fastest:
        return _at_max(spec)
    least = f"or {_CLASSIC_LEAST}, " if fastest == _CLASSIC_LEAST else ""
    text = f"at most double, {least}per sync of {controller.sync_period_s:g} s"
    return Allowed(replicas=fastest, limited_by=LimitedBy.SCALE_UP_POLICY, reason="ScaleUpLimit", text=text)


def _allow_up(
    spec: HpaSpec, behavior: Behavior, state: HpaState, *, wanted: int, current: int, now_s: float
) -> Allowed:
    rules = behavior.scale_up
    limit = max(_rate_limit(rules, state, current=current, now_s=now_s, step=_step_up, largest=max), current)
    if wanted <= min(limit, spec.max_replicas):
        return _within(wanted)
    if spec.max_replicas <= limit:
        return _at_max(spec)
    off = rules.select is SelectPolicy.DISABLED
    return Allowed(
        replicas=limit,
        limited_by=LimitedBy.SCALE_UP_DISABLED if off else LimitedBy.SCALE_UP_POLICY,
        reason="ScaleUpLimit",
        text="scaling up is switched off" if off else _rules_text(rules, "more"),
    )


def _allow_down(
    spec: HpaSpec, behavior: Behavior, state: HpaState, *, wanted: int, current: int, now_s: float
) -> Allowed:
    rules = behavior.scale_down
    limit = min(
        _rate_limit(rules, state, current=current, now_s=now_s, step=_step_down, largest=min), current
    )
    if wanted >= max(limit, spec.min_replicas):
        return _within(wanted)
    if spec.min_replicas >= limit:
        return _at_min(spec)
    off = rules.select is SelectPolicy.DISABLED
    return Allowed(
        replicas=limit,
        limited_by=LimitedBy.SCALE_DOWN_DISABLED if off else LimitedBy.SCALE_DOWN_POLICY,
        reason="ScaleDownLimit",
        text="scaling down is switched off" if off else _rules_text(rules, "fewer"),
    )


def _rate_limit(
    rules: Rules,
    state: HpaState,
    *,
    current: int,
    now_s: float,
    step: Callable[[Policy, int], int],
    largest: Callable[[list[int]], int],
) -> int:
    """The furthest size the policies allow. Each counts from the size at the start of its own period."""
    if rules.select is SelectPolicy.DISABLED:
        return current
    limits = []
    for policy in rules.policies:
        added = _changed(state.scale_ups, policy.period_s, now_s)
        removed = _changed(state.scale_downs, policy.period_s, now_s)
        limits.append(step(policy, current - added + removed))
    smallest = min if largest is max else max
    limit = smallest(limits) if rules.select is SelectPolicy.MIN else largest(limits)
    return min(max(limit, -LARGEST_REPLICAS), LARGEST_REPLICAS)


def _step_up(policy: Policy, start: int) -> int:
    if policy.type is PolicyType.PODS:
        return start + policy.value
    # Floats on purpose: 25 replicas and 120 % give 55.00000000000001, and Kubernetes goes to 56.
    return math.ceil(float(start) * (1 + float(policy.value) / 100))


def _step_down(policy: Policy, start: int) -> int:
    if policy.type is PolicyType.PODS:
        return start - policy.value
    return int(float(start) * (1 - float(policy.value) / 100))


def _changed(events: tuple[Remembered, ...], period_s: int, now_s: float) -> int:
    return sum(event.replicas for event in events if event.age_ms(now_s) < period_s * 1000)


def _within(replicas: int) -> Allowed:
    return Allowed(replicas=replicas, limited_by=LimitedBy.NONE, reason="DesiredWithinRange", text="")


def _at_min(spec: HpaSpec) -> Allowed:
    text = f"the minimum is {spec.min_replicas}"
    return Allowed(replicas=spec.min_replicas, limited_by=LimitedBy.MIN, reason="TooFewReplicas", text=text)


def _at_max(spec: HpaSpec) -> Allowed:
    text = f"the maximum is {spec.max_replicas}"
    return Allowed(replicas=spec.max_replicas, limited_by=LimitedBy.MAX, reason="TooManyReplicas", text=text)


def _able_reason(reason: str, *, stabilized: bool) -> str:
    return reason if stabilized else "ReadyForNewScale"


def _window_text(which: str, window_s: int, size: int) -> str:
    return f"the {which} recommendation of the last {window_s} s is {size:,}"


def _rules_text(rules: Rules, word: str) -> str:
    parts = [
        f"{policy.value:,}{' %' if policy.type is PolicyType.PERCENT else ''} {word} per {policy.period_s} s"
        for policy in rules.policies
    ]
    if len(parts) == 1:
        return f"at most {parts[0]}"
    pick = "least" if rules.select is SelectPolicy.MIN else "most"
    return f"at most {' or '.join(parts)}, whichever changes {pick}"
