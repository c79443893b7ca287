"""What each metric asks for, before any limit.

Source of the formulas: Kubernetes 1.36, pkg/controller/podautoscaler, replica_calculator.go
(GetExternalPerPodMetricReplicas, GetExternalMetricReplicas) and horizontal.go (computeReplicasForMetrics).
Refused: smoothing or averaging here; a signal is what its source says it is.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from deployments.domain.hpa.quantity import Quantity
from deployments.domain.hpa.spec import LARGEST_REPLICAS, HpaSpec, Metric, Rules, TargetType
from deployments.domain.hpa.state import Controller, Observation


@dataclass(frozen=True, kw_only=True)
class Vote:
    """One metric's say. `replicas` is None when it could not be read; then `error` says why.

    `exact` is what the value would ask for if there were no tolerance; it differs only where the tolerance
    decided.
    """

    name: str
    target: Quantity
    target_type: TargetType
    value: Quantity | None = None
    age_s: float | None = None
    replicas: int | None = None
    exact: int | None = None
    error: str | None = None


@dataclass(frozen=True, kw_only=True)
class Tolerance:
    """The band around the target in which nothing is done: 1 - down <= ratio <= 1 + up."""

    up: float
    down: float

    def words(self) -> str:
        if self.up == self.down:
            return f"the tolerance of {self.up * 100:g} %"
        return f"the tolerance of {self.up * 100:g} % up and {self.down * 100:g} % down"

    def holds(self, ratio: float) -> bool:
        return (1.0 - self.down) <= ratio <= (1.0 + self.up)


@dataclass(frozen=True, kw_only=True)
class Tally:
    """All votes and the largest. `replicas` is None when a missing metric forbids a decision."""

    votes: tuple[Vote, ...]
    winner: Vote | None
    replicas: int | None


def tally(spec: HpaSpec, observation: Observation, controller: Controller) -> Tally:
    """Every metric votes, the largest size wins. A failed one still lets others scale up, never down."""
    tolerance = tolerance_of(spec, controller)
    votes = tuple(vote(metric, observation, tolerance) for metric in spec.metrics)
    valid = [cast for cast in votes if cast.replicas is not None]
    winner = max(valid, key=lambda cast: cast.replicas or 0, default=None)
    asked = winner.replicas if winner else None
    would_shrink = asked is not None and asked < observation.spec_replicas
    blocked = len(valid) < len(votes) and would_shrink
    return Tally(votes=votes, winner=winner, replicas=None if blocked else asked)


def tolerance_of(spec: HpaSpec, controller: Controller) -> Tolerance:
    """The controller's tolerance, where the behavior of a direction does not set its own."""

    def of(rules: Rules | None) -> float:
        own = rules.tolerance if rules else None
        return controller.tolerance if own is None else float(own)

    behavior = spec.behavior
    return Tolerance(
        up=of(behavior.scale_up if behavior else None), down=of(behavior.scale_down if behavior else None)
    )


def vote(metric: Metric, observation: Observation, tolerance: Tolerance) -> Vote:
    reading = observation.reading(metric.name)
    if reading.milli is None:
        return _failed(metric, reading.error or "it was not measured")
    if metric.target_type is TargetType.AVERAGE_VALUE:
        return _average(metric, reading.milli, reading.age_s, observation, tolerance)
    return _total(metric, reading.milli, reading.age_s, observation, tolerance)


def _average(
    metric: Metric, milli: int, age_s: float | None, observation: Observation, tolerance: Tolerance
) -> Vote:
    """ceil(total / target), whatever the size is now; replicas that are not ready count as there."""
    there = observation.status_replicas
    ratio = float(milli) / (float(metric.target.milli) * float(there)) if there else math.inf
    exact = _ceil(float(milli) / float(metric.target.milli))
    asked = there if tolerance.holds(ratio) else exact
    return _voted(metric, milli, age_s, exact=exact, replicas=asked)


def _total(
    metric: Metric, milli: int, age_s: float | None, observation: Observation, tolerance: Tolerance
) -> Vote:
    """ceil(ratio x ready replicas); from zero replicas ceil(ratio)."""
    ratio = float(milli) / float(metric.target.milli)
    if observation.spec_replicas == 0:
        return _voted(metric, milli, age_s, exact=_ceil(ratio), replicas=_ceil(ratio))
    exact = _ceil(ratio * float(observation.ready_replicas))
    if tolerance.holds(ratio):
        return _voted(metric, milli, age_s, exact=exact, replicas=observation.spec_replicas)
    if observation.status_replicas == 0:
        return _failed(metric, "there are no replicas to count the ready ones of")
    return _voted(metric, milli, age_s, exact=exact, replicas=exact)


def _voted(metric: Metric, milli: int, age_s: float | None, *, exact: int, replicas: int) -> Vote:
    return Vote(
        name=metric.name,
        target=metric.target,
        target_type=metric.target_type,
        value=Quantity(milli * 10**6),
        age_s=age_s,
        replicas=replicas,
        exact=exact,
    )


def _failed(metric: Metric, error: str) -> Vote:
    return Vote(name=metric.name, target=metric.target, target_type=metric.target_type, error=error)


def _ceil(wanted: float) -> int:
    return LARGEST_REPLICAS if wanted > LARGEST_REPLICAS else math.ceil(wanted)
