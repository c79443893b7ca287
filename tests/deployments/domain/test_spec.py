"""What a rollout policy refuses, and that it says where."""

import json
from typing import Any

import pytest

from controlplane.core.errors import InvalidInput
from deployments.domain.readable import document
from deployments.domain.spec import CanaryGate, RevisionSpec, RolloutPolicy, Strategy, default_autoscaling
from deployments.domain.workload import Batching

OLD = {"max_surge": 2, "max_unavailable": 1, "progress_deadline_s": 90}
"""As it was stored before there were strategies."""


def test_a_spec_from_before_there_were_strategies_reads_as_rolling() -> None:
    policy = RolloutPolicy.from_json(OLD)
    assert policy.strategy is Strategy.ROLLING
    assert (policy.max_surge, policy.max_unavailable, policy.progress_deadline_s) == (2, 1, 90)
    assert RolloutPolicy.from_json({}) == RolloutPolicy()


def test_a_canary_goes_by_three_steps_unless_it_is_told_otherwise() -> None:
    policy = RolloutPolicy.from_json({"strategy": "canary"})
    assert [step.weight for step in policy.steps] == [5, 25, 50]
    assert policy.gate == CanaryGate()


def test_a_policy_survives_a_journey_as_json() -> None:
    policy = RolloutPolicy.from_json(
        {
            "strategy": "canary",
            "steps": [{"weight": 1, "min_requests": 900}, {"weight": 99, "pause_s": 60}],
            "gate": {"p99_ratio": None, "confidence": 0.99},
            "hold_s": 0,
        }
    )
    assert RolloutPolicy.from_json(json.loads(json.dumps(policy.to_json()))) == policy


@pytest.mark.parametrize(
    ("document", "field"),
    [
        ({"strategy": "ramped"}, "RolloutPolicy.strategy"),
        ({"steps": []}, "rollout.steps"),
        ({"steps": [{"weight": weight} for weight in range(1, 22)]}, "rollout.steps"),
        ({"steps": [{"weight": 0}]}, "rollout.steps[0].weight"),
        ({"steps": [{"weight": 101}]}, "rollout.steps[0].weight"),
        ({"steps": [{"weight": -5}]}, "rollout.steps[0].weight"),
        ({"steps": [{"weight": 5}, {"weight": 100}]}, "rollout.steps[1].weight"),
        ({"steps": [{"weight": 50}, {"weight": 25}]}, "rollout.steps[1].weight"),
        ({"steps": [{"weight": 50}, {"weight": 50}]}, "rollout.steps[1].weight"),
        ({"steps": [{"weight": 5, "min_requests": -1}]}, "rollout.steps[0].min_requests"),
        ({"steps": [{"weight": 5, "pause_s": -1}]}, "rollout.steps[0].pause_s"),
        ({"steps": [{"weight": 2.5}]}, "RolloutPolicy.steps[0].weight"),
        ({"steps": [{"percent": 5}]}, "RolloutPolicy.steps[0].percent"),
        ({"steps": [{}]}, "RolloutPolicy.steps[0].weight"),
        ({"steps": 5}, "RolloutPolicy.steps"),
        ({"hold_s": -1}, "rollout.hold_s"),
        ({"gate": {"confidence": 1}}, "rollout.gate.confidence"),
        ({"gate": {"confidence": 0.5}}, "rollout.gate.confidence"),
        ({"gate": {"p99_ratio": 1.0}}, "rollout.gate.p99_ratio"),
        ({"gate": {"p99_ratio": float("nan")}}, "rollout.gate.p99_ratio"),
        ({"gate": {"p99_allowance_ms": -1}}, "rollout.gate.p99_allowance_ms"),
        ({"gate": {"error_points": 0}}, "rollout.gate.error_points"),
        ({"gate": {"min_requests": -1}}, "rollout.gate.min_requests"),
        ({"gate": {"max_wait_s": 0}}, "rollout.gate.max_wait_s"),
        ({"max_surge": 0, "max_unavailable": 0}, "rollout.max_surge"),
    ],
)
def test_a_policy_that_cannot_work_is_refused_by_its_field(document: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        RolloutPolicy.from_json(document)
    assert list(caught.value.fields) == [field]


@pytest.mark.parametrize(
    ("policy", "shown"),
    [
        ({}, {"max_surge", "max_unavailable", "progress_deadline_s", "strategy"}),
        (
            {"strategy": "blue_green"},
            {"max_surge", "max_unavailable", "progress_deadline_s", "strategy", "hold_s"},
        ),
        (
            {"strategy": "canary"},
            {"max_surge", "max_unavailable", "progress_deadline_s", "strategy", "steps", "gate"},
        ),
    ],
)
def test_a_plan_shows_of_a_policy_what_its_strategy_reads(policy: dict[str, Any], shown: set[str]) -> None:
    assert _shown(policy).keys() == shown


def test_the_steps_of_a_canary_are_read_in_a_line() -> None:
    steps = [{"weight": 5, "min_requests": 2000, "pause_s": 60}, {"weight": 50}]
    line = _shown({"strategy": "canary", "steps": steps})["steps"]
    assert line == "5 % for at least 2,000 requests and 60 s, 50 %"


def _shown(policy: dict[str, Any]) -> dict[str, Any]:
    autoscaling = default_autoscaling(min_replicas=1, max_replicas=4, batching=Batching())
    spec = RevisionSpec.from_json({"autoscaling": autoscaling, "rollout": policy})
    found: dict[str, Any] = document(
        spec, variant="m/1", artifact_sha256="a" * 64, signature={"inputs": [], "outputs": []}
    )["rollout"]
    return found
