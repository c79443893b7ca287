"""An HPA's text is understood whole or refused with the path of the wrong field."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deployments.domain.hpa import HpaSpec, HpaState, InvalidHpa, Observation, Quantity, Reading, default_spec
from deployments.domain.hpa.spec import PolicyType, SelectPolicy, TargetType
from tests.deployments.domain.hpa_cases import BUSY, QUEUE, hpa, metric, policy, run, sizes

GOOD: dict[str, Any] = {"maxReplicas": 5, "metrics": [metric()]}


def rules(**fields: object) -> dict[str, Any]:
    return {**GOOD, "behavior": {"scaleDown": fields}}


def external(**target: object) -> dict[str, Any]:
    item = {"type": "External", "external": {"metric": {"name": "q"}, "target": target}}
    return {**GOOD, "metrics": [item]}


@pytest.mark.parametrize(
    ("document", "field"),
    [
        (None, "spec"),
        ([], "spec"),
        ({}, "spec.maxReplicas"),
        ({**GOOD, "minReplicas": 6}, "spec.minReplicas"),
        ({**GOOD, "minReplicas": -1}, "spec.minReplicas"),
        ({**GOOD, "minReplicas": "2"}, "spec.minReplicas"),
        ({**GOOD, "maxReplicas": 0}, "spec.maxReplicas"),
        ({**GOOD, "maxReplicas": 2.5}, "spec.maxReplicas"),
        ({**GOOD, "maxReplicas": True}, "spec.maxReplicas"),
        ({**GOOD, "maxReplicas": float("nan")}, "spec.maxReplicas"),
        ({**GOOD, "maxReplica": 5}, "spec.maxReplica"),
        ({**GOOD, "metrics": []}, "spec.metrics"),
        ({**GOOD, "metrics": None}, "spec.metrics"),
        ({**GOOD, "metrics": [metric(), metric()]}, "spec.metrics"),
        ({**GOOD, "metrics": [{"type": "Resource"}]}, "spec.metrics[0].type"),
        ({**GOOD, "metrics": [{"type": "External"}]}, "spec.metrics[0].external"),
        (external(type="AverageValue", averageValue="0"), "spec.metrics[0].external.target"),
        (external(type="AverageValue", averageValue="-1"), "spec.metrics[0].external.target"),
        (external(type="AverageValue", averageValue="NaN"), "spec.metrics[0].external.target.averageValue"),
        (external(type="Value", value="1", averageValue="1"), "spec.metrics[0].external.target"),
        (external(value="1"), "spec.metrics[0].external.target.type"),
        (external(type="Value"), "spec.metrics[0].external.target.value"),
        (external(type="Utilization", value="1"), "spec.metrics[0].external.target.type"),
        ({**GOOD, "behavior": {"up": {}}}, "spec.behavior.up"),
        (rules(stabilisationWindowSeconds=1), "spec.behavior.scaleDown.stabilisationWindowSeconds"),
        (rules(stabilizationWindowSeconds=3601), "spec.behavior.scaleDown.stabilizationWindowSeconds"),
        (rules(stabilizationWindowSeconds=-1), "spec.behavior.scaleDown.stabilizationWindowSeconds"),
        (rules(selectPolicy="Most"), "spec.behavior.scaleDown.selectPolicy"),
        (rules(tolerance="-0.1"), "spec.behavior.scaleDown.tolerance"),
        (rules(policies=[]), "spec.behavior.scaleDown.policies"),
        (rules(policies=[policy("Replicas", 1, 15)]), "spec.behavior.scaleDown.policies[0].type"),
        (rules(policies=[policy("Pods", 0, 15)]), "spec.behavior.scaleDown.policies[0].value"),
        (rules(policies=[policy("Pods", 1, 0)]), "spec.behavior.scaleDown.policies[0].periodSeconds"),
        (rules(policies=[policy("Pods", 1, 1801)]), "spec.behavior.scaleDown.policies[0].periodSeconds"),
    ],
)
def test_a_wrong_field_is_refused_by_its_path(document: object, field: str) -> None:
    with pytest.raises(InvalidHpa) as refused:
        HpaSpec.from_json(document)
    assert refused.value.field == field
    assert isinstance(refused.value, ValueError)


@pytest.mark.parametrize("type_", TargetType)
@pytest.mark.parametrize("kind", TargetType)
def test_the_field_that_is_set_says_what_kind_of_target_it_is(type_: TargetType, kind: TargetType) -> None:
    """As in Kubernetes, whatever the type says."""
    field = {TargetType.VALUE: "value", TargetType.AVERAGE_VALUE: "averageValue"}[kind]
    (read,) = HpaSpec.from_json(external(type=type_.value, **{field: "4"})).metrics
    assert (read.target_type, read.target) == (kind, Quantity.parse(4))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                [
                    "minReplicas",
                    "maxReplicas",
                    "metrics",
                    "behavior",
                    "scaleUp",
                    "policies",
                    "type",
                    "external",
                ]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=8,
)


@given(JSON)
def test_any_document_is_understood_or_refused(document: object) -> None:
    try:
        HpaSpec.from_json(document)
    except InvalidHpa:
        return


def test_a_missing_minimum_is_one() -> None:
    assert HpaSpec.from_json(GOOD).min_replicas == 1


def test_any_behavior_brings_the_defaults_of_the_server() -> None:
    behavior = HpaSpec.from_json({**GOOD, "behavior": {}}).behavior
    assert behavior is not None
    assert [(p.type, p.value, p.period_s) for p in behavior.scale_up.policies] == [
        (PolicyType.PODS, 4, 15),
        (PolicyType.PERCENT, 100, 15),
    ]
    assert behavior.scale_up.window_s == 0
    assert [(p.type, p.value, p.period_s) for p in behavior.scale_down.policies] == [
        (PolicyType.PERCENT, 100, 15)
    ]
    assert behavior.scale_down.window_s is None
    assert {behavior.scale_up.select, behavior.scale_down.select} == {SelectPolicy.MAX}


def test_a_spec_survives_being_stored() -> None:
    spec = hpa(
        metrics=[metric(target="2500m"), metric(BUSY, kind="Value", target="1k")],
        up={"tolerance": "0.05", "selectPolicy": "Min"},
        down={"stabilizationWindowSeconds": 60, "policies": [policy("Pods", 1, 60)]},
    )
    assert HpaSpec.from_json(spec.to_json()) == spec


def test_a_memory_survives_being_stored_and_nothing_else_is_taken_for_one() -> None:
    from deployments.domain.hpa import decide

    spec = hpa(up={}, down={})
    observation = Observation(
        now_s=1.5, spec_replicas=2, status_replicas=2, ready_replicas=2, readings={QUEUE: Reading.of("90")}
    )
    state = decide(spec, HpaState(), observation)[1]
    assert state.scale_ups
    assert HpaState.from_json(state.to_json()) == state
    with pytest.raises(InvalidHpa):
        HpaState.from_json({"recommendations": 3})


class TestWhatADeploymentGetsWhenNobodySaysOtherwise:
    def test_it_watches_the_queue_and_the_work_in_flight(self) -> None:
        spec = default_spec(min_replicas=2, max_replicas=20, useful_concurrency=16, deployment="bert")
        assert [(m.name, m.target) for m in spec.metrics] == [
            (QUEUE, Quantity.parse("10")),
            (BUSY, Quantity.parse("11200m")),
        ]
        assert all(m.selector == {"matchLabels": {"deployment": "bert"}} for m in spec.metrics)
        assert HpaSpec.from_json(spec.to_json()) == spec

    def test_it_quadruples_in_one_sync_and_shrinks_by_a_quarter_a_minute_after_five(self) -> None:
        spec = default_spec(min_replicas=2, max_replicas=20, useful_concurrency=1)
        busy = spec.to_json()
        busy["metrics"] = busy["metrics"][:1]
        only_queue = HpaSpec.from_json(busy)
        decisions = run(only_queue, [200] * 3 + [0] * 28, start=2)
        assert sizes(decisions)[:3] == [8, 20, 20]
        shrinking = sizes(decisions)[3:]
        assert shrinking[:19] == [20] * 19
        assert shrinking[19:25] == [15, 15, 15, 15, 11, 11]

    def test_it_can_leave_zero_where_zero_is_allowed(self) -> None:
        spec = default_spec(min_replicas=0, max_replicas=8, useful_concurrency=2)
        document = spec.to_json()
        document["metrics"] = document["metrics"][:1]
        assert sizes(run(HpaSpec.from_json(document), [25], start=0)) == [3]

    @pytest.mark.parametrize("useful", [0, -1, float("nan")])
    def test_it_needs_a_useful_concurrency_above_zero(self, useful: float) -> None:
        with pytest.raises(InvalidHpa, match="useful_concurrency"):
            default_spec(min_replicas=1, max_replicas=2, useful_concurrency=useful)


@pytest.mark.parametrize("values", [(), (-1,), ("NaN",), (None,), (1, "x")])
def test_a_reading_nobody_can_believe_is_no_reading(values: tuple[object, ...]) -> None:
    with pytest.raises(InvalidHpa):
        Reading.of(*values)


def test_a_reading_is_the_sum_of_what_the_source_returned() -> None:
    assert Reading.of("1500m", 2, "0.0001").milli == 3_501


@pytest.mark.parametrize("count", [-1, 1.5, True, None])
def test_a_number_of_replicas_is_a_whole_number(count: Any) -> None:
    with pytest.raises(InvalidHpa, match="status_replicas"):
        Observation(now_s=0, spec_replicas=1, status_replicas=count, ready_replicas=1)
