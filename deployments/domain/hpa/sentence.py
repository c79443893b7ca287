"""A decision in words.

Exists because `limited_by=scale_up_policy` does not help a person at three in the morning: the sentence
names the signal, its age, what it asks for and the rule that stood in the way. Refused: leaving that to
templates, where page, API and log would each tell it differently.
"""

from __future__ import annotations

from deployments.domain.hpa.decide import Decision
from deployments.domain.hpa.limits import LimitedBy
from deployments.domain.hpa.spec import TargetType
from deployments.domain.hpa.votes import Vote


def sentence(decision: Decision) -> str:
    head = _head(decision)
    match decision.limited_by:
        case LimitedBy.OUTSIDE_BOUNDS:
            return f"{head}: {decision.current_replicas:,} is {decision.limit_text}. No metric was asked."
        case LimitedBy.SWITCHED_OFF_AT_ZERO:
            return f"{head}: {decision.limit_text}."
        case LimitedBy.MISSING_METRIC:
            return f"{head}: {_missing(decision)}; {decision.limit_text}."
    parts = [f"{head}: {_because(decision)}."]
    if lost := [vote for vote in decision.metrics if vote.error is not None]:
        parts.append(f"{_unread(lost)}, so until it can the size only grows.")
    return " ".join(parts)


def _head(decision: Decision) -> str:
    if decision.changed:
        return f"Scaled {decision.current_replicas:,} to {decision.desired_replicas:,}"
    return f"Held at {decision.desired_replicas:,}"


def _because(decision: Decision) -> str:
    winner = next(vote for vote in decision.metrics if vote.name == decision.winner)
    if decision.limited_by is LimitedBy.TOLERANCE:
        return f"{_asks(winner, winner.exact)}, but {decision.limit_text}"
    asks = _asks(winner, winner.replicas)
    match decision.limited_by:
        case LimitedBy.NONE:
            return asks
        case LimitedBy.STABILIZATION:
            return f"{asks}, but {decision.limit_text}"
        case LimitedBy.SCALE_UP_DISABLED | LimitedBy.SCALE_DOWN_DISABLED:
            return f"{_wanted(decision, asks)}, but {decision.limit_text}"
    return f"{_wanted(decision, asks)}, limited to {decision.desired_replicas:,} because {_rule(decision)}"


def _wanted(decision: Decision, asks: str) -> str:
    """Where a window changed the vote before the limit cut it, both are told."""
    held = decision.stabilized_recommendation
    if held is None or held == decision.raw_recommendation:
        return asks
    return f"{asks} (recent recommendations make that {held:,})"


def _rule(decision: Decision) -> str:
    if decision.limited_by in (LimitedBy.SCALE_UP_POLICY, LimitedBy.SCALE_DOWN_POLICY):
        return f"the rule is {decision.limit_text}"
    return decision.limit_text


def _asks(vote: Vote, replicas: int | None) -> str:
    per = " per replica" if vote.target_type is TargetType.AVERAGE_VALUE else " in total"
    return f"{_measured(vote)} asks for {replicas or 0:,} at {vote.target.words()}{per}"


def _measured(vote: Vote) -> str:
    value = vote.value.words() if vote.value is not None else "unknown"
    age = f" ({vote.age_s:.0f} s old)" if vote.age_s is not None else ""
    return f"{vote.name} {value}{age}"


def _missing(decision: Decision) -> str:
    lost = [vote for vote in decision.metrics if vote.error is not None]
    winner = next((vote for vote in decision.metrics if vote.name == decision.winner), None)
    return f"{_asks(winner, winner.replicas)}, but {_unread(lost)}" if winner else _unread(lost)


def _unread(lost: list[Vote]) -> str:
    return " and ".join(f"{vote.name} could not be read ({vote.error})" for vote in lost)
