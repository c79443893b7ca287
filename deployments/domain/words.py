"""Sentences and small facts about a deployment that a page, a list and a badge say alike. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

from deployments.domain.cluster_words import phases
from deployments.domain.loglines import Line, last_error, read
from deployments.domain.workload import ReplicaState, ReplicaStatus

QUIET_AFTER_S = 10.0
"""An autoscaler that decides every 2 s and has not for so long is not deciding."""
P99 = "inference_p99_latency"
SIGNAL_NAMES = {
    "inference_queue_depth": "Queue depth",
    "inference_in_flight": "In flight",
    "inference_request_rate": "Requests",
    P99: "p99 latency",
}
_UNITS = {
    "inference_queue_depth": "waiting",
    "inference_in_flight": "requests",
    "inference_request_rate": "per s",
    P99: "ms",
}
LIMITS = {
    "none": "nothing",
    "min": "the fewest replicas",
    "max": "the most replicas",
    "scale_up_policy": "the scale-up rate",
    "scale_down_policy": "the scale-down rate",
    "stabilization": "the stabilization window",
    "tolerance": "the tolerance",
    "missing_metric": "a missing signal",
    "scale_up_disabled": "scale-up is off",
    "scale_down_disabled": "scale-down is off",
    "outside_bounds": "the bounds",
    "switched_off_at_zero": "zero replicas",
    "cannot_scale": "a cluster that does not let it scale",
    "unexplained": "a rule of the cluster's autoscaler",
}


class DecisionLike(Protocol):
    """What is read of a stored decision."""

    last_at: datetime
    sentence: str
    signals: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class SignalWords:
    """One signal of a decision: its value or why there is none, and what it asks for."""

    name: str
    value: float | None
    unit: str
    age_s: float | None
    error: str
    asks_for: int | None


@dataclass(frozen=True, kw_only=True)
class Why:
    """Why there are so many replicas. `quiet`: nobody has decided for a while, so the sentence is old."""

    sentence: str
    at: datetime | None
    quiet: bool
    signals: tuple[SignalWords, ...] = ()


def why(decision: DecisionLike | None, *, paused: bool, replicas: int, now: datetime) -> Why:
    if paused:
        return Why(
            sentence=f"Autoscaling is paused: a person chose {replicas}.",
            at=decision.last_at if decision else None,
            quiet=False,
        )
    if decision is None:
        return Why(sentence="The autoscaler has not decided yet.", at=None, quiet=False)
    return Why(
        sentence=decision.sentence,
        at=decision.last_at,
        quiet=(now - decision.last_at).total_seconds() > QUIET_AFTER_S,
        signals=signals(decision.signals),
    )


def signals(document: Mapping[str, Any]) -> tuple[SignalWords, ...]:
    """In the order of `SIGNAL_NAMES`, whatever the order in which they were stored."""
    order = list(SIGNAL_NAMES)
    names = sorted(document, key=lambda name: (order.index(name) if name in order else len(order), name))
    return tuple(_signal(name, document[name]) for name in names)


def _signal(name: str, one: Mapping[str, Any]) -> SignalWords:
    value = one.get("value")
    if name == P99 and value is not None:
        value *= 1000
    return SignalWords(
        name=SIGNAL_NAMES.get(name, name),
        value=value,
        unit=_UNITS.get(name, ""),
        age_s=one.get("age_s"),
        error=(one.get("error") or "").replace("_", " "),
        asks_for=one.get("recommendation"),
    )


def limit(limited_by: str) -> str:
    return LIMITS.get(limited_by, limited_by.replace("_", " "))


@dataclass(frozen=True, kw_only=True)
class ReplicaWords:
    status: ReplicaStatus
    since: datetime | None
    note: str
    lines: tuple[Line, ...] = ()
    phases: str = ""
    """On a cluster, how long each part of coming up took."""


def replica(status: ReplicaStatus, *, now: datetime) -> ReplicaWords:
    """`since` is when the present state began where that is known; `note` says what it waits for or why."""
    if status.state is ReplicaState.READY:
        since = status.ready_at or status.started_at
        return ReplicaWords(status=status, since=since, note=status.reason, phases=phases(status.phases))
    waited_s = max(0, round((now - status.started_at).total_seconds()))
    starting = f"loading the model for {waited_s} s" if status.state is ReplicaState.STARTING else ""
    note = ": ".join(part for part in (status.reason, last_error(status.log_tail)) if part) or starting
    lines = tuple(read(text) for text in status.log_tail[-8:])
    return ReplicaWords(
        status=status, since=status.started_at, note=note, lines=lines, phases=phases(status.phases)
    )
