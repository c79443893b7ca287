"""What holds for every HPA and every series of readings."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from deployments.domain.hpa import HpaSpec, HpaState, LimitedBy, decide
from tests.deployments.domain.hpa_cases import hpa, metric, policy, run, settled, sizes, sync

totals = st.integers(min_value=0, max_value=500_000).map(lambda milli: f"{milli}m")
readings = st.one_of(totals, st.just("failed: gone"))
policies = st.builds(policy, st.sampled_from(["Pods", "Percent"]), st.integers(1, 300), st.integers(1, 120))


@st.composite
def rules(draw: st.DrawFn) -> dict[str, Any]:
    return {
        "stabilizationWindowSeconds": draw(st.integers(0, 120)),
        "selectPolicy": draw(st.sampled_from(["Max", "Min", "Disabled"])),
        "policies": draw(st.lists(policies, min_size=1, max_size=3)),
        "tolerance": draw(st.sampled_from(["0", "0.05", "100m", "0.5"])),
    }


@st.composite
def specs(draw: st.DrawFn) -> HpaSpec:
    least = draw(st.integers(0, 6))
    kind = draw(st.sampled_from(["AverageValue", "Value"]))
    behavior = draw(st.booleans())
    return hpa(
        least=least,
        most=draw(st.integers(max(least, 1), 30)),
        metrics=[metric(kind=kind, target=draw(st.sampled_from(["10", "1500m", "1"])))],
        up=draw(rules()) if behavior else None,
        down=draw(rules()) if behavior else None,
    )


@settings(max_examples=150)
@given(specs(), st.integers(0, 40), st.lists(readings, min_size=1, max_size=12))
def test_the_size_never_leaves_the_bounds(spec: HpaSpec, start: int, values: list[str]) -> None:
    for decision in run(spec, values, start=start):
        off = decision.limited_by is LimitedBy.SWITCHED_OFF_AT_ZERO
        # A size is only kept outside the bounds where zero switched autoscaling off.
        assert off or spec.min_replicas <= decision.desired_replicas <= spec.max_replicas
        assert decision.sentence().endswith(".")


@settings(max_examples=100)
@given(specs(), st.integers(0, 40), st.lists(readings, min_size=1, max_size=8))
def test_storing_the_memory_between_syncs_changes_nothing(
    spec: HpaSpec, start: int, values: list[str]
) -> None:
    state, replicas = HpaState(), start
    for expected, value in zip(run(spec, values, start=start), values, strict=True):
        decision, after = decide(
            spec, HpaState.from_json(state.to_json()), sync(expected.at_s, replicas, value)
        )
        assert decision == expected
        state, replicas = after, decision.desired_replicas


@settings(max_examples=150)
@given(specs(), st.integers(1, 30), st.integers(0, 300), st.integers(0, 300))
def test_more_load_never_means_fewer_replicas(spec: HpaSpec, start: int, one: int, other: int) -> None:
    less, more = sorted((one, other))
    state = settled(spec, replicas=start)
    asked = [decide(spec, state, sync(15, start, value))[0].desired_replicas for value in (less, more)]
    assert asked[0] <= asked[1]


@settings(max_examples=150)
@given(st.lists(totals, min_size=1, max_size=30), st.integers(15, 300), st.booleans())
def test_the_size_never_goes_below_what_the_window_asked_for(
    values: list[str], window_s: int, with_behavior: bool
) -> None:
    spec = hpa(least=1, most=1000, down={"stabilizationWindowSeconds": window_s} if with_behavior else None)
    controller_window_s = window_s if with_behavior else 300
    decisions = run(spec, values, start=4)
    for index, decision in enumerate(decisions):
        if decision.desired_replicas >= decision.current_replicas:
            continue
        recent = [
            earlier.raw_recommendation or 0
            for earlier in decisions[: index + 1]
            if decision.at_s - earlier.at_s < controller_window_s
        ]
        assert decision.desired_replicas >= max(recent)


@settings(max_examples=100)
@given(st.lists(totals, min_size=1, max_size=30), st.integers(1, 6), st.integers(1, 90))
def test_no_more_pods_come_within_a_period_than_its_policy_allows(
    values: list[str], pods: int, period_s: int
) -> None:
    up = {"policies": [policy("Pods", pods, period_s)]}
    decisions = run(hpa(least=1, most=1000, up=up, down={"selectPolicy": "Disabled"}), values, start=1)
    for decision in decisions:
        recent = [
            past.desired_replicas - past.current_replicas
            for past in decisions
            if 0 <= decision.at_s - past.at_s < period_s
        ]
        assert sum(recent) <= pods


@settings(max_examples=100)
@given(specs(), st.integers(1, 30), st.lists(totals, max_size=6))
def test_a_missing_metric_never_changes_a_size_within_the_bounds(
    spec: HpaSpec, start: int, values: list[str]
) -> None:
    decision = run(spec, [*values, "failed: gone"], start=start)[-1]
    inside = spec.min_replicas <= decision.current_replicas <= spec.max_replicas
    assert not inside or not decision.changed


@settings(max_examples=60)
@given(totals, st.integers(2, 20))
def test_a_steady_load_comes_to_rest(total: str, start: int) -> None:
    decisions = run(hpa(down={"stabilizationWindowSeconds": 0}), [total] * 8, start=start)
    assert len(set(sizes(decisions[-3:]))) == 1
