"""A cluster's own autoscaler is explained: its word is the truth, and the sentence says whose word it is."""

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from deployments.autoscaling.cluster import Explainer
from deployments.domain.workload import TargetStatus
from deployments.models import Decision
from deployments.telemetry.signals import DeploymentSignals, Signal, SignalError, SignalName
from tests.deployments.world import World

pytestmark = pytest.mark.django_db
NOW = 1_790_000_000.0
ABLE = {
    "type": "AbleToScale",
    "status": "True",
    "reason": "ReadyForNewScale",
    "message": "recommended size matches",
}
ACTIVE = {
    "type": "ScalingActive",
    "status": "True",
    "reason": "ValidMetricFound",
    "message": "the HPA was able to",
}
FREE = {
    "type": "ScalingLimited",
    "status": "False",
    "reason": "DesiredWithinRange",
    "message": "within the range",
}


@pytest.fixture
def world(world: World) -> World:
    world.serve(replicas=2)
    return world


def hpa(world: World, current: int, desired: int, *conditions: dict[str, str], **more: Any) -> TargetStatus:
    by_type = {one["type"]: one for one in (ABLE, ACTIVE, FREE, *conditions)}
    said = {"current": current, "desired": desired, "metrics": {}, "conditions": list(by_type.values())}
    return replace(world.seen, wanted=desired, autoscaler=said | more)


def signals(world: World, queue: float | None, *, at_s: float = 0) -> DeploymentSignals:
    def signal(value: float | None) -> Signal:
        error = None if value is not None else SignalError.STALE
        return Signal(value=value, age_s=1, reporting=2, expected=2, error=error)

    values: dict[SignalName, float | None] = dict.fromkeys(SignalName, 0.0)
    values |= {SignalName.QUEUE_DEPTH: queue}
    return DeploymentSignals(
        deployment=world.row.key,
        at_wall=NOW + at_s,
        period_s=5.0,
        signals={name: signal(value) for name, value in values.items()},
    )


def look(
    world: World, explainer: Explainer, seen: TargetStatus, queue: float | None, *, at_s: float = 0
) -> Decision:
    row = world.deployment
    assert row.live_revision is not None
    found = explainer.look(
        row, row.live_revision, signals=signals(world, queue, at_s=at_s), seen=seen, now_s=NOW + at_s
    )
    assert found is not None
    return found


def test_where_both_come_to_the_same_size_the_rule_is_told_in_our_words(world: World) -> None:
    found = look(world, Explainer(), hpa(world, 2, 6), 55)
    assert (found.current_replicas, found.desired_replicas, found.raw_recommendation) == (2, 6, 6)
    assert found.sentence.startswith("Scaled 2 to 6: inference_queue_depth 55 (1 s old) asks for 6")
    assert found.sentence.endswith("The cluster's autoscaler says the same.")
    assert found.conditions["AbleToScale"] == "True ReadyForNewScale"


@pytest.mark.parametrize(
    ("reason", "rule"),
    [
        ("TooManyReplicas", "max"),
        ("TooFewReplicas", "min"),
        ("ScaleUpLimit", "scale_up_policy"),
        ("ScaleDownLimit", "scale_down_policy"),
        ("SomethingOfTomorrow", "unexplained"),
    ],
)
def test_where_they_differ_the_hpa_is_right_and_says_why(world: World, reason: str, rule: str) -> None:
    limited = {
        "type": "ScalingLimited",
        "status": "True",
        "reason": reason,
        "message": "the desired count is cut",
    }
    found = look(world, Explainer(), hpa(world, 2, 3, limited), 55)
    assert (found.desired_replicas, found.raw_recommendation, found.limited_by) == (3, None, rule)
    assert f"({reason}: the desired count is cut)" in found.sentence
    assert "from Slipway's signals it would be 6" in found.sentence


def test_frozen_for_a_missing_metric_reads_as_exactly_that_with_who_owns_it(world: World) -> None:
    lost = {
        "type": "ScalingActive",
        "status": "False",
        "reason": "FailedGetExternalMetric",
        "message": "unable to get external metric ml/inference_queue_depth",
    }
    seen = hpa(world, 4, 4, lost, provider="keda/keda-metrics, which is not Slipway's")
    for queue in (0.0, 55.0, None):
        found = look(world, Explainer(), seen, queue)
        assert (found.desired_replicas, found.limited_by) == (4, "missing_metric")
        assert found.sentence == (
            "Frozen at 4: the cluster's autoscaler cannot read its metric (unable to get external metric "
            "ml/inference_queue_depth); external.metrics.k8s.io is answered by keda/keda-metrics, which is not "
            "Slipway's."
        )


def test_our_own_stale_signal_does_not_speak_for_the_hpa(world: World) -> None:
    found = look(world, Explainer(), hpa(world, 2, 2), None)
    assert found.limited_by == "none"
    assert "by the cluster's autoscaler (ReadyForNewScale" in found.sentence


def test_an_hpa_that_may_not_scale_says_so(world: World) -> None:
    stuck = {
        "type": "AbleToScale",
        "status": "False",
        "reason": "FailedGetScale",
        "message": "no such Deployment",
    }
    found = look(world, Explainer(), hpa(world, 2, 2, stuck), 0)
    assert found.limited_by == "cannot_scale"
    assert "FailedGetScale: no such Deployment" in found.sentence


def test_a_row_is_stored_when_something_changes_and_counted_up_else(world: World) -> None:
    explainer, seen = Explainer(), hpa(world, 2, 2)
    for at_s in (0, 2, 4):
        look(world, explainer, seen, 15, at_s=at_s)
    one = Decision.objects.get()
    assert (one.repeats, one.last_at) == (3, datetime.fromtimestamp(NOW + 4, UTC))
    look(world, explainer, hpa(world, 2, 6), 55, at_s=6)
    assert Decision.objects.count() == 2


def test_an_hpa_that_said_nothing_yet_is_not_spoken_for(world: World) -> None:
    row = world.deployment
    assert row.live_revision is not None
    seen = replace(world.seen, autoscaler={"current": None, "desired": None, "conditions": [], "metrics": {}})
    args = {"signals": signals(world, 5), "seen": seen, "now_s": NOW}
    assert Explainer().look(row, row.live_revision, **args) is None  # type: ignore[arg-type]
    assert not Decision.objects.exists()
