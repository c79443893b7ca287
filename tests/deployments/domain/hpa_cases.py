"""Short ways to say an HPA and a sync, shared by the tests of the formula."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from deployments.domain.hpa import (
    CLUSTER,
    Controller,
    Decision,
    HpaSpec,
    HpaState,
    Observation,
    Reading,
    decide,
)

QUEUE, BUSY = "inference_queue_depth", "inference_in_flight"


def metric(name: str = QUEUE, *, target: str = "10", kind: str = "AverageValue") -> dict[str, Any]:
    field = {"AverageValue": "averageValue", "Value": "value"}[kind]
    return {
        "type": "External",
        "external": {"metric": {"name": name}, "target": {"type": kind, field: target}},
    }


def hpa(
    *,
    least: int = 2,
    most: int = 20,
    metrics: Iterable[Mapping[str, Any]] = (),
    up: Mapping[str, Any] | None = None,
    down: Mapping[str, Any] | None = None,
) -> HpaSpec:
    document: dict[str, Any] = {
        "minReplicas": least,
        "maxReplicas": most,
        "metrics": list(metrics) or [metric()],
    }
    if up is not None or down is not None:
        document["behavior"] = {"scaleUp": up, "scaleDown": down}
    return HpaSpec.from_json(document)


def policy(kind: str, value: int, period_s: int) -> dict[str, Any]:
    return {"type": kind, "value": value, "periodSeconds": period_s}


def sync(
    now_s: float,
    replicas: int,
    reading: object,
    *,
    status: int | None = None,
    ready: int | None = None,
    busy: object = None,
) -> Observation:
    """One look at the target. A reading is a value, or a text that starts with `failed:`."""
    there = replicas if status is None else status
    return Observation(
        now_s=now_s,
        spec_replicas=replicas,
        status_replicas=there,
        ready_replicas=there if ready is None else ready,
        readings={QUEUE: _reading(reading)} | ({} if busy is None else {BUSY: _reading(busy)}),
    )


def _reading(value: object) -> Reading:
    if isinstance(value, str) and value.startswith("failed:"):
        return Reading.failed(value.removeprefix("failed:").strip())
    return Reading.of(value, age_s=1.0)


def run(
    spec: HpaSpec,
    values: Iterable[object],
    *,
    start: int,
    period_s: float = 15.0,
    controller: Controller = CLUSTER,
) -> list[Decision]:
    """Lets the formula drive a target that follows at once, one value per sync."""
    state, replicas, decisions = HpaState(), start, []
    for index, value in enumerate(values, start=1):
        decision, state = decide(spec, state, sync(index * period_s, replicas, value), controller=controller)
        replicas = decision.desired_replicas
        decisions.append(decision)
    return decisions


def sizes(decisions: Iterable[Decision]) -> list[int]:
    return [decision.desired_replicas for decision in decisions]


def settled(spec: HpaSpec, *, replicas: int, at_s: float = 0.0) -> HpaState:
    """A memory in which the only recommendation is the present size."""
    value = replicas * 10
    return decide(spec, HpaState(), sync(at_s, replicas, value))[1]
